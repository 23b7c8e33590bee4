"""Tables for people: in the terminal's width, or unbroken in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, stderr: bool = False) -> None:
    """Print ``rows`` under ``columns``, or without a header where all columns are nameless."""
    table = Table(*columns, box=None, show_header=any(columns), pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    stream = sys.stderr if stderr else sys.stdout
    Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False).print(table)
