"""Runs of a pipeline that nothing needs any longer: each holds a copy of the data that it was trained on.

Their versions stay in the registry, whole. What goes with the folder is what needs the data again, such as fl resume,
fl replay and fl evaluate of that run. So a run is kept that is the pipeline's own, or one of whose versions an alias
names, or could be rolled back to, or is an ancestor of such a version.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fl.errors import BadInput, CorruptFile
from fl.files import read_json

if TYPE_CHECKING:
    from fl.registry import Registry


def unneeded_runs(root: Path, registry: Path | str) -> list[Path]:
    """The folders below DIR/runs that nothing needs, by name; none where that cannot be told."""
    from experiments.lifecycle.pipeline import EVIDENCE
    from fl.registry import Registry

    try:
        own = str(read_json(root / "train" / EVIDENCE)["run_id"])
        needed = {own, *_of_aliases(Registry(registry))}
        folders = [folder for folder in sorted((root / "runs").iterdir()) if not folder.is_symlink()]
        return [folder for folder in folders if _run_id(folder) not in {None, *needed}]
    except (BadInput, CorruptFile, OSError, KeyError):
        return []


def remove(folders: Sequence[Path]) -> None:
    """Remove run folders. The caller holds the pipeline's lock."""
    for folder in folders:
        shutil.rmtree(folder)


def num_bytes(folders: Sequence[Path]) -> int:
    """What the files in them weigh."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _of_aliases(registry: Registry) -> set[str]:
    """The runs of all versions that an alias names or named, and of those that these came from."""
    from fl.registry.layout import ALIASES

    names = {str(move["to"]) for alias in ALIASES for move in registry.alias_moves(alias)}
    return {version.run_id for name in names for version in registry.lineage(name)}


def _run_id(folder: Path) -> str | None:
    """The id of the run in a folder that holds one; another folder is nobody's business."""
    from experiments.config_file import CONFIG
    from experiments.run_folder import RUN

    if not (folder / CONFIG).is_file() or not (folder / RUN).is_file():
        return None
    return str(read_json(folder / RUN)["run_id"])
