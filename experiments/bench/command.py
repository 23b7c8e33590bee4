"""`fl bench` as a command: progress on stderr, tables or one JSON document on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.bench.report import as_json as plain
from experiments.bench.report import show
from experiments.bench.run import bench
from experiments.bench.settings import read

WIDE = 200
"""Columns of a table that goes to a file or a pipe."""


def run_bench(overrides: Sequence[str], *, as_json: bool) -> int:
    """Exit status: 0, or 1 where a system failed or the final losses do not agree. Raises BadInput before any run."""
    progress = Console(stderr=True, highlight=False)
    report, folder = bench(read(overrides), say=lambda text: progress.print(f"[dim]{text}[/dim]"))
    if as_json:
        print(json.dumps(plain(report) | {"folder": str(folder)}, indent=2))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else WIDE, highlight=False))
        print(folder)
    return int(bool(report.disagreeing or any(row.failed for row in report.rows)))
