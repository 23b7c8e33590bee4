"""A bench from its settings to its report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.bench import report as reports
from experiments.bench.measure import Row, measure
from experiments.bench.report import Report
from experiments.bench.settings import Bench, Settings
from experiments.bench.systems import System, added_up, fedjax, floors, flower, our_flower, ours, pfl
from experiments.bench.workloads import ADDED_UP, OVERHEAD, SCALE, SHAPES, Workload, over_cores
from experiments.compose import fresh_name
from experiments.engine import available_cores
from fl.errors import BadInput
from fl.files import writable_folder

OUTPUT = Path("outputs/bench")

Plan = list[tuple[Workload, list[System]]]


def bench(settings: Settings, *, say: Callable[[str], None]) -> tuple[Report, Path]:
    """Run what ``settings`` ask for, write the report into a folder, and return both. ``say`` is told each run."""
    suites = list(SUITES) if settings.suite == "all" else [settings.suite]
    plan = [(suite, chosen(SUITES[suite](settings.bench), settings.bench)) for suite in suites]
    if not any(part for _, part in plan):
        names = ", ".join(workload.name for suite in suites for workload, _ in SUITES[suite](settings.bench))
        raise BadInput(key="bench.only", got=settings.bench.only, allowed=f"parts of these names: {names}")
    folder = place_of(settings)
    about = reports.about(f"fl {shlex.join(sys.argv[1:])}", load=os.getloadavg()[0])
    rows: list[Row] = []
    report = Report(rows, _remarks(settings), about, settings.bench.tolerance)
    for suite, part in plan:
        for number, (workload, systems) in enumerate(part, 1):
            place = folder / "logs" / f"{suite} {number}"
            rows += measure(workload, systems, repeats=settings.bench.repeats, folder=place, say=say)
            reports.write(report, folder)  # after each, so that a bench cut short has told what it found
    return report, folder


def place_of(settings: Settings) -> Path:
    """The folder of the report, made."""
    return writable_folder(
        Path(settings.output or OUTPUT / f"{fresh_name()}-{settings.suite}").expanduser().absolute(), key="output"
    )


def chosen(plan: Plan, how: Bench) -> Plan:
    """The part of a plan that ``bench.only`` names, with as many rounds as ``bench.rounds`` says."""
    return [
        (replace(workload, rounds=how.rounds or workload.rounds), systems)
        for workload, systems in plan
        if how.only is None or any(part.lower() in workload.name.lower() for part in how.only)
    ]


def _peers(how: Bench) -> list[System]:
    found = [(pfl, how.pfl_python), (fedjax, how.fedjax_python)]
    return [system(python) for system, python in found if python]


def _shapes(how: Bench) -> Plan:
    mine = [ours("auto"), ours("inprocess"), ours("ray"), our_flower("auto")]
    return [(workload, [*mine, flower(), *_peers(how), *floors()]) for workload in SHAPES]


def _scale(how: Bench) -> Plan:
    return [(workload, [ours("auto"), ours("ray")]) for workload in SCALE]


def _overhead(how: Bench) -> Plan:
    idle = [(workload, [ours("auto"), ours("ray"), our_flower("auto"), flower()]) for workload in OVERHEAD]
    return [*idle, (ADDED_UP, [added_up("ours"), added_up("numpy")])]


def _cores(how: Bench) -> Plan:
    peers = [pfl(how.pfl_python)] if how.pfl_python else []
    return [(workload, [ours("ray"), *peers]) for workload in over_cores(available_cores())]


SUITES: Mapping[str, Callable[[Bench], Plan]] = {
    "shapes": _shapes,
    "scale": _scale,
    "overhead": _overhead,
    "cores": _cores,
}


def _remarks(settings: Settings) -> Sequence[str]:
    """What the reader must know that no table says."""
    compares = settings.suite in ("shapes", "cores", "all")
    missing = {"pfl_python": settings.bench.pfl_python, "fedjax_python": settings.bench.fedjax_python}
    if settings.suite == "cores":
        del missing["fedjax_python"]
    left_out = [
        f"{key.removesuffix('_python')} is left out: bench.{key}= names an interpreter that has it"
        for key, python in missing.items()
        if compares and python is None
    ]
    nothing = (
        "A client that does nothing: our own takes a step on one example with a model of 50 numbers; a Flower app's "
        "sends back what it got."
    )
    return [
        *left_out,
        *([nothing] if settings.suite in ("overhead", "all") else []),
        "One intra-op thread a process. Ours with versions, metrics and TensorBoard on; nobody evaluates between "
        "rounds.",
        "round: the median round after the first; best: the quickest. round 1 and wall: from the start of the process.",
        "MiB: the peak of all processes together; driver MiB: of the first alone.",
        "/ ENGINE: round, round 1, wall and memory, over those of ours with that engine; above 1x, ours takes less.",
    ]
