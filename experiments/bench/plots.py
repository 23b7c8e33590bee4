"""The bench's pictures: bars for systems side by side, lines over clients and over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from experiments.bench.measure import Row
from experiments.bench.targets import MIB
from experiments.bench.workloads import COHORT, POPULATION

Value = Callable[[Row], float]


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the pictures that these rows have something for; returns their files."""
    import matplotlib as mpl

    mpl.use("Agg")
    good = [row for row in rows if not row.failed]
    populations = [row for row in good if row.workload.views and row.workload.cohort == COHORT]
    cohorts = [row for row in good if row.workload.views and row.workload.clients == POPULATION]
    cores = [row for row in good if row.workload.processes]
    bars = [row for row in good if not row.workload.views and not row.workload.processes]
    time_and_memory = [("round, ms a client", _client_ms), ("driver, MiB", _driver_mib)]
    drawn = []
    if bars:
        drawn.append(_bars(bars, folder / "rounds.png"))
    for some, name, of, file in (
        (populations, "clients", "workload.clients", "populations.png"),
        (cohorts, "clients a round", "workload.cohort", "cohorts.png"),
    ):
        if some:
            drawn.append(_lines(some, name, attrgetter(of), time_and_memory, folder / file))
    for model in dict.fromkeys(row.workload.model for row in cores):
        some, file = [row for row in cores if row.workload.model == model], f"cores_{model}.png"
        ys = [(f"{model}: round, ms", _round_ms)]
        drawn.append(_lines(some, "processes", attrgetter("workload.processes"), ys, folder / file))
    return drawn


def _round_ms(row: Row) -> float:
    return 1e3 * row.round_seconds


def _client_ms(row: Row) -> float:
    return _round_ms(row) / row.workload.cohort


def _driver_mib(row: Row) -> float:
    return row.first_bytes / MIB


def _bars(rows: Sequence[Row], path: Path) -> Path:
    """A group of bars a workload, a bar a system; time on a logarithmic axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    workloads = list(dict.fromkeys(row.workload.name for row in rows))
    systems = list(dict.fromkeys(row.system for row in rows))
    figure = Figure(figsize=(max(6.0, 2.2 * len(workloads)), 4.5), layout="constrained")
    axes = figure.subplots()
    width, colours = 0.85 / len(systems), mpl.colormaps["tab20"]
    for number, system in enumerate(systems):
        mine = [row for row in rows if row.system == system]
        places = [workloads.index(row.workload.name) + (number - (len(systems) - 1) / 2) * width for row in mine]
        axes.bar(places, [_round_ms(row) for row in mine], width, label=system, color=colours(number % 20))
    axes.set_xticks(range(len(workloads)), workloads)
    axes.set_yscale("log")
    _finish(axes, "", "round, ms (median)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _lines(rows: Sequence[Row], name: str, x: Value, ys: Sequence[tuple[str, Value]], path: Path) -> Path:
    """A panel for each of ``ys`` over ``x``, a line a system, from zero."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(ys), 3.5), layout="constrained")
    panels = figure.subplots(1, len(ys), squeeze=False)[0]
    for axes, (label, y) in zip(panels, ys, strict=True):
        for system in dict.fromkeys(row.system for row in rows):
            mine = sorted((row for row in rows if row.system == system), key=x)
            axes.plot([x(row) for row in mine], [y(row) for row in mine], marker="o", label=system)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.1 * max(map(y, rows)))
        ticks = sorted({x(row) for row in rows})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        _finish(axes, name, label)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _finish(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
