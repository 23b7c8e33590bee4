"""Fitted transformations: what is computed from the columns of a table, and which rows are not trained on.

A step takes named columns and gives named columns; it holds every number that it needs. ``apply`` is pure and treats
each example by itself. A missing value is NaN, and stays missing unless a step says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fl.parameters import Array
from fl.transforms.arithmetic import Arithmetic, Column, log, sqrt

Columns: TypeAlias = dict[str, Column]


@dataclass(frozen=True)
class Impute:
    """A missing value becomes the column's of ``values``; a 0/1 column "NAME missing" for each of ``indicators``."""

    columns: tuple[str, ...]
    values: tuple[float, ...]
    indicators: tuple[str, ...] = ()

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        out = dict(columns)
        for name, value in zip(self.columns, self.values, strict=True):
            x = columns[name]
            out[name] = a.where(a.isnan(x), a.number(value), x)
        return out | {f"{name} missing": a.flag(a.isnan(columns[name])) for name in self.indicators}


@dataclass(frozen=True)
class Clip:
    """Values below ``low`` or above ``high`` become these; with ``flag`` they stay, and a 0/1 column tells of them."""

    columns: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    flag: bool = False

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        out = dict(columns)
        for name, *bounds in zip(self.columns, self.low, self.high, strict=True):
            x, low, high = columns[name], *map(a.number, bounds)
            if self.flag:
                out[f"{name} outlying"] = a.flag((x < low) | (x > high))
            else:
                out[name] = a.where(x < low, low, a.where(x > high, high, x))
        return out


@dataclass(frozen=True)
class Drop:
    """Columns that go."""

    columns: tuple[str, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        return {name: x for name, x in columns.items() if name not in self.columns}


@dataclass(frozen=True)
class OneHot:
    """A column becomes a 0/1 column "NAME=VALUE" for each of its ``categories``: all 0 for another or no value."""

    column: str
    categories: tuple[float, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        out = dict(columns)
        x = out.pop(self.column)
        return out | {f"{self.column}={written(value)}": a.flag(x == a.number(value)) for value in self.categories}


@dataclass(frozen=True)
class Ordinal:
    """A value becomes its place among the ``categories``, from 0; another or no value becomes -1."""

    column: str
    categories: tuple[float, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        x = columns[self.column]
        place = a.number(-1.0)
        for i, value in enumerate(self.categories):
            place = a.where(x == a.number(value), a.number(float(i)), place)
        return columns | {self.column: place}


@dataclass(frozen=True)
class Scale:
    """(x - centre) / spread."""

    columns: tuple[str, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        scales = zip(self.columns, self.centre, self.spread, strict=True)
        return columns | {name: (columns[name] - a.number(c)) / a.number(s) for name, c, s in scales}


@dataclass(frozen=True)
class Discretise:
    """A value becomes the number of ``edges`` that are not above it."""

    column: str
    edges: tuple[float, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        x = columns[self.column]
        place = a.number(0.0)
        for edge in self.edges:
            place = place + a.flag(x >= a.number(edge))
        return columns | {self.column: a.where(a.isnan(x), x, place)}


@dataclass(frozen=True)
class Dates:
    """Days or seconds since 1970 become "NAME year", "NAME month" ... as in ``FIELDS``, of the Gregorian calendar, UTC.

    The calendar's arithmetic is that of Howard Hinnant, "chrono-compatible low-level date algorithms" (2014).
    """

    column: str
    unit: str
    fields: tuple[str, ...]

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        out = dict(columns)
        x = out.pop(self.column)
        n, floor = a.number, a.floor
        day = floor(x / n(86400)) if self.unit == "seconds" else floor(x)
        seconds = x - day * n(86400) if self.unit == "seconds" else (x - day) * n(86400)
        z = day + n(719468)
        era = floor(z / n(146097))
        of_era = z - era * n(146097)
        leaps = floor(of_era / n(1460)) - floor(of_era / n(36524)) + floor(of_era / n(146096))
        year = floor((of_era - leaps) / n(365))
        of_year = of_era - (year * n(365) + floor(year / n(4)) - floor(year / n(100)))
        month = floor((of_year * n(5) + n(2)) / n(153))
        found = {
            "year": year + era * n(400) + a.flag(month >= n(10)),
            "month": a.where(month < n(10), month + n(3), month - n(9)),
            "day": of_year - floor((month * n(153) + n(2)) / n(5)) + n(1),
            "weekday": day + n(3) - floor((day + n(3)) / n(7)) * n(7),
            "hour": floor(seconds / n(3600)),
        }
        return out | {f"{self.column} {f}": a.where(a.isnan(x), x, found[f]) for f in self.fields}


FIELDS = ("year", "month", "day", "weekday", "hour")
"""Of a date. Monday is weekday 0."""


@dataclass(frozen=True)
class Curve:
    """A function of each value, one of ``CURVES``; where it has none (the logarithm of 0), the result is missing."""

    columns: tuple[str, ...]
    function: str

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        curve = CURVES[self.function]
        return columns | {name: a.known(curve(columns[name], a)) for name in self.columns}


CURVES: Mapping[str, Callable[[Column, Arithmetic], Column]] = {
    "log": log,
    "log1p": lambda x, a: log(x + a.number(1.0), a),
    "sqrt": sqrt,
    "square": lambda x, a: x * x,
}


@dataclass(frozen=True)
class Aggregate:
    """A new column ``into``: of an example's known values in ``columns`` the sum, mean, min or max; NaN for none."""

    columns: tuple[str, ...]
    by: str
    into: str

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        first = columns[self.columns[0]]
        total, count = a.number(0.0), a.number(0.0)
        low, high = first, first
        for name in self.columns:
            x = columns[name]
            missing = a.isnan(x)
            total = a.where(missing, total, total + x)
            count = count + a.flag(~missing)
            low = a.where((x < low) | a.isnan(low), x, low)
            high = a.where((x > high) | a.isnan(high), x, high)
        some = a.where(count > a.number(0.0), count, a.number(math.nan))
        found = {"sum": a.where(a.isnan(some), some, total), "mean": total / some, "min": low, "max": high}
        return columns | {self.into: a.known(found[self.by])}


AGGREGATES = ("sum", "mean", "min", "max")


@dataclass(frozen=True)
class OfGroup:
    """A new column ``into``: the one of ``values`` for the one of ``groups`` that ``column`` is; ``other`` for none."""

    column: str
    groups: tuple[float, ...]
    values: tuple[float, ...]
    other: float
    into: str

    def apply(self, columns: Columns, a: Arithmetic) -> Columns:
        x, found = columns[self.column], a.number(self.other)
        for group, value in zip(self.groups, self.values, strict=True):
            found = a.where(x == a.number(group), a.number(value), found)
        return columns | {self.into: found}


# Which rows are trained on: a request and a test example are never dropped -----------------------------------------


@dataclass(frozen=True)
class DropOutliers:
    """Rows with a value below ``low`` or above ``high`` are not trained on."""

    columns: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def keep(self, columns: Columns, label: Array) -> Array:
        kept = np.ones(len(label), bool)
        for name, low, high in zip(self.columns, self.low, self.high, strict=True):
            kept &= ~((columns[name] < low) | (columns[name] > high))
        return kept


@dataclass(frozen=True)
class DropMissing:
    """Rows that miss one of these values are not trained on."""

    columns: tuple[str, ...]

    def keep(self, columns: Columns, label: Array) -> Array:
        return np.asarray(~np.any([np.isnan(columns[name]) for name in self.columns], axis=0))


@dataclass(frozen=True)
class Deduplicate:
    """Of a client's rows that are equal in all columns and the label, the first is trained on."""

    def keep(self, columns: Columns, label: Array) -> Array:
        rows = np.stack([*columns.values(), label.astype(np.float64)], axis=1) + 0.0  # -0 is 0
        rows[np.isnan(rows)] = np.nan  # and one NaN is as another: rows are compared by their bits
        bits = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
        kept = np.zeros(len(label), bool)
        kept[np.unique(bits, return_index=True)[1]] = True
        return kept


FeatureStep: TypeAlias = (
    Impute | Clip | Drop | OneHot | Ordinal | Scale | Discretise | Dates | Curve | Aggregate | OfGroup
)  # fmt: skip
RowStep: TypeAlias = DropOutliers | DropMissing | Deduplicate
Step: TypeAlias = FeatureStep | RowStep

STEPS: Mapping[str, type[Step]] = {
    "impute": Impute,
    "clip": Clip,
    "drop": Drop,
    "one_hot": OneHot,
    "ordinal": Ordinal,
    "scale": Scale,
    "discretise": Discretise,
    "dates": Dates,
    "curve": Curve,
    "aggregate": Aggregate,
    "of_group": OfGroup,
    "drop_outliers": DropOutliers,
    "drop_missing": DropMissing,
    "deduplicate": Deduplicate,
}
"""The names under which steps are written down."""
_NAMES = {kind: name for name, kind in STEPS.items()}


def step_name(step: Step) -> str:
    """The name under which a step is written down."""
    return _NAMES[type(step)]


def written(value: float) -> str:
    """A number in a column's name: without a fraction where it has none.

    >>> written(3.0), written(0.1)
    ('3', '0.1')
    """
    return str(int(value)) if value == int(value) else repr(value)
