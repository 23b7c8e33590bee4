"""`fl bench` as a command: progress on stderr, tables or one JSON document on stdout."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.bench.report import as_json as plain
from experiments.bench.report import show
from experiments.bench.run import bench, place_of
from experiments.bench.settings import SERVING, Settings, read

WIDE = 200
"""Columns of a table that goes to a file or a pipe."""


def run_bench(overrides: Sequence[str], *, as_json: bool) -> int:
    """Exit status: 0, or 1 where a system failed or the final losses do not agree. Raises BadInput before any run."""
    progress = Console(stderr=True, highlight=False)
    settings = read(overrides)
    if settings.suite == SERVING:
        return _serving(settings, progress, as_json=as_json)
    report, folder = bench(settings, say=lambda text: progress.print(f"[dim]{text}[/dim]"))
    if as_json:
        print(json.dumps(plain(report) | {"folder": str(folder)}, indent=2))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else WIDE, highlight=False))
        print(folder)
    return int(bool(report.disagreeing or any(row.failed for row in report.rows)))


def _serving(settings: Settings, progress: Console, *, as_json: bool) -> int:
    """Exit status: 0, or 1 where a system failed or a request was not answered."""
    from experiments.bench import serving_report as reports
    from experiments.bench.report import about
    from experiments.bench.serving import measure

    told = about(f"fl {shlex.join(sys.argv[1:])}", load=os.getloadavg()[0])
    folder = place_of(settings)
    how = settings.bench
    rows = measure(folder, repeats=how.repeats, only=how.only, say=lambda text: progress.print(f"[dim]{text}[/dim]"))
    reports.write(rows, told, folder)
    if as_json:
        print(json.dumps(reports.as_json(rows, told) | {"folder": str(folder)}, indent=2))
    else:
        reports.show(rows, Console(width=None if sys.stdout.isatty() else WIDE, highlight=False))
        print(folder)
    return int(any(row.failed or row.not_answered for row in rows))
