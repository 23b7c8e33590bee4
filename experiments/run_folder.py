"""A run's folder: one writer at a time, one id in the registry, and nothing in it that has gone bad."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fl.errors import BadInput
from fl.files import read_json, write_json
from fl.registry import Registry

if TYPE_CHECKING:
    from clients.state import StateStore

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


def forget_what_is_damaged(
    stores: Sequence[StateStore],
    registry: Registry,
    run_id: str,
    run_dir: Path,
    *,
    num_rounds: int | None = None,
    state_path: Callable[[Path, int], Path] | None = None,
) -> int:
    """Leave of a run what is whole, and nothing of the rounds after that: they are going to happen again.

    A device's state, in ``stores``, is what its last round left, so that without it the run goes on from before that
    round; where that cannot be, since older states are gone, it starts over. The result is the same. Of a run that has
    made its ``num_rounds`` rounds no state is asked for. ``state_path`` is ``server.history.state_path`` if not given.
    Returns the last round that is whole, -1 for none.
    """
    from server import history

    where = state_path or history.state_path
    while True:
        last, wrong = history.sound_round(registry, run_id, run_dir, state_path=where)
        for store in stores if num_rounds is None or last < num_rounds else []:
            if damaged := store.damaged(before=last + 1):
                last = last - 1 if damaged[0] == last else -1
                wrong.append(damaged[1])
        for store in stores:
            store.drop_from(last + 1)
        if not wrong:
            return last
        registry.forget_from(run_id, last + 1)
        for line in wrong:
            print(f"damaged: {line}", file=sys.stderr)
        print(f"going on from {f'round {last}' if last >= 0 else 'the start'}", file=sys.stderr)
