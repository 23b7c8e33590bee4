"""Systems in turn on a workload, several times over: runs interleaved, so that all meet the same machine."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bench.arrays import start_of, train_loss, write_data, write_start
from experiments.bench.drivers.record import NOTHING
from experiments.bench.process import Ran, run
from experiments.bench.systems import Left, Place, System, copy_drivers
from experiments.bench.workloads import Workload

MOST_SECONDS = 1800.0
"""A run that takes longer is ended and counts as failed."""

LAST_LINES = 15


@dataclass(frozen=True)
class Row:
    """What one system did on one workload: medians over the repeats, but for ``round_least``.

    round_seconds   the median round after the first;  round_least  the quickest of all of them
    first_seconds   from the start of the process to the end of the first round
    setup_seconds   of that, what came before the first round, where the system tells; else NaN
    wall_seconds    from the start of the process to its end
    peak_bytes      of all its processes;  first_bytes  of the first of them alone
    loss            over every client's examples after the last round; NaN where there is none
    failed          why there are no figures; "" where there are
    """

    workload: Workload
    system: str
    ours: bool
    round_seconds: float = math.nan
    round_least: float = math.nan
    first_seconds: float = math.nan
    setup_seconds: float = math.nan
    wall_seconds: float = math.nan
    peak_bytes: float = math.nan
    first_bytes: float = math.nan
    loss: float = math.nan
    repeats: int = 0
    failed: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure(
    workload: Workload, systems: Sequence[System], *, repeats: int, folder: Path, say: Callable[[str], None]
) -> list[Row]:
    """One row a system, in their order. Logs stay in ``folder``; what the runs made is removed."""
    folder.mkdir(parents=True)
    data, start = folder / "data.npz", folder / "start.npz"
    if not workload.views:
        write_data(workload, data)
        write_start(start, start_of(workload))
    drivers = copy_drivers(folder / "drivers")
    runs: dict[str, list[tuple[Ran, Left, float]]] = {system.name: [] for system in systems}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for system in systems:
            if system.name in failed:
                continue
            place = Place(folder / "runs" / f"{system.name} {repeat + 1}", data, start, drivers)
            place.folder.mkdir(parents=True)
            log = folder / f"{system.name} {repeat + 1}.log"
            say(f"{workload.name}: {system.name}, {repeat + 1} of {repeats}")
            try:
                runs[system.name].append(_once(workload, system, place, log))
            except OSError as error:
                failed[system.name] = f"{error}\n{_tail(log)}"
            shutil.rmtree(place.folder)
    for made in (folder / "runs", drivers):
        shutil.rmtree(made)
    for file in (data, start):
        file.unlink(missing_ok=True)
    return [_row(workload, system, runs[system.name], failed.get(system.name, "")) for system in systems]


def disagreement(rows: Iterable[Row]) -> float:
    """The largest relative difference between a final loss and the median of them all; 0 where none can be compared."""
    losses = [row.loss for row in rows if not math.isnan(row.loss)]
    middle = statistics.median(losses) if losses else 0.0
    return max((abs(loss - middle) / middle for loss in losses if middle), default=0.0)


def _once(workload: Workload, system: System, place: Place, log: Path) -> tuple[Ran, Left, float]:
    """Raises OSError where the run failed or left nothing."""
    ran = run(
        system.command(workload, place),
        folder=place.folder,
        log=log,
        environment=system.environment(place),
        timeout=MOST_SECONDS,
    )
    if ran.status:
        raise ChildProcessError(f"exit status {ran.status}")
    left = system.read(place)
    learns = not workload.views and workload.model != NOTHING
    loss = train_loss(workload, place.data, dict(left.parameters)) if learns else math.nan
    return ran, left, loss


def _row(workload: Workload, system: System, runs: Sequence[tuple[Ran, Left, float]], failed: str) -> Row:
    if failed:
        return Row(workload, system.name, system.ours, failed=failed)
    middle = statistics.median
    return Row(
        workload,
        system.name,
        system.ours,
        round_seconds=middle(middle(left.round_seconds) for _, left, _ in runs),
        round_least=min(min(left.round_seconds) for _, left, _ in runs),
        first_seconds=middle(left.first_ended - ran.began for ran, left, _ in runs),
        setup_seconds=middle(_setup(left) for _, left, _ in runs),
        wall_seconds=middle(ran.wall_seconds for ran, _, _ in runs),
        peak_bytes=middle(ran.peak_bytes for ran, _, _ in runs),
        first_bytes=middle(ran.first_bytes for ran, _, _ in runs),
        loss=middle(loss for _, _, loss in runs),
        repeats=len(runs),
        facts=runs[-1][1].facts,
    )


def _setup(left: Left) -> float:
    return float((left.facts.get("seconds") or {}).get("setup", math.nan))


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:]) if log.exists() else ""
