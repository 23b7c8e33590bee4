"""Statistics that merge: made on a client, added up anywhere, read at the end.

A statistic is a frozen record of sums. ``merge`` is associative and commutative up to rounding, and is always called
in client order. A mean of means is never taken: a mean travels as its total and its weight.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np

from fl.moments import CoMoments, Moments
from fl.parameters import Array
from fl.sketches import Distinct, HeavyHitters, Rows


@dataclass(frozen=True)
class Mean:
    """A weighted mean as ``total`` (sum of weight times value) and ``weight``.

    >>> Mean(total=3.0, weight=2.0).merge(Mean(total=1.0, weight=2.0)).value
    1.0
    """

    total: float
    weight: float

    @property
    def value(self) -> float:
        """The mean, NaN where nothing was counted."""
        return self.total / self.weight if self.weight else math.nan

    def merge(self, other: Mean) -> Mean:
        """Both together."""
        return Mean(self.total + other.total, self.weight + other.weight)


@dataclass(frozen=True)
class Histogram:
    """Counts between fixed ``edges`` (ascending, n + 1 for n ``counts``); what lies outside goes to the ends."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, edges: Sequence[float]) -> Histogram:
        """Count ``values`` (any shape) between ``edges``; a NaN is between none."""
        inside = np.clip(np.asarray(values, dtype=np.float64).ravel(), edges[0], edges[-1])
        counts, _ = np.histogram(inside, bins=np.asarray(edges))
        return cls(tuple(float(e) for e in edges), tuple(int(c) for c in counts))

    def merge(self, other: Histogram) -> Histogram:
        """Both together; the edges must be equal."""
        if self.edges != other.edges:
            raise ValueError("histograms with different edges do not merge")
        return Histogram(self.edges, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]``: examples of true class i that were predicted as class j (square, n classes)."""

    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, targets: Array, predictions: Array, num_classes: int) -> Confusion:
        """Count pairs; both arrays hold integers in 0 .. num_classes-1."""
        flat = np.asarray(targets).ravel().astype(np.int64) * num_classes + np.asarray(predictions).ravel()
        table = np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)
        return cls(tuple(tuple(int(v) for v in row) for row in table))

    def merge(self, other: Confusion) -> Confusion:
        """Both together."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Confusion(tuple(tuple(a + b for a, b in zip(p, q, strict=True)) for p, q in pairs))


@dataclass(frozen=True)
class Counts:
    """Whole numbers that add up; what each one counts is for the query that asked to say."""

    counts: tuple[int, ...]

    def merge(self, other: Counts) -> Counts:
        """Both together."""
        if len(self.counts) != len(other.counts):
            raise ValueError("counts of different things do not merge")
        return Counts(tuple(map(operator.add, self.counts, other.counts)))


@dataclass(frozen=True)
class Sums:
    """Numbers that add up, negative ones too: counts with noise."""

    values: tuple[float, ...]

    def merge(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(tuple(a + b for a, b in zip(self.values, other.values, strict=True)))


Statistic: TypeAlias = (
    Mean | Histogram | Confusion | Counts | Sums | Moments | CoMoments | Distinct | HeavyHitters | Rows
)
Statistics: TypeAlias = dict[str, Statistic]


def merge(parts: Iterable[Mapping[str, Statistic]]) -> Statistics:
    """Add up statistics of several clients, name by name; a name that only some have is merged over those."""

    def both(a: Statistics, b: Mapping[str, Statistic]) -> Statistics:
        out = dict(a)
        for name, statistic in b.items():
            out[name] = out[name].merge(statistic) if name in out else statistic  # type: ignore[arg-type]
        return out

    return reduce(both, parts, {})


def values(statistics: Mapping[str, Statistic]) -> dict[str, float]:
    """The plain numbers: every Mean that counted something, by name."""
    return {name: s.value for name, s in statistics.items() if isinstance(s, Mean) and s.weight}


QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


def quantiles(numbers: Sequence[float]) -> dict[str, float]:
    """Min, 10 %, median, 90 % and max over clients (linear interpolation); empty for no numbers.

    >>> quantiles([1.0, 2.0, 3.0])["median"]
    2.0
    """
    if not len(numbers):
        return {}
    ordered = sorted(map(float, numbers))  # every round does this, and NumPy takes longer to begin than this to end
    return {name: _interpolated(ordered, share) for name, share in QUANTILES.items()}


def _interpolated(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    low, high, part = ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
