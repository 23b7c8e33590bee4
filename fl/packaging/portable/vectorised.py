"""The model's operations in NumPy, all rows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .rows import Model

Array = np.ndarray[Any, Any]


def load(description: bytes, weights: bytes) -> Model:
    """The model that two files hold."""
    return Model(description, weights, _array)


def predict(model: Model, rows: Any) -> Array:
    """(N, ...) numbers, or N sequences or mappings by name -> (N, ...), as the model answers."""
    if not isinstance(rows, np.ndarray):
        rows = np.array([model.row(given, i) for i, given in enumerate(rows, 1)], dtype=np.float64)
    with np.errstate(all="ignore"):  # a value out of range becomes a missing one, as when the model was trained
        x: Array = rows.reshape(len(rows), *model.signature["input_shape"]).astype(model.type)
        for kind, fields in model.operations:
            x = OPERATIONS[kind](x, model, **fields)
    return x


def _array(content: bytes, kind: str, shape: Sequence[int]) -> Array:
    types = {"f": "<f4", "d": "<f8", "q": "<i8", "?": "?"}
    return np.frombuffer(content, dtype=types[kind]).reshape(shape)


def _affine(x: Array, model: Model, weight: Array, bias: Array) -> Array:
    return x @ weight.T + bias


def _activation(x: Array, model: Model, function: str) -> Array:
    functions: dict[str, Callable[[Array], Array]] = {
        "relu": lambda x: np.where(x < 0, x.dtype.type(0), x),
        "tanh": np.tanh,
        "sigmoid": _sigmoid,
    }
    return functions[function](x)


def _sigmoid(x: Array) -> Array:
    made: Array = 1 / (1 + np.exp(-x))
    return made


def _flatten(x: Array, model: Model) -> Array:
    return x.reshape(len(x), -1)


def _unit(x: Array, model: Model, factor: float, shift: float) -> Array:
    made: Array = x * x.dtype.type(factor) + x.dtype.type(shift)
    return made


def _convolution(x: Array, model: Model, weight: Array, bias: Array, window: list[int], stride: list[int],
                 padding: list[int]) -> Array:  # fmt: skip
    up, side = padding
    patches = _windows(np.pad(x, ((0, 0), (0, 0), (up, up), (side, side))), window, stride)
    n, _, rows, columns = patches.shape[:4]
    flat = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n, rows * columns, -1)
    made = flat @ weight.reshape(len(bias), -1).T + bias
    return made.transpose(0, 2, 1).reshape(n, len(bias), rows, columns)


def _max_pool(x: Array, model: Model, window: list[int], stride: list[int]) -> Array:
    made: Array = _windows(x, window, stride).max(axis=(4, 5))
    return made


def _windows(x: Array, window: list[int], stride: list[int]) -> Array:
    """(N, n, H, W) -> (N, n, rows, columns, height, width)."""
    return sliding_window_view(x, (window[0], window[1]), axis=(2, 3))[:, :, :: stride[0], :: stride[1]]


def _embedding(x: Array, model: Model, table: Array) -> Array:
    wrong = x[~((x >= 0) & (x < len(table)))]
    if wrong.size:
        raise ValueError(f"token {wrong.flat[0]:g} is not of the vocabulary, 0 to {len(table) - 1}")
    return table[x.astype(np.int64)]


def _lstm(x: Array, model: Model, from_input: Array, from_state: Array, bias: Array) -> Array:
    n, length, h = len(x), x.shape[1], len(bias) // 4
    state, cell = np.zeros((n, h), x.dtype), np.zeros((n, h), x.dtype)
    made = np.empty((n, length, h), x.dtype)
    for t in range(length):
        first, forget, new, out = np.split(x[:, t] @ from_input.T + state @ from_state.T + bias, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(first) * np.tanh(new)
        made[:, t] = state = _sigmoid(out) * np.tanh(cell)
    return made


def _features(x: Array, model: Model, terms: list[list[Any]], outputs: list[int]) -> Array:
    columns, values = x.astype(np.float64).T, list[Any]()
    for operation, arguments, value in terms:
        if operation == "input":
            values.append(columns[int(float.fromhex(value))])
        elif operation == "number":
            values.append(np.float64(float.fromhex(value)))
        else:
            values.append(TERMS[operation](*(values[place] for place in arguments)))
    made = [np.broadcast_to(values[place], len(x)) for place in outputs]
    return np.stack(made, axis=1).astype(x.dtype)


TERMS: Mapping[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "floor": np.floor, "isnan": np.isnan,
    "<": np.less, ">": np.greater, ">=": np.greater_equal, "==": np.equal,
    "not": np.logical_not, "and": np.logical_and, "or": np.logical_or, "where": np.where,
}  # fmt: skip


def _trees(x: Array, model: Model, roots: Array, feature: Array, threshold: Array, left: Array, right: Array,
           default_left: Array, leaf: Array, base: float, zero_first: bool, width: int) -> Array:  # fmt: skip
    values = x.astype(np.float32)
    sums = np.full((len(x), width), base, x.dtype)
    for root in roots:
        node = np.full(len(x), root)
        while (left[node] != node).any():
            value = values[np.arange(len(x)), feature[node]]
            goes_left = np.where(np.isnan(value), default_left[node], value < threshold[node])
            node = np.where(goes_left, left[node], right[node])
        sums += leaf[node]
    return np.concatenate([np.zeros((len(x), int(zero_first)), x.dtype), sums], axis=1)


OPERATIONS: Mapping[str, Callable[..., Array]] = {
    "Affine": _affine, "Activation": _activation, "Flatten": _flatten, "Unit": _unit, "Convolution": _convolution,
    "MaxPool": _max_pool, "Embedding": _embedding, "Lstm": _lstm, "Features": _features, "Trees": _trees,
}  # fmt: skip
"""From a batch to a batch."""
