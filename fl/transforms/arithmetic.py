"""The operations that features are computed with: so few that NumPy, PyTorch and ONNX give the same bits.

In float64, ``+ - * /``, comparisons and the floor are exact or correctly rounded by IEEE 754, so that every library has
one answer. Libraries differ in the last bit of a logarithm, and PyTorch's square root is not always the rounded one
either (about one in a hundred is off): ``log`` and ``sqrt`` are made of the others. Nothing is fused or reordered, and
only the result is rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Column: TypeAlias = Any
"""Float64 values, an example each: a NumPy array or a torch tensor."""

_STEPS = (512, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
# log(2) in two parts: the first has so few digits that a whole number times it is exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@dataclass(frozen=True)
class Arithmetic:
    """Where the arrays come from. ``number(v)`` is a float64 that goes with any column.

    Every number goes through it: PyTorch multiplies by the reciprocal of a plain number instead of dividing, and in an
    ONNX file a plain number is rounded to float32.
    """

    where: Callable[..., Column]
    isnan: Callable[[Column], Column]
    floor: Callable[[Column], Column]
    number: Callable[[float], Column]

    def known(self, x: Column) -> Column:
        """``x`` with NaN for an infinity: what is not finite is missing, as it is to every query."""
        n = self.number
        return self.where((x > n(-math.inf)) & (x < n(math.inf)), x, n(math.nan))

    def flag(self, condition: Column) -> Column:
        """1 where it holds, else 0."""
        return self.where(condition, self.number(1.0), self.number(0.0))


NUMPY = Arithmetic(np.where, np.isnan, np.floor, float)


def log(x: Column, a: Arithmetic) -> Column:
    """The natural logarithm to about one unit in the last place; NaN where x is not above 0.

    x = m 2^e with m near 1, by exact steps; then log m = 2 artanh s with s = (m - 1) / (m + 1), as a series.

    >>> log(np.array([1.0, 10.0]), NUMPY).tolist()
    [0.0, 2.302585092994046]
    """
    n = a.number
    some = (x > n(0.0)) & (x < n(math.inf))
    m, e = a.where(some, x, n(1.0)), n(0.0)
    for k in _STEPS[1:]:
        large = m >= n(2.0**k)
        m, e = a.where(large, m * n(2.0**-k), m), a.where(large, e + n(k), e)
    for k in _STEPS:
        small = m < n(2.0 ** (1 - k))
        m, e = a.where(small, m * n(2.0**k), m), a.where(small, e - n(k), e)
    large = m >= n(math.sqrt(2.0))
    m, e = a.where(large, m * n(0.5), m), a.where(large, e + n(1.0), e)
    s = (m - n(1.0)) / (m + n(1.0))
    z = s * s
    series = n(1.0 / 25.0)
    for odd in range(23, 0, -2):
        series = series * z + n(1.0 / odd)
    found = e * n(_LN2_HIGH) + (e * n(_LN2_LOW) + (s + s) * series)
    return a.where(some, found, n(math.nan))


def sqrt(x: Column, a: Arithmetic) -> Column:
    """The square root to one unit in the last place; NaN where x is below 0.

    x = m 4^e with 1 <= m < 4, by exact steps; then Heron's s <- (s + m / s) / 2 from (1 + m) / 2.

    >>> sqrt(np.array([9.0, 2.0]), NUMPY).tolist()
    [3.0, 1.414213562373095]
    """
    n = a.number
    some = (x > n(0.0)) & (x < n(math.inf))
    m, scale = a.where(some, x, n(1.0)), n(1.0)
    for k in _STEPS[1:-1]:
        large = m >= n(2.0**k)
        m, scale = a.where(large, m * n(2.0**-k), m), a.where(large, scale * n(2.0 ** (k // 2)), scale)
    for k in _STEPS[:-1]:
        small = m < n(2.0 ** (2 - k))
        m, scale = a.where(small, m * n(2.0**k), m), a.where(small, scale * n(2.0 ** -(k // 2)), scale)
    s = (m + n(1.0)) * n(0.5)
    for _ in range(6):
        s = (s + m / s) * n(0.5)
    return a.where(some, s * scale, a.where(x == n(0.0), x, n(math.nan)))
