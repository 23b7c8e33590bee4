"""Statistics of fixed size about sets that may be of any: how many different values, which are frequent, which rows
are the same. Each states its error, and merges to what one pass over all values would have given, or to within it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from fl.parameters import Array

REGISTERS = 4096
"""Of a ``Distinct``: its standard error is 1.04 / sqrt(REGISTERS), 1.6 %."""

_INDEX_BITS = 12
_MOST_ZEROS = 64 - _INDEX_BITS
ROW_BITS = 52
"""Of a row's hash: every float64 holds it exactly."""


def hashed(values: Array, salt: int) -> Array:
    """64-bit hashes of numbers (any shape): of their float64 bits, with one NaN and one zero (splitmix64).

    ``salt`` is any whole number below 2^64.
    """
    numbers = np.asarray(values, np.float64) + 0.0  # -0.0 becomes 0.0
    bits = np.where(np.isnan(numbers), np.uint64(0x7FF8 << 48), numbers.view(np.uint64))
    return _mixed(bits ^ np.uint64(salt))


def _mixed(z: Array) -> Array:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def row_hashes(rows: Array, salt: int) -> Array:
    """A hash of ROW_BITS bits for each row (n, d) of numbers."""
    state = np.full(len(rows), salt, np.uint64)
    for column in rows.T:
        state = _mixed(state ^ hashed(column, salt))
    return np.asarray(state >> np.uint64(64 - ROW_BITS))


@dataclass(frozen=True)
class Distinct:
    """How many different values: HyperLogLog (Flajolet et al. 2007), read with Ertl's estimator (2017).

    A register holds the longest run of leading zeros among the hashes that fall to it. Merging takes the larger one, so
    the result does not depend on the order, and is that of one pass.
    """

    registers: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, salt: int = 0) -> Distinct:
        """Of a column (n,); missing values count as none. Only sketches of one ``salt`` merge to something."""
        hashes = hashed(values[np.isfinite(values)], salt)
        rest = (hashes << np.uint64(_INDEX_BITS)) >> np.uint64(11)  # 53 bits, of which the last is 0
        _, length = np.frexp(rest.astype(np.float64))
        zeros = np.minimum(54 - length, _MOST_ZEROS + 1)
        registers = np.zeros(REGISTERS, np.int64)
        # In ascending order, so that the largest is written last: ten times as quick as np.maximum.at.
        order = np.argsort(zeros.astype(np.uint8), kind="stable")
        registers[(hashes >> np.uint64(64 - _INDEX_BITS)).astype(np.int64)[order]] = zeros[order]
        return cls(tuple(registers.tolist()))

    def merge(self, other: Distinct) -> Distinct:
        """Both together."""
        return Distinct(tuple(np.maximum(self.registers, other.registers).tolist()))

    @property
    def value(self) -> float:
        """The estimate."""
        m = len(self.registers)
        held = np.bincount(np.array(self.registers), minlength=_MOST_ZEROS + 2)
        z = m * _tau(1 - held[_MOST_ZEROS + 1] / m)
        for k in range(_MOST_ZEROS, 0, -1):
            z = 0.5 * (z + held[k])
        return float(m * m / (2 * math.log(2) * (z + m * _sigma(held[0] / m))))


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, 2 * y
    return z


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, y, before = math.sqrt(x), 0.5 * y, z
        z -= (1 - x) ** 2 * y
    return z / 3


@dataclass(frozen=True)
class HeavyHitters:
    """The frequent values: mergeable Misra-Gries summaries (Agarwal et al. 2012).

    values, counts   at most ``capacity`` of each, ascending by value. A value occurs between its count and its count
                     + ``lost`` times; one that is not here at most ``lost`` times
    lost             at most (number of values) / (capacity + 1), and what ``at_least`` held back, a client
    """

    values: tuple[float, ...]
    counts: tuple[int, ...]
    capacity: int
    lost: int = 0

    @classmethod
    def of(cls, column: Array, capacity: int, *, at_least: int = 1) -> HeavyHitters:
        """Of a column (n,). A value that occurs fewer than ``at_least`` times is not told: it might be one person's."""
        values, counts = np.unique(column[np.isfinite(column)].astype(np.float64), return_counts=True)
        told = counts >= at_least
        held_back = int(counts[~told].max(initial=0))
        pairs = {float(v): int(n) for v, n in zip(values[told], counts[told], strict=True)}
        return _cut(pairs, capacity, held_back)

    def merge(self, other: HeavyHitters) -> HeavyHitters:
        """Both together; their capacities must be equal."""
        if self.capacity != other.capacity:
            raise ValueError("heavy hitters of different capacities do not merge")
        both = Counter(dict(self.items)) + Counter(dict(other.items))
        return _cut(dict(both), self.capacity, self.lost + other.lost)

    @property
    def items(self) -> list[tuple[float, int]]:
        """Values with their counts."""
        return list(zip(self.values, self.counts, strict=True))

    @property
    def top(self) -> list[tuple[float, int]]:
        """The same, most frequent first; of equals the smaller value."""
        return sorted(self.items, key=lambda item: (-item[1], item[0]))


def _cut(pairs: dict[float, int], capacity: int, lost: int) -> HeavyHitters:
    """The largest ``capacity``, each less the count of the first that is left out."""
    if len(pairs) > capacity:
        less = sorted(pairs.values(), reverse=True)[capacity]
        pairs, lost = {value: count - less for value, count in pairs.items() if count > less}, lost + less
    values = sorted(pairs)
    return HeavyHitters(tuple(values), tuple(pairs[v] for v in values), capacity, lost)


@dataclass(frozen=True)
class Rows:
    """Which rows there are: the ``capacity`` smallest of their salted hashes, ascending, each once.

    Of two sets with at most ``capacity`` rows each it tells exactly which they share; of larger ones what share.
    """

    hashes: tuple[int, ...]
    capacity: int

    @classmethod
    def of(cls, rows: Array, capacity: int, *, salt: int) -> Rows:
        """Of rows (n, d)."""
        return cls(tuple(np.unique(row_hashes(rows, salt))[:capacity].tolist()), capacity)

    def merge(self, other: Rows) -> Rows:
        """Both together."""
        return Rows(tuple(sorted({*self.hashes, *other.hashes})[: self.capacity]), self.capacity)

    def shared(self, other: Rows) -> float:
        """The share of the smaller set's rows that the other has too, as far as both sketches reach."""
        reach = min((s.hashes[-1] for s in (self, other) if len(s.hashes) == s.capacity), default=2**ROW_BITS)
        a, b = ({h for h in s.hashes if h <= reach} for s in (self, other))
        return len(a & b) / max(1, min(len(a), len(b)))
