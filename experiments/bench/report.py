"""What a bench found: a table of ratios in the terminal, and report.json, report.md and pictures in a folder."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.bench.measure import Row, disagreement
from experiments.bench.targets import MIB, Verdict, verdicts
from experiments.engine import available_cores
from fl.plain import plain

COLUMNS = ("system", "round ms", "best ms", "a client ms", "round 1 s", "wall s", "MiB", "driver MiB", "loss")


@dataclass(frozen=True)
class Report:
    """Rows of all workloads, the lines about what was left out, and what a reader needs to judge them."""

    rows: Sequence[Row]
    remarks: Sequence[str]
    about: Mapping[str, Any]
    tolerance: float

    @property
    def groups(self) -> list[list[Row]]:
        """The rows of each workload."""
        names = dict.fromkeys(row.workload.name for row in self.rows)
        return [[row for row in self.rows if row.workload.name == name] for name in names]

    @property
    def disagreeing(self) -> list[str]:
        """Workloads on which a final loss is too far from the others'."""
        return [group[0].workload.name for group in self.groups if disagreement(group) > self.tolerance]

    @property
    def verdicts(self) -> list[Verdict]:
        """The figures to reach that these rows tell of."""
        return verdicts(self.rows)


def about(command: str, *, load: float) -> dict[str, Any]:
    """The machine, the command and the commit; ``load`` is the machine's own before anything was started."""
    from importlib.metadata import version

    import psutil

    from fl.registry.provenance import code_state

    packages = ("torch", "flwr", "ray", "numpy")
    return {
        "command": command,
        **code_state(),
        "machine": f"{platform.machine()}, {available_cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load_before": round(load, 2),
    }


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    for group in report.groups:
        table = Table(title=group[0].workload.name, title_justify="left", box=None, pad_edge=False)
        for number, name in enumerate(_columns(group)):
            table.add_column(name, justify="right" if number else "left", no_wrap=not number)
        for cells in _cells(group):
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
        console.print(Text(_agreement(group, report.tolerance), "dim"), end="\n\n")
    if report.verdicts:
        table = Table("figure to reach", "wanted", "got", "the floor's", "", box=None, pad_edge=False)
        for verdict in report.verdicts:
            table.add_row(
                verdict.figure, verdict.wanted, _number(verdict.got), _number(verdict.floor), _reached(verdict)
            )
        console.print(table)
    for remark in report.remarks:
        console.print(Text(remark))


def write(report: Report, folder: Path) -> None:
    """report.json with everything, report.md with the tables, and a picture a kind of workload."""
    from experiments.bench.plots import draw

    (folder / "report.json").write_text(json.dumps(as_json(report), indent=2) + "\n")
    (folder / "report.md").write_text(_markdown(report))
    draw(report.rows, folder)


def as_json(report: Report) -> dict[str, Any]:
    """Plain values; what was not measured is None."""
    return {
        "about": dict(report.about),
        "rows": [plain(asdict(row)) for row in report.rows],
        "figures": [plain(asdict(verdict)) for verdict in report.verdicts],
        "losses": {group[0].workload.name: disagreement(group) for group in report.groups},
        "tolerance": report.tolerance,
        "disagreeing": report.disagreeing,
        "remarks": list(report.remarks),
    }


def _columns(group: Sequence[Row]) -> list[str]:
    """The figures, and how many times as much a system takes as each way of ours."""
    return [*COLUMNS, *(f"/ {row.system.partition(', ')[2]}" for row in _yardsticks(group))]


def _yardsticks(group: Sequence[Row]) -> list[Row]:
    """Ours that others are held against, where there are others; in process is what auto mostly is."""
    if all(row.ours for row in group):
        return []
    return [row for row in group if row.ours and not row.failed and "inprocess" not in row.system]


def _cells(group: Sequence[Row]) -> Iterable[list[str]]:
    for row in group:
        if row.failed:
            yield [row.system, f"failed: {row.failed.splitlines()[0]}"]
            continue
        yield [
            row.system,
            _number(1e3 * row.round_seconds),
            _number(1e3 * row.round_least),
            _number(1e3 * row.round_seconds / row.workload.cohort),
            _number(row.first_seconds),
            _number(row.wall_seconds),
            f"{row.peak_bytes / MIB:.0f}",
            f"{row.first_bytes / MIB:.0f}",
            "" if math.isnan(row.loss) else f"{row.loss:.3f}",
            *(_ratios(row, mine) for mine in _yardsticks(group)),
        ]


def _ratios(row: Row, mine: Row) -> str:
    """Round, first round, wall and memory of ``row`` over those of ``mine``: above 1, ours takes less."""
    names = ("round_seconds", "first_seconds", "wall_seconds", "peak_bytes")
    return " ".join(f"{getattr(row, name) / getattr(mine, name):.3g}x" for name in names)


def _agreement(group: Sequence[Row], tolerance: float) -> str:
    if sum(not math.isnan(row.loss) for row in group) < 2:
        return ""
    far = disagreement(group)
    words = "agree" if far <= tolerance else "DO NOT AGREE"
    return f"final losses {words}: within {far:.1%} of their median, allowed {tolerance:.0%}"


def _markdown(report: Report) -> str:
    lines = [f"- {name.replace('_', ' ')}: {_words(value)}" for name, value in report.about.items()]
    for group in report.groups:
        columns = _columns(group)
        lines += ["", f"### {group[0].workload.name}", "", _line(columns), _line(["---"] * len(columns))]
        lines += [_line([*cells, *[""] * (len(columns) - len(cells))]) for cells in _cells(group)]
        lines += ["", agreement] if (agreement := _agreement(group, report.tolerance)) else []
    if report.verdicts:
        lines += [
            "",
            "### Figures to reach",
            "",
            _line(["figure", "wanted", "got", "the floor's", ""]),
            _line(["---"] * 5),
        ]
        lines += [_line([v.figure, v.wanted, _number(v.got), _number(v.floor), _reached(v)]) for v in report.verdicts]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in report.remarks)]).rstrip() + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _reached(verdict: Verdict) -> str:
    return "reached" if verdict.reached else "not measured" if math.isnan(verdict.got) else "missed"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _words(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
