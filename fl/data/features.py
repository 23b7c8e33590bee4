"""A feature store: what was known about a key at a time, as features, for training and for a request alike.

One definition for both, a ``View``: which columns a table has, what they come to over time and over groups, and the
recipe that makes features of it all. Tables lie in DuckDB (extra ``data``): a row says what is known of its key from
its time on, until the key's next row.

    offline   ``history``: for each (key, time) asked for, the features as they were known then: an ASOF join
    online    ``lookup``: the features of one key, at a time or when its newest row was written

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

from fl.data.windows import Window, aggregate
from fl.errors import BadInput, MissingExtra
from fl.parameters import Array
from fl.transforms.recipe import Recipe

LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class View:
    """A table ``name`` of rows with a ``key`` (whole number), a ``time`` (number) and ``columns``.

    The recipe's inputs are columns, each as its newest row has it, and ``windows`` by their ``into``.
    """

    name: str
    recipe: Recipe
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name):
            raise BadInput(key="view.name", got=self.name, allowed="letters, digits and _")
        if taken := {"key", "time"} & {name.lower() for name in self.recipe.inputs}:
            raise BadInput(key="view.recipe", got=f"an input {taken.pop()}", allowed="inputs of other names")
        made = [window.into for window in self.windows]
        for i, window in enumerate(self.windows):
            if window.into not in self.recipe.inputs:
                allowed = f"an input of the recipe: {', '.join(self.recipe.inputs)}"
                raise BadInput(key="view.windows", got=window.into, allowed=allowed)
            for name in (window.into, *made[:i]) if window.into in made[:i] else (window.column, window.over):
                if name in made or (name or "").lower() in {"key", "time"}:
                    raise BadInput(key="view.windows", got=name, allowed="columns of the table, and a name for each")

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row has besides its key and time: inputs that no window makes, then what windows read."""
        made = {window.into for window in self.windows}
        read = [name for window in self.windows for name in (window.column, window.over) if name is not None]
        return tuple(dict.fromkeys([*(name for name in self.recipe.inputs if name not in made), *read]))


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
        names = view.columns
        if set(columns) != set(names):
            raise BadInput(key="features.columns", got=", ".join(columns), allowed=", ".join(names))
        if lengths := {len(time), *(len(columns[name]) for name in names)} - {len(key)}:
            raise BadInput(key="features.columns", got=f"{lengths.pop()} values", allowed=f"{len(key)}, one a key")
        times, keys = _times(time), _keys(key)
        last = list({pair: i for i, pair in enumerate(zip(keys.tolist(), times.tolist(), strict=True))}.values())
        arrays = {"key": keys, "time": times, **{name: np.asarray(columns[name], np.float64) for name in names}}
        rows = {name: np.ascontiguousarray(values[last]) for name, values in arrays.items()}
        described = "".join(f"{_quoted(name)} DOUBLE, " for name in names)
        columns_of = f"key BIGINT, time DOUBLE, {described}PRIMARY KEY (key, time)"
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(view.name)} ({columns_of})")
        table = self._table(view)
        named = ", ".join(["key", "time", *map(_quoted, names)])
        self._over(f"INSERT OR REPLACE INTO {table} ({named}) SELECT {named} FROM given_rows", rows)

    def history(self, view: View, *, key: Array, time: Array) -> Array:
        """Features (n, features) of each ``key`` (n,) as they were known at its ``time`` (n,): training rows.

        A key of which nothing was known yet has missing values, which the recipe may fill.
        """
        if len(key) != len(time):
            raise BadInput(key="features.time", got=f"{len(time)} times", allowed=f"{len(key)}, one a key")
        return view.recipe.apply(self._inputs(view, _keys(key), _times(time)))

    def lookup(self, view: View, key: int, *, time: float | None = None) -> dict[str, float]:
        """The features of one key by name, as of ``time``, or of its newest row: for a request."""
        if time is None:
            newest = f"SELECT max(time) FROM {self._table(view)} WHERE key = ?"
            (time,) = self._database.execute(newest, [int(key)]).fetchone() or (None,)
        times = np.array([0.0 if time is None else time])
        row = self._inputs(view, np.array([int(key)], np.int64), _times(times))[0]
        return view.recipe.apply_one(dict(zip(view.recipe.inputs, row.tolist(), strict=True)))

    def _inputs(self, view: View, keys: Array, times: Array) -> Array:
        """The recipe's inputs (n, inputs) as of the times: the one way, for history and for a request."""
        named, table = ", ".join(f"known.{_quoted(name)}" for name in view.columns), self._table(view)
        found = self._over(
            f"SELECT asked.place, {named} FROM given_rows AS asked ASOF LEFT JOIN {table} AS known "
            "ON asked.key = known.key AND asked.time >= known.time ORDER BY asked.place",
            {"place": np.arange(len(keys)), "key": keys, "time": times},
        )
        inputs = dict(zip(view.columns, found[1:], strict=True))
        alike: dict[tuple[str, str | None], list[Window]] = {}
        for window in view.windows:
            alike.setdefault((window.column, window.over), []).append(window)
        for (column, over), windows in alike.items():
            member = keys if over is None else inputs[over]
            earliest = float(times.min(initial=0.0)) - max(window.span for window in windows)
            rows = self._rows(table, over or "key", column, member, earliest, float(times.max(initial=0.0)))
            inputs |= {one.into: aggregate(one, rows, member=member, time=times) for one in windows}
        return np.stack([inputs[name] for name in view.recipe.inputs], axis=1)

    def _rows(self, table: str, by: str, column: str, member: Array, earliest: float, latest: float) -> Any:
        """Members, times and known values of a column, of all ``member`` that are asked about."""
        found = self._over(
            f"SELECT known.{_quoted(by)} AS member, known.time AS time, known.{_quoted(column)} AS value "
            f"FROM {table} AS known SEMI JOIN given_rows AS asked ON known.{_quoted(by)} = asked.member "
            f"WHERE known.time >= ? AND known.time <= ? AND isfinite(known.{_quoted(column)})",
            {"member": np.unique(member[np.isfinite(member)])},
            max(earliest, -LARGEST),
            latest,
        )
        return found[0], found[1], found[2]

    def _over(self, sql: str, rows: Mapping[str, Array], *values: float) -> list[Array]:
        """The columns that ``sql`` gives over ``given_rows``, with ``values`` for its question marks; null is NaN."""
        self._database.register("given_rows", dict(rows))
        try:
            found = self._database.execute(sql, values).fetchnumpy()
        finally:
            self._database.unregister("given_rows")
        return [
            c if c.dtype.kind == "i" else np.ma.filled(np.ma.asarray(c, np.float64), np.nan) for c in found.values()
        ]

    def _table(self, view: View) -> str:
        """Its name as SQL has it, or BadInput if there is no such table."""
        asked = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        columns: dict[str, set[str]] = {}
        for table, column in self._database.execute(asked).fetchall():
            columns.setdefault(table, set()).add(column)
        if view.name not in columns:
            raise BadInput(key="view.name", got=view.name, allowed=", ".join(columns) or "a view that was written")
        if (there := columns[view.name] - {"key", "time"}) != set(view.columns):
            got, allowed = ", ".join(view.columns), f"{', '.join(sorted(there))}, as {view.name} has"
            raise BadInput(key="view.recipe", got=f"columns {got}", allowed=allowed)
        return _quoted(view.name)


def _keys(key: Array) -> Any:
    keys = np.asarray(key)
    if keys.dtype.kind not in "iu":
        raise BadInput(key="features.key", got=f"keys of {keys.dtype}", allowed="whole numbers")
    return keys.astype(np.int64)


def _times(time: Array) -> Array:
    times = np.asarray(time, np.float64)
    if not np.isfinite(times).all():
        raise BadInput(key="features.time", got="a missing time", allowed="a number in every row")
    return times


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
