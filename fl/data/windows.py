"""What a key's own rows, or the rows of its group, add up to over a time: features that grow with what happens.

Values are put in order and their sum is exact, rounded once (J. R. Shewchuk, "Adaptive Precision Floating-Point
Arithmetic", 1997, by ``math.fsum``): no order of rows changes a bit: one key, asked about for a request, gets
what it gets among a million rows of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array


@dataclass(frozen=True)
class Window:
    """A feature ``into``: what the known values of ``column`` come to, of rows later than time - span, up to the time.

    by     one of ``AGGREGATES``; of no value the count and the sum are 0, and everything else is missing
    span   in the unit of the times, above 0; infinity: all rows up to the time
    over   None: rows of the key. A column: rows of all keys that hold what the key's newest row holds there, by then
    """

    into: str
    column: str
    by: str
    span: float = math.inf
    over: str | None = None

    def __post_init__(self) -> None:
        if self.by not in AGGREGATES:
            raise BadInput(key=f"window {self.into}", got=self.by, allowed=", ".join(AGGREGATES))
        if not self.span > 0:
            raise BadInput(key=f"window {self.into}", got=f"a span of {self.span:g}", allowed="a number above 0")


def aggregate(window: Window, rows: tuple[Array, Array, Array], *, member: Array, time: Array) -> Array:
    """The feature (n,) of each ``member`` (n,), a key or the value of a group, as of ``time`` (n,).

    ``rows``: members (m,), times (m,) and finite values (m,), in any order.

    >>> week = Window("week", "cost", "sum", span=7.0)
    >>> rows = np.array([1, 1, 1]), np.array([0.0, 6.0, 8.0]), np.array([5.0, 0.5, 0.25])
    >>> aggregate(week, rows, member=np.array([1, 1, 2]), time=np.array([7.0, 8.0, 8.0])).tolist()
    [0.5, 0.75, 0.0]
    """
    order = np.lexsort((rows[1], rows[0]))
    members, times, values = (column[order] for column in rows)
    first = np.searchsorted(members, member, side="left")
    last = np.searchsorted(members, member, side="right")
    known: dict[tuple[int, int], float] = {}
    out = np.empty(len(member))
    for i, (a, b, now) in enumerate(zip(first.tolist(), last.tolist(), time.tolist(), strict=True)):
        low, high = np.searchsorted(times[a:b], (now - window.span, now), side="right").tolist()
        place = (a + low, a + high)
        if place not in known:
            known[place] = AGGREGATES[window.by](np.sort(values[slice(*place)] + 0.0))  # -0 is 0
        out[i] = known[place]
    return out


def _sum(values: Array) -> float:
    try:
        return math.fsum(values)
    except OverflowError:  # what is not finite is missing, as everywhere
        return math.nan


def _mean(values: Array) -> float:
    return _sum(values) / len(values) if len(values) else math.nan


def _deviation(values: Array) -> float:
    with np.errstate(over="ignore"):
        return math.sqrt(_mean(np.square(values - _mean(values)))) if len(values) else math.nan


AGGREGATES: Mapping[str, Callable[[Array], float]] = {
    "count": lambda values: float(len(values)),
    "sum": _sum,
    "mean": _mean,
    "deviation": _deviation,
    "min": lambda values: float(values[0]) if len(values) else math.nan,
    "max": lambda values: float(values[-1]) if len(values) else math.nan,
}
"""What ascending values can come to."""
