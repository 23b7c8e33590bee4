"""What `fl bench suite=serving` found: a table a work and the figures to reach, for a terminal and as files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.bench.serving import OURS, Row, verdicts
from experiments.bench.targets import Verdict
from fl.plain import plain

COLUMNS = ("system", "requests/s", "p50 ms", "p99 ms", "CPU s / 1,000", "first answer s", "not 200", "ours is")
REMARKS = (
    "One intra-op thread each; the load generator is on the same machine, and the same for all.",
    "FastAPI alone: pydantic models, an async function, a call of onnxruntime a request. Ray Serve: a replica of that.",
    "A canary and a log: a quarter of the requests get another version, all are taken down; against a champion alone.",
    "These two stand side by side and are asked in turns of half a second.",
    "ours is: requests a second of ours over those of the system.",
)


def tables(rows: Sequence[Row]) -> Iterator[tuple[str, list[list[str]]]]:
    """Title and cells of the table of each work."""
    for work in dict.fromkeys(row.work for row in rows):
        group = [row for row in rows if row.work == work]
        mine = next((row.per_second for row in group if row.system == OURS), math.nan)
        yield work.name, [_cells(row, mine) for row in group]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the tables."""
    for title, cells in tables(rows):
        console.print(_table(title, COLUMNS, cells))
        console.print()
    console.print(_table(None, ("figure to reach", "wanted", "got", ""), [_verdict(one) for one in verdicts(rows)]))
    for remark in REMARKS:
        console.print(remark, style="dim")


def write(rows: Sequence[Row], about: Mapping[str, Any], folder: Path) -> None:
    """report.json and report.md."""
    (folder / "report.json").write_text(json.dumps(as_json(rows, about), indent=2) + "\n")
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in about.items()]
    figures = ("Figures to reach", [_verdict(one) for one in verdicts(rows)])
    for (title, cells), columns in zip(
        [*tables(rows), figures], [*[COLUMNS] * len(list(tables(rows))), ("figure", "wanted", "got", "")], strict=True
    ):
        lines += ["", f"### {title}", ""]
        lines += [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *cells)]
    (folder / "report.md").write_text("\n".join([*lines, "", *(f"- {one}" for one in REMARKS)]) + "\n")


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values; what was not measured is None."""
    return {
        "about": dict(about),
        "rows": [plain(asdict(row) | {"work": row.work.name}) for row in rows],
        "figures": [plain(asdict(one)) for one in verdicts(rows)],
        "remarks": list(REMARKS),
    }


def _cells(row: Row, mine: float) -> list[str]:
    if row.failed:
        return [row.system, f"failed: {row.failed.splitlines()[0]}", *[""] * (len(COLUMNS) - 2)]
    return [
        row.system,
        f"{row.per_second:,.0f}",
        f"{1e3 * row.p50_seconds:.2f}",
        f"{1e3 * row.p99_seconds:.2f}",
        f"{row.cpu_seconds:.3f}" if row.cpu_seconds else "",
        "" if math.isnan(row.first_seconds) else f"{row.first_seconds:.2f}",
        str(row.not_answered),
        f"{mine / row.per_second:.2f}x",
    ]


def _verdict(one: Verdict) -> list[str]:
    return [one.figure, one.wanted, f"{one.got:.3g}", "reached" if one.reached else "missed"]


def _table(title: str | None, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    for line in cells:
        table.add_row(*line)
    return table
