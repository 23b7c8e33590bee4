"""A run's folder: one writer at a time, and one id in the registry."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl.errors import BadInput
from fl.files import read_json, write_json
from fl.registry import Registry

RUN = "run.json"


def claimed_run_id(run_dir: Path, registry: Registry) -> str:
    """The run's id in the registry: claimed once, named after its folder; a run of a sweep after the sweep too."""
    path = run_dir / RUN
    if not path.exists():
        name = f"{run_dir.parent.name}-{run_dir.name}" if run_dir.name.isdigit() else run_dir.name
        write_json(path, {"run_id": registry.claim_run_id(name)}, site="run")
    return str(read_json(path)["run_id"])


@contextmanager
def only_writer(run_dir: Path, *, key: str = "run_dir") -> Iterator[None]:
    """Hold the run's folder, or raise BadInput by ``key``; a process that dies lets go of it by dying."""
    with (run_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(key=key, got=str(run_dir), allowed="a run that no other process is writing") from error
        yield
