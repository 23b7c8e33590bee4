"""A feature store: what was known about a key at a time, as features, for training and for a request alike.

One definition for both, a ``View``: which columns a table has, and the recipe that makes features of them. Tables lie
in DuckDB (extra ``data``): a row says what is known of its key from its time on, until the key's next row.

    offline   ``history``: for each (key, time) asked for, the features as they were known then: an ASOF join
    online    ``lookup``: the features of one key, now or at a time

Neither ever sees a row later than the time it is asked about, and the same key and time give the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fl.errors import BadInput, MissingExtra
from fl.parameters import Array
from fl.transforms.recipe import Recipe


@dataclass(frozen=True)
class View:
    """A table ``name`` of rows with a ``key`` (whole number), a ``time`` (number) and the recipe's inputs."""

    name: str
    recipe: Recipe

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name):
            raise BadInput(key="view.name", got=self.name, allowed="letters, digits and _")
        if taken := {"key", "time"} & {name.lower() for name in self.recipe.inputs}:
            raise BadInput(key="view.recipe", got=f"an input {taken.pop()}", allowed="inputs of other names")


class FeatureStore:
    """Tables of views in the database file ``path``; None: in memory. Close it, or use it in a ``with``."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtra(key="features", package="duckdb", extra="data") from error
        try:
            self._database = duckdb.connect(":memory:" if path is None else str(path))
        except duckdb.Error as error:
            raise BadInput(key="features", got=f"{path}: {error}", allowed="a DuckDB file, or a new name") from error

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write what is open, and let go of the file."""
        self._database.close()

    def write(self, view: View, *, key: Array, time: Array, columns: Mapping[str, Array]) -> None:
        """Add rows: all or none. A row of the same key and time replaces the one there was; of two given, the later."""
        inputs = view.recipe.inputs
        if set(columns) != set(inputs):
            raise BadInput(key="features.columns", got=", ".join(columns), allowed=", ".join(inputs))
        if lengths := {len(time), *(len(columns[name]) for name in inputs)} - {len(key)}:
            raise BadInput(key="features.columns", got=f"{lengths.pop()} values", allowed=f"{len(key)}, one a key")
        times = np.asarray(time, np.float64)
        if not np.isfinite(times).all():
            raise BadInput(key="features.time", got="a missing time", allowed="a number in every row")
        keys = _keys(key)
        last = list({pair: i for i, pair in enumerate(zip(keys.tolist(), times.tolist(), strict=True))}.values())
        arrays = {"key": keys, "time": times, **{name: np.asarray(columns[name], np.float64) for name in inputs}}
        rows = {name: np.ascontiguousarray(values[last]) for name, values in arrays.items()}
        described = ", ".join(f"{_quoted(name)} DOUBLE" for name in inputs)
        columns_of = f"key BIGINT, time DOUBLE, {described}, PRIMARY KEY (key, time)"
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(view.name)} ({columns_of})")
        table = self._table(view)
        self._database.register("given_rows", rows)
        named = ", ".join(["key", "time", *map(_quoted, inputs)])
        try:
            self._database.execute(f"INSERT OR REPLACE INTO {table} ({named}) SELECT {named} FROM given_rows")
        finally:
            self._database.unregister("given_rows")

    def history(self, view: View, *, key: Array, time: Array) -> Array:
        """Features (n, features) of each ``key`` (n,) as they were known at its ``time`` (n,): training rows.

        A key of which nothing was known yet has missing values, which the recipe may fill.
        """
        if len(key) != len(time):
            raise BadInput(key="features.time", got=f"{len(time)} times", allowed=f"{len(key)}, one a key")
        asked = {"place": np.arange(len(key)), "key": _keys(key), "time": np.asarray(time, np.float64)}
        self._database.register("asked_rows", asked)
        named = ", ".join(f"known.{_quoted(name)}" for name in view.recipe.inputs)
        try:
            found = self._database.execute(
                f"SELECT asked.place, {named} FROM asked_rows AS asked ASOF LEFT JOIN {self._table(view)} AS known "
                "ON asked.key = known.key AND asked.time >= known.time ORDER BY asked.place"
            ).fetchnumpy()
        finally:
            self._database.unregister("asked_rows")
        columns = list(found.values())[1:]
        x = np.stack([np.ma.filled(np.ma.asarray(c, np.float64), np.nan) for c in columns], axis=1)
        return view.recipe.apply(x)

    def lookup(self, view: View, key: int, *, time: float | None = None) -> dict[str, float]:
        """The features of one key by name, as of ``time``, or the newest there are: for a request."""
        named = ", ".join(map(_quoted, view.recipe.inputs))
        limit = np.inf if time is None else float(time)
        row = self._database.execute(
            f"SELECT {named} FROM {self._table(view)} WHERE key = ? AND time <= ? ORDER BY time DESC LIMIT 1",
            [int(key), limit],
        ).fetchone()
        return view.recipe.apply_one({} if row is None else dict(zip(view.recipe.inputs, row, strict=True)))

    def _table(self, view: View) -> str:
        """Its name as SQL has it, or BadInput if there is no such table."""
        asked = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        columns: dict[str, set[str]] = {}
        for table, column in self._database.execute(asked).fetchall():
            columns.setdefault(table, set()).add(column)
        if view.name not in columns:
            raise BadInput(key="view.name", got=view.name, allowed=", ".join(columns) or "a view that was written")
        if (inputs := columns[view.name] - {"key", "time"}) != set(view.recipe.inputs):
            got, allowed = ", ".join(view.recipe.inputs), f"{', '.join(sorted(inputs))}, as {view.name} has"
            raise BadInput(key="view.recipe", got=f"inputs {got}", allowed=allowed)
        return _quoted(view.name)


def _keys(key: Array) -> Any:
    keys = np.asarray(key)
    if keys.dtype.kind not in "iu":
        raise BadInput(key="features.key", got=f"keys of {keys.dtype}", allowed="whole numbers")
    return keys.astype(np.int64)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
