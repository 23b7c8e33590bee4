"""Named arrays and their arithmetic.

``Parameters`` is a plain dict from name to NumPy array. The order of the names is the model's own, and arithmetic
keeps it; hashing sorts by name, so that the order never matters for identity.

    a + b        add(a, b)             a - b     subtract(a, b)
    s * a        scale(a, s)           |a|_2     norm(a)

Booleans (a mask that a model keeps) are numbers modulo 2: their difference says what changed, and adding it changes
that back.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Parameters: TypeAlias = dict[str, Array]


def add(a: Mapping[str, Array], b: Mapping[str, Array]) -> Parameters:
    """Sum, name by name, in the dtype of ``a``.

    >>> add({"w": np.ones(2)}, {"w": np.ones(2)})
    {'w': array([2., 2.])}
    """
    return {name: cast(value ^ b[name] if _booleans(value) else value + b[name], value) for name, value in a.items()}


def subtract(a: Mapping[str, Array], b: Mapping[str, Array]) -> Parameters:
    """Difference ``a - b``, name by name, in the dtype of ``a``."""
    return {name: cast(value ^ b[name] if _booleans(value) else value - b[name], value) for name, value in a.items()}


def scale(a: Mapping[str, Array], factor: float) -> Parameters:
    """``factor * a`` in the dtypes of ``a``; integer arrays (counters) are rounded to the nearest."""
    return {
        name: cast(value * (value.dtype.type(factor) if is_floating(value) else factor), value)
        for name, value in a.items()
    }


def zeros_like(a: Mapping[str, Array]) -> Parameters:
    """Zeros of the same names, shapes and dtypes."""
    return {name: np.zeros_like(value) for name, value in a.items()}


def copy(a: Mapping[str, Array]) -> Parameters:
    """A deep copy: contiguous, writable, owned by nobody else."""
    return {name: np.array(value, copy=True, order="C") for name, value in a.items()}


def norm(a: Mapping[str, Array]) -> float:
    """Euclidean norm over all floating-point arrays together, accumulated in float64 in name order.

    >>> norm({"w": np.array([3.0]), "b": np.array([4.0])})
    5.0
    """
    if not a:
        return 0.0
    with np.errstate(over="ignore"):  # then it is infinite, and whoever checks it sees that
        return math.sqrt(math.fsum(_sum_of_squares(a[name]) for name in sorted(a) if is_floating(a[name])))


NORM_BLOCK = 2**13
"""Numbers that are made float64 at once: they stay in the cache, and are too few for BLAS to use threads."""


def _sum_of_squares(value: Array) -> float:
    flat = value.reshape(-1)
    if flat.size <= NORM_BLOCK:
        whole = flat.astype(np.float64)
        return float(np.dot(whole, whole))
    squares, room = [], np.empty(NORM_BLOCK)
    for start in range(0, flat.size, NORM_BLOCK):
        part = flat[start : start + NORM_BLOCK]
        whole = room[: len(part)]
        whole[...] = part
        squares.append(np.dot(whole, whole))
    return float(np.sum(squares))


def num_values(a: Mapping[str, Array]) -> int:
    """How many numbers there are in all arrays."""
    return sum(int(value.size) for value in a.values())


def num_bytes(a: Mapping[str, Array]) -> int:
    """Payload size in bytes, without names and framing."""
    return sum(int(value.nbytes) for value in a.values())


def not_finite(a: Mapping[str, Array]) -> str | None:
    """The name of the first array that holds a NaN or an infinity, or None."""
    for name, value in a.items():
        if is_floating(value) and not np.isfinite(value).all():
            return name
    return None


def sha256(a: Mapping[str, Array]) -> str:
    """Identity of the values: SHA-256 over name, dtype, shape and little-endian bytes, in name order.

    >>> sha256({"a": np.zeros(1), "b": np.ones(1)}) == sha256({"b": np.ones(1), "a": np.zeros(1)})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(a):
        value = np.asarray(a[name], order="C")  # not ascontiguousarray, which gives a number the shape of a list
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{little.dtype.str}\0{value.shape}\0".encode())
        digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def mismatch(a: Mapping[str, Array], like: Mapping[str, Array]) -> str | None:
    """What keeps ``a`` from having the names, shapes and dtypes of ``like``, in words; None if nothing does."""
    missing, extra = sorted(like.keys() - a.keys()), sorted(a.keys() - like.keys())
    if missing:
        return f"array {missing[0]!r} is missing"
    if extra:
        return f"array {extra[0]!r} is not among those expected"
    for name, value in a.items():
        if value.shape != like[name].shape:
            return f"array {name!r} has shape {value.shape}, expected {like[name].shape}"
        if value.dtype != like[name].dtype:
            return f"array {name!r} has dtype {value.dtype}, expected {like[name].dtype}"
    return None


def cast(value: Array, like: Array) -> Array:
    """``value`` in the dtype of ``like``, rounded to the nearest where that is an integer type or boolean."""
    if value.dtype == like.dtype:
        return np.asarray(value)
    if like.dtype.kind in "iu" or _booleans(like):
        return np.asarray(np.rint(value), dtype=like.dtype)
    return np.asarray(value, dtype=like.dtype)


def is_floating(value: Array) -> bool:
    """Whether its numbers are floating-point ones."""
    return value.dtype.kind == "f"  # issubdtype takes four microseconds for the same


def _booleans(value: Array) -> bool:
    return value.dtype == np.bool_
