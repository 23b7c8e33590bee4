"""Numbers as whole numbers that sort alike, read digit by digit: how order statistics are found from counts alone.

A float64's bits, with the sign's way round turned, sort as the numbers do. Eight digits of eight bits are a whole key.
Counting the values that begin with what is known of a quantile, by their next digit, tells its next digit: no edge
depends on any client's data, the counts add up, and after eight rounds the value is exact. A float32 has no more than
five digits, and after ``d`` digits of eight bits a value is known to within 2^-(8 d - 12) of itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl.parameters import Array

BITS = 8
DIGITS = 2**BITS
PLACES = 64 // BITS
_SIGN = np.uint64(1 << 63)


def ordered(values: Array) -> Array:
    """Keys (uint64) that sort as the numbers do; NaN anywhere."""
    numbers = np.ascontiguousarray(values, np.float64) + 0.0  # one zero
    bits = numbers.view(np.uint64)
    return np.where(bits >= _SIGN, ~bits, bits | _SIGN)


def from_ordered(keys: Array) -> Array:
    """The inverse of ``ordered``."""
    bits = np.where(keys >= _SIGN, keys & ~_SIGN, ~keys)
    return np.asarray(bits.view(np.float64))


def digit_counts(keys: Array, prefixes: Sequence[int], place: int) -> Array:
    """How many keys begin with each of ``prefixes``, ``place`` digits long, by their next digit (prefixes, DIGITS)."""
    rest = keys >> np.uint64(64 - BITS * (place + 1))
    begins, digits = rest >> np.uint64(BITS), (rest & np.uint64(DIGITS - 1)).astype(np.int64)
    found = {
        prefix: np.bincount(digits[begins == np.uint64(prefix)] if place else digits, minlength=DIGITS)
        for prefix in set(prefixes)
    }
    return np.stack([found[prefix] for prefix in prefixes])
