"""Facts about runs, and a name for each that no other run has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl.arrays_file import read_arrays, write_arrays
from fl.errors import BadInput
from fl.files import read_json, write_json
from fl.parameters import Array
from fl.registry.layout import (
    RESERVED,
    check_run_id,
    examples_path,
    locked,
    make_folder,
    now,
    run_path,
    versions_folder,
)

MAX_EXAMPLES = 256


def claim_run_id(folder: Path, name: str) -> str:
    """A run id that nobody has, and now has an owner; see ``Registry.claim_run_id``."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:80] or "run"
    with locked(folder):
        run_id, number = clean, 1
        while run_id in RESERVED or run_path(folder, run_id).exists() or (versions_folder(folder) / run_id).exists():
            number += 1
            run_id = f"{clean}-{number}"
        _write(folder, run_id, {"run_id": run_id, "status": "claimed", "created": now()})
    return run_id


def start_run(folder: Path, run_id: str, facts: Mapping[str, Any]) -> None:
    """Record a run that starts, or goes on."""
    with locked(folder):
        _update(folder, run_id, {"status": "running", **facts, "finished": None})


def finish_run(folder: Path, run_id: str, facts: Mapping[str, Any]) -> None:
    """Add what is known at the end of a run."""
    with locked(folder):
        _update(folder, run_id, {"status": "finished", **facts, "finished": now()})


def run(folder: Path, run_id: str) -> dict[str, Any]:
    """The facts of one run. Raises BadInput if there is none of that id."""
    path = run_path(folder, run_id)
    if not path.is_file():
        known = ", ".join(r["run_id"] for r in list_runs(folder)[-5:]) or "none yet"
        raise BadInput(key="run", got=run_id, allowed=f"a run of this registry, such as {known}")
    return dict(read_json(path))


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """The facts of every run, oldest first."""
    runs = [read_json(path) for path in (folder / "runs").glob("*.json")]
    return sorted(runs, key=lambda r: (r.get("created", ""), r.get("run_id", "")))


def keep_examples(folder: Path, run_id: str, x: Array, y: Array) -> None:
    """Keep the first ``MAX_EXAMPLES`` of the server's test examples, as the model gets them."""
    if len(x) != len(y):
        raise BadInput(key="examples", got=f"{len(x)} inputs and {len(y)} targets", allowed="as many of both")
    kept = {"x": np.asarray(x[:MAX_EXAMPLES]), "y": np.asarray(y[:MAX_EXAMPLES])}
    with locked(folder):
        make_folder(folder / "runs")
        write_arrays(examples_path(folder, check_run_id(run_id)), kept, site="registry.examples")


def examples(folder: Path, run_id: str) -> tuple[Array, Array] | None:
    """The kept test examples (x, y) of a run, None if it kept none. Raises CorruptFile if they cannot be read."""
    path = examples_path(folder, run_id)
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    return arrays["x"], arrays["y"]


def _update(folder: Path, run_id: str, facts: Mapping[str, Any]) -> None:
    path = run_path(folder, check_run_id(run_id))
    before = read_json(path) if path.is_file() else {"created": now()}
    _write(folder, run_id, {**before, **facts, "run_id": run_id})


def _write(folder: Path, run_id: str, facts: Mapping[str, Any]) -> None:
    make_folder(folder / "runs")
    write_json(run_path(folder, run_id), facts, site="registry.run")
