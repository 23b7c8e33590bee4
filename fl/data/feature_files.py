"""Files of a feature store: rows to write, moments to ask about, and the features that come of it.

A time is a number, or a date, which becomes days since 1970, as the recipe step ``dates`` has them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fl.data.tables import Column, read_columns
from fl.errors import BadInput, MissingExtra
from fl.files import write_bytes
from fl.parameters import Array

READERS = {
    ".csv": "SELECT * FROM read_csv(?, header=true, sample_size=-1)",
    ".parquet": "SELECT * FROM read_parquet(?)",
    ".jsonl": "SELECT * FROM read_json(?, format='newline_delimited', sample_size=-1)",
}
WRITERS = {".csv": "(FORMAT csv, HEADER)", ".parquet": "(FORMAT parquet)"}


def read_rows(
    file: Path, *, key: str, time: str, columns: Sequence[str] | None, option: str
) -> tuple[Array, Array, dict[str, Array]]:
    """Keys (n,) int64, times (n,) float64 and float64 ``columns`` (None: all others) of a table in a file.

    ``option`` is what names the file, in messages. BadInput names file, column and row.
    """
    if file.suffix not in READERS or not file.is_file():
        raise BadInput(key=option, got=str(file), allowed=f"a file that exists: {', '.join(READERS)}")
    found = read_columns(READERS[file.suffix], [str(file)], str(file), key=option)
    for name in (key, time, *(columns or ())):
        if name not in found:
            raise BadInput(key=option, got=f"no column {name!r} in {file}", allowed=f"one of {', '.join(found)}")
    keys = _known(found[key], key, file, option)
    if keys.dtype.kind not in "biu":
        got = f"column {key!r} of type {found[key].type} in {file}"
        raise BadInput(key="--key", got=got, allowed="a column of whole numbers")
    times = as_times(_known(found[time], time, file, option), f"column {time!r} of {file}")
    chosen = [name for name in found if name not in (key, time)] if columns is None else columns
    return keys.astype(np.int64), times, {name: _numbers(found[name], name, file, option) for name in chosen}


def as_times(values: Array, what: str) -> Array:
    """Numbers as they are, dates as days since 1970. ``what`` they are is said where they are neither."""
    if values.dtype.kind == "M":
        return np.asarray(values.astype("datetime64[us]").astype(np.int64) / 86_400e6)
    if values.dtype.kind not in "biuf":
        raise BadInput(key="--time", got=what, allowed="numbers or dates")
    return values.astype(np.float64)


def write_features(file: Path, columns: dict[str, Array]) -> None:
    """Equally long columns as a table in a CSV or Parquet file, whole or not at all; numbers keep every bit."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra(key="features", package="duckdb", extra="data") from error
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    with tempfile.TemporaryDirectory(prefix="meadow-features-") as folder, duckdb.connect() as database:
        beside = Path(folder, f"features{file.suffix}")
        database.register("given_rows", {name: np.ascontiguousarray(values) for name, values in columns.items()})
        database.execute(f"COPY (SELECT {names} FROM given_rows) TO '{beside}' {WRITERS[file.suffix]}")
        write_bytes(file, beside.read_bytes(), site="report")


def _known(column: Column, name: str, file: Path, option: str) -> Array:
    if column.empty.any():
        row = int(np.flatnonzero(column.empty)[0]) + 1
        got = f"column {name!r} is empty in data row {row} of {file}"
        raise BadInput(key=option, got=got, allowed="a value in every row")
    return column.values


def _numbers(column: Column, name: str, file: Path, option: str) -> Array:
    if column.empty.all():
        return np.full(len(column.empty), np.nan)
    if column.values.dtype.kind not in "biuf":
        got = f"column {name!r} of type {column.type} in {file}"
        raise BadInput(key=option, got=got, allowed="numbers")
    return np.where(column.empty, np.nan, column.values.astype(np.float64))
