"""Rows by the names of their columns, and answers for people: labels and probabilities, or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl.parameters import Array
from fl.serving.model import Model, Unanswerable
from fl.signature import Signature


def values_of(rows: Any, model: Model, *, first: int = 0) -> Array:
    """Rows, each a mapping by the names of the columns or a list in their order, as (N, *input_shape).

    A name that is left out, or null, is a missing value. Raises Unanswerable, with row (the first is number ``first``)
    and column, for what is no row.
    """
    signature = model.signature
    if not isinstance(rows, list) or not rows:
        raise Unanswerable("rows: expected a list of at least one row")
    width = math.prod(signature.input_shape)
    names = signature.input_names if len(signature.input_shape) == 1 else ()
    dtype = np.int64 if signature.input_dtype == "int64" else np.float64
    table = np.empty((len(rows), width), dtype=dtype)
    for number, row in enumerate(rows):
        told = first + number
        cells = _cells(row, names, told) if isinstance(row, Mapping) else _flat(row, told)
        if len(cells) != width:
            raise Unanswerable(f"row {told}: {len(cells)} values, expected {width}")
        for place, cell in enumerate(cells):
            table[number, place] = _number(cell, names[place] if names else place, told, whole=dtype is np.int64)
    return table.reshape(len(rows), *signature.input_shape)


def _cells(row: Mapping[str, Any], names: Sequence[str], number: int) -> list[Any]:
    if not names:
        raise Unanswerable(f"row {number}: the model takes no columns by name, but a list of numbers")
    if strange := [name for name in row if name not in names]:
        raise Unanswerable(f"row {number}: there is no column {strange[0]!r}, only {', '.join(names)}")
    return [row.get(name) for name in names]


def _flat(row: Any, number: int) -> list[Any]:
    """A list of lists as one list: a picture may come as rows of pixels."""
    if not isinstance(row, list):
        raise Unanswerable(f"row {number}: expected an object by column, or a list")
    cells = row
    while cells and all(isinstance(cell, list) for cell in cells):
        cells = [inner for cell in cells for inner in cell]
    return cells


def _number(cell: Any, column: str | int, number: int, *, whole: bool) -> float:
    if cell is None and not whole:
        return math.nan
    if isinstance(cell, bool) or not isinstance(cell, int | float) or (whole and not -(2**63) <= cell < 2**63):
        raise Unanswerable(f"row {number}, column {column}: {cell!r} is not a number")
    if whole and cell != int(cell):
        raise Unanswerable(f"row {number}, column {column}: {cell!r} is not a whole number")
    try:
        return float(cell) if not whole else int(cell)
    except OverflowError as error:
        raise Unanswerable(f"row {number}, column {column}: a number that is too large") from error


def label_names(signature: Signature) -> list[str]:
    """The name of each output: the class, the token, or its number."""
    return list(signature.class_names) or [str(place) for place in range(signature.num_outputs)]


def labels_of(outputs: Array, signature: Signature) -> Array:
    """The most likely label of each row, (N,) or (N, positions), as texts."""
    names: Array = np.asarray(label_names(signature))
    return names[outputs.argmax(axis=-1)]  # type: ignore[no-any-return]


def answers_of(outputs: Array, signature: Signature) -> list[dict[str, Any]]:
    """What each row's outputs mean: {"label", "probabilities"} (of the last position, of a text), or {"value"}."""
    if signature.task == "regression":
        return [{"value": float(row[0])} for row in outputs.reshape(len(outputs), -1)]
    last = outputs if signature.task == "classification" else outputs[:, -1]
    names = label_names(signature)
    raised = np.exp(last.astype(np.float64) - last.max(axis=-1, keepdims=True))
    shares = raised / raised.sum(axis=-1, keepdims=True)
    return [
        {"label": names[int(share.argmax())], "probabilities": dict(zip(names, share.tolist(), strict=True))}
        for share in shares
    ]
