"""`fl new`: the folder that a project of one's own starts from, with tests that pass."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

from experiments.project_template import EXECUTABLE, FILES
from fl.errors import BadInput
from fl.faults import reach
from fl.files import storing, sync_folder

EXAMPLE = "data/raw/example.csv"
ROWS, SITES = 240, ("north", "south", "west")


def make_project(folder: Path) -> Path:
    """Make ``folder`` a project, whole or not at all; returns it. Raises BadInput where something is there already."""
    place = folder.expanduser().absolute()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", place.name):
        raise BadInput(key="PROJECT", got=str(folder), allowed="a name of letters, digits, '.', '_' and '-'")
    if place.exists():
        raise BadInput(key="PROJECT", got=str(folder), allowed="a folder that is not there yet")
    if not place.parent.is_dir():
        raise BadInput(key="PROJECT", got=str(folder), allowed="a folder in one that exists")
    beside = place.with_name(f".{place.name}.new")
    with storing(place, site="project"):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            for name, text in {**FILES, EXAMPLE: _example()}.items():
                path = beside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text.replace("PROJECT", place.name), encoding="utf-8")
                if name in EXECUTABLE:
                    path.chmod(0o755)
            reach("project.written")
            beside.rename(place)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(place.parent)
    return place


def _example() -> str:
    """A table that can be learned: the label is whether two measurements add up to more than nothing, most times."""
    drawn = random.Random(1)
    lines = ["site,first,second,third,label"]
    for row in range(ROWS):
        first, second, third = (drawn.gauss(0, 1) for _ in range(3))
        label = int(first + second + drawn.gauss(0, 0.3) > 0)
        lines.append(f"{SITES[row % len(SITES)]},{first:.4f},{second:.4f},{third:.4f},{label}")
    return "\n".join(lines) + "\n"
