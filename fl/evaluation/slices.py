"""Slices: parts of the held-back examples that may be served worse than the whole, and which of them is.

A column of a table with few values makes a slice a value, another one a slice a quarter of the examples (cut at its
quantiles) and one for what is missing; every class makes one, and pictures make four by how bright they are. The
worst slice is found by looking at many: its true interval is wider than it says, and one of few examples is never it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.signature import Signature

FEW_VALUES = 6
QUARTERS = 4
LEAST = 20
"""Examples below which a slice is told, and not called worst."""


@dataclass(frozen=True)
class Slice:
    """``name`` by ``by``: "sex is 1" by "sex"; ``members`` (n,) says who is in it."""

    by: str
    name: str
    members: Array


def slices(x: Array, y: Array, signature: Signature, *, columns: Sequence[str] | None = None) -> Iterator[Slice]:
    """The slices of examples as stored: by ``columns`` of a table (None: all), and by what is true of them.

    BadInput for a column that is not there.
    """
    for name in chosen_columns(signature, columns):
        yield from by_column(name, x[:, signature.input_names.index(name)])
    if len(signature.input_shape) == 3:
        yield from _quarters("brightness", x.reshape(len(x), -1).mean(axis=1))
    if signature.task == "classification":
        for c in np.unique(y):
            name = signature.class_names[int(c)] if signature.class_names else str(int(c))
            yield Slice("label", f"label is {name}", np.asarray(y == c))
    elif signature.task == "regression":
        yield from _quarters("target", np.asarray(y).reshape(-1))


def chosen_columns(signature: Signature, columns: Sequence[str] | None, *, key: str = "--slice") -> list[str]:
    """``columns``, or all that a table has; BadInput for one that it has not."""
    known = list(signature.input_names) if len(signature.input_shape) == 1 and signature.task != "next_token" else []
    for name in columns or ():
        if name not in known:
            raise BadInput(key=key, got=name, allowed=f"one of {', '.join(known)}" if known else "a table's column")
    return known if columns is None else list(columns)


def by_column(name: str, values: Array) -> Iterator[Slice]:
    """The slices of one column (n,)."""
    there = np.isfinite(values)
    found = np.unique(values[there])
    if len(found) <= FEW_VALUES:
        for value in found:
            yield Slice(name, f"{name} is {value:g}", np.asarray(values == value))
    else:
        yield from _quarters(name, values)
    if not there.all():
        yield Slice(name, f"{name} is missing", ~there)


def _quarters(name: str, values: Array) -> Iterator[Slice]:
    there = np.isfinite(values)
    edges = np.unique(np.quantile(values[there], np.linspace(0, 1, QUARTERS + 1))) if there.any() else np.empty(0)
    for low, high in itertools.pairwise(edges):
        inside = there & (values >= low) & ((values < high) if high < edges[-1] else (values <= high))
        yield Slice(name, f"{name} from {low:.4g} to {high:.4g}", np.asarray(inside))
