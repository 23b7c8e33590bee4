"""The user's own query: over files or a DuckDB database by DuckDB, over any other database by a SQLAlchemy URL.

Its columns are what those of a table in a file are: a label, perhaps a client, numbers. A password never stands in the
settings, which a run keeps: the URL says ``$NAME``, and the environment what that is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl.data.dataset import Dataset
from fl.data.sql_sources import complaint, database_file, shown
from fl.data.tables import Column, columns_to_dataset, read_columns
from fl.errors import BadInput, MissingExtra

_KINDS: tuple[tuple[tuple[type, ...], str, Any], ...] = (
    ((bool,), "BOOLEAN", bool),
    ((bool, int), "BIGINT", np.int64),
    ((bool, int, float), "DOUBLE", np.float64),
)


def sql(
    *,
    query: str | None,
    path: str | Path | None = None,
    url: str | None = None,
    label: str | None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    task: str = "auto",
    split: str = "ratio",
    split_by: str | None = None,
) -> Dataset:
    """What ``query`` gives: of the DuckDB database ``path``, or of files that it names itself, or of ``url``.

    Rows come as the database orders them: a query without ORDER BY may give others another time, and so another model.
    """
    if not query:
        raise BadInput(key="dataset.query", got=query, allowed="a SELECT over files, dataset.path or dataset.url")
    if url is not None and path is not None:
        raise BadInput(key="dataset.url", got=url, allowed="null where dataset.path names a database file")
    if url is not None:
        source, columns = shown(url), _by_url(query, url)
    else:
        source = "the query" if path is None else str(path)
        database = ":memory:" if path is None else str(path)
        columns = read_columns(query, [], source, key="dataset.query", allowed="a query", database=database)
    return columns_to_dataset("sql", source, columns, label, client, features, task, split=split, split_by=split_by)


def _by_url(query: str, url: str) -> dict[str, Column]:
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise MissingExtra(key="dataset.url", package="SQLAlchemy", extra="data") from error
    file = database_file(url)
    if file is not None and not file.is_file():  # SQLite would make an empty one
        raise BadInput(key="dataset.url", got=url, allowed="a database file that exists")
    try:
        engine = sqlalchemy.create_engine(os.path.expandvars(url), hide_parameters=True)
        try:
            with engine.connect() as connection:
                result = connection.execute(sqlalchemy.text(query))
                names, rows = list(result.keys()), result.fetchall()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:  # a driver that is not installed is an ImportError
        got = f"{url}, which cannot answer ({complaint(error)})"
        raise BadInput(key="dataset.url", got=got, allowed="a database and a query that it knows") from error
    if not rows:
        raise BadInput(key="dataset.query", got=f"{url} gives no rows", allowed="a query with at least one row")
    return {name: _column([row[place] for row in rows]) for place, name in enumerate(names)}


def _column(values: list[Any]) -> Column:
    """The narrowest type that holds all values; exact decimals are floats."""
    import decimal

    empty = np.array([value is None for value in values])
    known = [float(v) if isinstance(v, decimal.Decimal) else v for v in values]
    for kinds, name, dtype in _KINDS:
        if all(value is None or type(value) in kinds for value in known):
            return Column(name, np.array([0 if value is None else value for value in known], dtype), empty)
    return Column("VARCHAR", np.array(["" if v is None else str(v) for v in known], object), empty)
