"""Rows of files and tables, a batch at a time: for answers that are computed ahead.

A row knows its number, from 1, and what is wrong with it where it cannot even be read: what becomes of it is for others
to say. Texts of a CSV file become numbers where they spell one, so that a cell is judged by itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from fl.data.tables import delimiter_of
from fl.errors import BadInput, MissingExtra
from fl.serving.databases import open_database

KEY = "--input"
ALLOWED = "a .csv, .parquet or .jsonl file, or a database's URL with --table"


@dataclass(frozen=True)
class Row:
    """``cells`` by the names of columns, or a list; ``trouble``: why it could not be read."""

    number: int
    cells: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""


def batches(source: str, *, table: str | None, size: int) -> Iterator[list[Row]]:
    """The rows of ``source``, a file or with ``table`` a database by its URL, ``size`` at a time, in their order.

    Raises BadInput, before the first row where it can, for what cannot be read.
    """
    rows = _table(source, table, size) if table is not None else _file(source, size)
    while found := list(islice(rows, size)):
        yield found


def _file(source: str, size: int) -> Iterator[Row]:
    file = Path(source).expanduser()
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if "://" in source or file.suffix not in readers or not file.is_file():
        raise BadInput(key=KEY, got=source, allowed=ALLOWED)
    return readers[file.suffix](file, size)


def _csv(file: Path, size: int) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = lines.readline()
            names = next(csv.reader([header], delimiter=delimiter_of(header)), [])
            if len(set(names)) < len(names) or not names:
                raise BadInput(
                    key=KEY, got=f"{file}, whose header is {header!r}", allowed="a header with each name once"
                )
            number = 0
            for cells in csv.reader(lines, delimiter=delimiter_of(header)):
                if not cells:
                    continue
                number += 1
                if len(cells) != len(names):
                    yield Row(number, trouble=f"{len(cells)} cells, the header has {len(names)}")
                else:
                    yield Row(number, {name: _spelled(cell) for name, cell in zip(names, cells, strict=True)})
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(key=KEY, got=f"{file}, which cannot be read ({error})", allowed="a CSV file in UTF-8") from error


def _jsonl(file: Path, size: int) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from of_json_lines(lines)
    except UnicodeDecodeError as error:
        raise BadInput(key=KEY, got=f"{file}, which is not text ({error})", allowed="JSON lines in UTF-8") from error


def of_json_lines(lines: Iterable[str]) -> Iterator[Row]:
    """A row a line that is not blank; one that is no JSON object has its trouble."""
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            found = json.loads(line)
        except ValueError as error:
            yield Row(number, trouble=f"not JSON ({error})")
            continue
        if isinstance(found, dict):
            yield Row(number, {name: _plain(cell) for name, cell in found.items()})
        else:
            yield Row(number, trouble="not a JSON object")


def _parquet(file: Path, size: int) -> Iterator[Row]:
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra(key=KEY, package="duckdb", extra="data") from error
    try:
        with duckdb.connect() as connection:
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(file)])
            names = [str(column[0]) for column in found.description or ()]
            number = 0
            while rows := found.fetchmany(size):
                for cells in rows:
                    number += 1
                    yield Row(number, {name: _plain(cell) for name, cell in zip(names, cells, strict=True)})
    except duckdb.Error as error:
        why = str(error).strip().splitlines()[0]
        raise BadInput(key=KEY, got=f"{file}, which cannot be read ({why})", allowed="a whole Parquet file") from error


def _table(url: str, name: str, size: int) -> Iterator[Row]:
    """In the order of the primary key, where there is one."""
    from sqlalchemy import MetaData, Table, select
    from sqlalchemy.exc import SQLAlchemyError

    from fl.data.sql_sources import complaint, database_file

    file = database_file(url)
    if file is not None and not file.is_file():  # SQLite would make an empty one
        raise BadInput(key=KEY, got=url, allowed="a database file that exists")
    engine = open_database(url, key=KEY)
    try:
        schema, _, short = name.rpartition(".")
        table = Table(short, MetaData(), schema=schema or None, autoload_with=engine)
        query = select(table).order_by(*table.primary_key.columns)
        with engine.connect().execution_options(stream_results=True, max_row_buffer=size) as connection:
            for number, cells in enumerate(connection.execute(query).mappings(), start=1):
                yield Row(number, {str(column): _plain(cell) for column, cell in cells.items()})
    except SQLAlchemyError as error:
        raise BadInput(key="--table", got=f"{name} ({complaint(error)})", allowed=f"a table of {url}") from error
    finally:
        engine.dispose()


def _spelled(text: str) -> Any:
    """What a cell of a CSV file means: nothing, a number, true or false as 1 and 0, or the text itself."""
    text = text.strip()
    if not text:
        return None
    if text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _plain(cell: Any) -> Any:
    """A cell as rows have them: exact decimals are floats, and true is 1, as it is where a model is trained."""
    if isinstance(cell, bool):
        return int(cell)
    return float(cell) if isinstance(cell, Decimal) else cell
