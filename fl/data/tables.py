"""The user's own table: a CSV, Parquet or JSON lines file, read by DuckDB.

One column is the label, one may name the client, the others (or those chosen) are the inputs. Inputs are numbers or
true/false; an empty cell is a missing value. CSV and JSON have no float types of their own and give float32; others
give float64 if one of the chosen columns is a DOUBLE.
"""

from __future__ import annotations

import csv as csv_module
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from fl.data.arrays import from_arrays, task_of
from fl.data.dataset import Dataset
from fl.data.npz import existing_file
from fl.errors import BadInput, MissingExtra
from fl.parameters import Array

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Column:
    """A column as DuckDB gives it: its type, its values, and where they are empty."""

    type: str
    values: Array
    empty: Array


def csv(
    *,
    path: str | Path | None,
    label: str | None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    task: str = "auto",
    split: str = "ratio",
    split_by: str | None = None,
) -> Dataset:
    """Read a CSV file with a header line; the delimiter (comma, semicolon, tab, bar) is the one of the header."""
    file = existing_file(path, kind=".csv")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            header = lines.readline()
    except UnicodeDecodeError as error:
        raise BadInput(
            key="dataset.path", got=f"{file}, which is not text ({error})", allowed="a CSV file in UTF-8"
        ) from error
    delimiter = delimiter_of(header)
    query = "SELECT * FROM read_csv(?, header=true, sample_size=-1, strict_mode=true, delim=?, quote=?, escape=?)"
    columns = read_columns(
        query, [str(file), delimiter, '"', '"'], str(file), diagnose=lambda: _ragged_row(file, delimiter)
    )
    return columns_to_dataset(
        "csv", str(file), columns, label, client, features, task, split=split, split_by=split_by, has_floats=False
    )


def delimiter_of(header: str) -> str:
    """Comma, semicolon, tab or bar: whichever divides the header line of a CSV file into most columns."""
    return max(_DELIMITERS, key=lambda d: len(next(csv_module.reader([header], delimiter=d), [])))


def jsonl(
    *,
    path: str | Path | None,
    label: str | None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    task: str = "auto",
    split: str = "ratio",
    split_by: str | None = None,
) -> Dataset:
    """Read a file of JSON lines: an object a line; a key that a line lacks is a missing value."""
    file = existing_file(path, kind=".jsonl")
    query = "SELECT * FROM read_json(?, format='newline_delimited', sample_size=-1)"
    columns = read_columns(query, [str(file)], str(file))
    return columns_to_dataset(
        "jsonl", str(file), columns, label, client, features, task, split=split, split_by=split_by, has_floats=False
    )


def parquet(
    *,
    path: str | Path | None,
    label: str | None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    task: str = "auto",
    split: str = "ratio",
    split_by: str | None = None,
) -> Dataset:
    """Read a Parquet file."""
    file = existing_file(path, kind=".parquet")
    columns = read_columns("SELECT * FROM read_parquet(?)", [str(file)], str(file))
    return columns_to_dataset(
        "parquet", str(file), columns, label, client, features, task, split=split, split_by=split_by
    )


def _ragged_row(file: Path, delimiter: str) -> str | None:
    """The first row that has other cells than the header, in words: what DuckDB's own message buries."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = csv_module.reader(lines, delimiter=delimiter)
        width = len(next(rows, []))
        for number, row in enumerate(rows, start=1):
            if row and len(row) != width:
                return f"data row {number} has {len(row)} cells, the header {width}"
    return None


def read_columns(
    query: str,
    values: list[str],
    source: str,
    *,
    key: str = "dataset.path",
    allowed: str = "a whole file of its kind",
    database: str = ":memory:",
    diagnose: Callable[[], str | None] = lambda: None,
) -> dict[str, Column]:
    """The columns that DuckDB answers ``query`` with; ``source`` and ``key`` name them where they cannot be had."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra(key="dataset", package="duckdb", extra="data") from error
    try:
        with duckdb.connect(database, read_only=database != ":memory:") as connection:
            result = connection.execute(query, values)
            types = {str(column[0]): str(column[1]) for column in result.description or ()}
            arrays: dict[str, Any] = result.fetchnumpy()
    except duckdb.Error as error:
        why = diagnose() or str(error).strip().splitlines()[0]
        raise BadInput(key=key, got=f"{source}, which cannot be read ({why})", allowed=allowed) from error
    columns = {}
    for name, kind in types.items():
        values_of = np.asarray(np.ma.getdata(arrays[name]))
        empty = np.broadcast_to(np.ma.getmaskarray(arrays[name]), values_of.shape)
        columns[name] = Column(kind, values_of, np.array(empty))
    if not columns or not len(next(iter(columns.values())).values):
        raise BadInput(key=key, got=f"{source} has no rows", allowed="columns, and at least one row")
    return columns


def columns_to_dataset(
    name: str,
    file: str,
    columns: dict[str, Column],
    label: str | None,
    client: str | None,
    features: Sequence[str] | None,
    task: str,
    *,
    split: str = "ratio",
    split_by: str | None = None,
    has_floats: bool = True,
) -> Dataset:
    """The columns of ``file``, or of another source of that name, as a data set; BadInput where they cannot be one.

    split_by     the column by which ``split`` divides rows; no input, unless ``features`` name it
    has_floats   a DOUBLE is meant as one
    """
    if label is None or label not in columns:
        raise BadInput(key="dataset.label", got=label, allowed=f"a column of {file}: {', '.join(columns)}")
    if client is not None and (client not in columns or client == label):
        others = ", ".join(c for c in columns if c != label)
        raise BadInput(key="dataset.client", got=client, allowed=f"a column of {file} other than the label: {others}")
    if split_by is not None and (split_by not in columns or split_by == label):
        others = ", ".join(c for c in columns if c != label)
        raise BadInput(
            key="dataset.split_by", got=split_by, allowed=f"a column of {file} other than the label: {others}"
        )
    inputs = _inputs_of(columns, label, client, features, split_by, file)
    double = has_floats and any(columns[c].type == "DOUBLE" for c in inputs)
    dtype = np.dtype(np.float64 if double else np.float32)
    x = np.stack([_numbers(columns[c], dtype) for c in inputs], axis=1)
    y, class_names = _labels(columns[label], label, task, file)
    arrays: dict[str, Any] = {"x": x, "y": y}
    client_names: tuple[str, ...] = ()
    if client is not None:
        arrays["client"], client_names = _client_ids(columns[client], client, file)
    found = from_arrays(
        arrays, name=name, source=file, task=task, class_names=class_names, feature_names=inputs,
        client_names=client_names,
    )  # fmt: skip
    if split_by is None:
        return found
    return replace(found, order=ranks(columns[split_by], split_by, split=split, file=file))


def ranks(column: Column, name: str, *, split: str, file: str) -> Array:
    """A whole number a row (n,), int64: of a time its rank, of a group its number. BadInput names the first gap."""
    _no_gaps(column, name, key="dataset.split_by", file=file)
    values = column.values
    if values.dtype.kind not in "biufM":
        if split == "time":
            got = f"column {name!r} of type {column.type} in {file}"
            raise BadInput(key="dataset.split_by", got=got, allowed="numbers or dates, for dataset.split=time")
        values = values.astype(str)
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _inputs_of(
    columns: dict[str, Column],
    label: str,
    client: str | None,
    features: Sequence[str] | None,
    split_by: str | None,
    file: str,
) -> list[str]:
    numeric = [c for c in columns if c not in (label, client) and columns[c].values.dtype.kind in "biuf"]
    choices = f"numeric columns, chosen with dataset.features=[{','.join(numeric)}]"
    chosen = list(features) if features is not None else [c for c in columns if c not in (label, client, split_by)]
    if not chosen:
        raise BadInput(key="dataset.features", got="no column", allowed=choices)
    for column in chosen:
        if column not in columns:
            raise BadInput(key="dataset.features", got=column, allowed=f"columns of {file}: {', '.join(numeric)}")
        if column in (label, client):
            what = "label" if column == label else "client"
            raise BadInput(key="dataset.features", got=f"{column}, the {what} column", allowed=choices)
        if column not in numeric:
            got = f"column {column!r} of type {columns[column].type}{_first_text(columns[column], file)}"
            raise BadInput(key="dataset.features", got=got, allowed=choices)
    if len(set(chosen)) < len(chosen):
        raise BadInput(key="dataset.features", got=", ".join(chosen), allowed="each column once")
    return chosen


def _first_text(column: Column, file: str) -> str:
    """Where the first value that is no number stands, in words."""
    for row, (value, empty) in enumerate(zip(column.values.tolist(), column.empty.tolist(), strict=True), start=1):
        if not empty:
            try:
                float(value)
            except (TypeError, ValueError):
                return f", {shorten(str(value), 40)!r} in data row {row} of {file}"
    return ""


def _numbers(column: Column, dtype: np.dtype[Any]) -> Array:
    values = column.values.astype(dtype)
    values[column.empty] = np.nan
    return values


def _labels(column: Column, name: str, task: str, file: str) -> tuple[Array, tuple[str, ...]]:
    """The label as numbers and, for classes, their names: sorted, whatever they were."""
    _no_gaps(column, name, key="dataset.label", file=file)
    values = column.values
    if values.dtype.kind in "biuf":
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BadInput(
                key="dataset.label",
                got=f"column {name!r} is {values[row]} in data row {row + 1} of {file}",
                allowed="a label in every row",
            )
        if task == "regression" or (values.dtype.kind == "f" and task_of(values, task) == "regression"):
            return values.astype(np.float64), ()
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            return values, ()  # from_arrays says what is wrong with it
        values = values if values.dtype.kind == "b" else values.astype(np.int64)
    elif task == "regression":
        raise BadInput(
            key="dataset.label", got=f"column {name!r} of type {column.type}", allowed="numbers for regression"
        )
    else:
        values = values.astype(str)
    classes, y = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise BadInput(
            key="dataset.label", got=f"column {name!r} with only {classes[0]} in {file}", allowed="two or more classes"
        )
    if len(classes) > max(100, len(values) // 2):
        raise BadInput(
            key="dataset.label",
            got=f"column {name!r} with {len(classes)} different values in {len(values)} rows",
            allowed="a column of classes, or dataset.task=regression for a quantity",
        )
    return y, tuple(str(c) for c in classes)


def _client_ids(column: Column, name: str, file: str) -> tuple[Array, tuple[str, ...]]:
    _no_gaps(column, name, key="dataset.client", file=file)
    if column.values.dtype.kind == "f":
        raise BadInput(
            key="dataset.client",
            got=f"column {name!r} of type {column.type} in {file}",
            allowed="a column of whole numbers or names",
        )
    values = column.values.astype(np.int64) if column.values.dtype.kind in "biu" else column.values.astype(str)
    names, ids = np.unique(values, return_inverse=True)
    return ids.astype(np.int64), tuple(str(n) for n in names)


def _no_gaps(column: Column, name: str, *, key: str, file: str) -> None:
    if column.empty.any():
        row = int(np.flatnonzero(column.empty)[0])
        raise BadInput(
            key=key, got=f"column {name!r} is empty in data row {row + 1} of {file}", allowed="a value in every row"
        )
