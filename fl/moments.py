"""Moments that merge: count, mean and sum of squared distances, of columns and of pairs of columns.

Two sets a and b with means m_a, m_b and sums of squares M2_a, M2_b around them make (Chan, Golub and LeVeque 1979)

    m  = m_a + (m_b - m_a) n_b / n                M2 = M2_a + M2_b + (m_b - m_a)^2 n_a n_b / n

which loses no digits to a large mean, as a sum of squares would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl.parameters import Array


@dataclass(frozen=True)
class Moments:
    """Of one column: ``count`` known values, ``whole`` of them without a fraction, ``missing`` others (NaN, infinite).

    ``m2`` is the sum of squared distances to ``mean``; ``low`` and ``high`` are the extremes. All 0 for no value.

    >>> Moments.of(np.array([1.0, 2.0])).merge(Moments.of(np.array([6.0, np.nan]))).variance
    4.666666666666667
    """

    count: int
    missing: int
    whole: int
    mean: float
    m2: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Of a column (n,)."""
        known = values[np.isfinite(values)].astype(np.float64)
        missing = len(values) - len(known)
        if not len(known):
            return cls(0, missing, 0, 0.0, 0.0, 0.0, 0.0)
        mean = float(known.mean())
        distances = known - mean
        # The mean is rounded: what is left of the distances' own sum is taken out again.
        mean += float(distances.mean())
        m2 = float(np.square(distances).sum()) - float(distances.sum()) ** 2 / len(known)
        whole = int(np.count_nonzero(known == np.rint(known)))
        return cls(len(known), missing, whole, mean, max(0.0, m2), float(known.min()), float(known.max()))

    @property
    def variance(self) -> float:
        """Of the values themselves (divided by count); NaN for none."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def deviation(self) -> float:
        """The square root of the variance."""
        return math.sqrt(self.variance)

    def merge(self, other: Moments) -> Moments:
        """Both together."""
        missing = self.missing + other.missing
        if not self.count or not other.count:
            some = self if self.count else other
            return Moments(some.count, missing, some.whole, some.mean, some.m2, some.low, some.high)
        count, apart = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            missing,
            self.whole + other.whole,
            self.mean + apart * other.count / count,
            self.m2 + other.m2 + apart * apart * (self.count * other.count / count),
            min(self.low, other.low),
            max(self.high, other.high),
        )


@dataclass(frozen=True)
class CoMoments:
    """Of all pairs of d columns, over the rows where both are known: four d x d tables, row by row.

    count[i, j]   rows with both          mean[i, j], m2[i, j]   of column i over those rows
    cross[i, j]   sum of products of the distances of i and j to their means over those rows
    """

    count: tuple[int, ...]
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    cross: tuple[float, ...]

    @classmethod
    def of(cls, values: Array) -> CoMoments:
        """Of columns (n, d), d at least 1."""
        known = np.isfinite(values)
        there = known.sum(axis=0)
        centre = np.where(known, values, 0.0).sum(axis=0) / np.maximum(there, 1)
        # einsum without BLAS: the same bits whatever threads there are.
        near = np.ascontiguousarray(np.where(known, values - centre, 0.0).T)
        here = np.ascontiguousarray(known.T.astype(np.float64))
        count = np.einsum("in,jn->ij", here, here)
        some = np.maximum(count, 1.0)
        total = np.einsum("in,jn->ij", near, here)
        squares = np.einsum("in,jn->ij", near * near, here)
        cross = np.einsum("in,jn->ij", near, near)
        mean = np.where(count > 0, centre[:, None] + total / some, 0.0)
        return cls._from(count, mean, np.maximum(squares - total**2 / some, 0.0), cross - total * total.T / some)

    @classmethod
    def _from(cls, count: Array, *tables: Array) -> CoMoments:
        mean, m2, cross = (tuple(table.ravel().tolist()) for table in tables)
        return cls(tuple(int(n) for n in count.ravel()), mean, m2, cross)

    @property
    def num_columns(self) -> int:
        """d."""
        return math.isqrt(len(self.count))

    def _tables(self) -> list[Array]:
        shape = (self.num_columns, self.num_columns)
        return [np.array(table, np.float64).reshape(shape) for table in (self.count, self.mean, self.m2, self.cross)]

    def merge(self, other: CoMoments) -> CoMoments:
        """Both together; they must be of as many columns."""
        if len(self.count) != len(other.count):
            raise ValueError("moments of different columns do not merge")
        (n_a, m_a, s_a, c_a), (n_b, m_b, s_b, c_b) = self._tables(), other._tables()
        n = n_a + n_b
        some = np.maximum(n, 1.0)
        apart = np.where((n_a > 0) & (n_b > 0), m_b - m_a, 0.0)
        mean = np.where(n_a > 0, m_a + apart * n_b / some, m_b)
        weight = n_a * n_b / some
        return self._from(n, mean, s_a + s_b + apart**2 * weight, c_a + c_b + apart * apart.T * weight)

    @property
    def correlation(self) -> Array:
        """Pearson's r (d, d); NaN where a column is constant over the rows that count."""
        _, _, m2, cross = self._tables()
        scale = np.sqrt(m2 * m2.T)
        return np.asarray(np.divide(cross, scale, out=np.full_like(cross, np.nan), where=scale > 0))
