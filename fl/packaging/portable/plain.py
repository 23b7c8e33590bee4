"""The model's operations in Python alone: nothing but the standard library, a row at a time."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import add, and_, eq, ge, gt, lt, mul, not_, or_, sub
from typing import Any

from .rows import Model, Row

Values = Sequence[float]


def load(description: bytes, weights: bytes) -> Model:
    """The model that two files hold."""
    return Model(description, weights, _array)


def predict(model: Model, rows: Sequence[Any]) -> list[list[float]]:
    """What the model answers about each row, one number after the other."""
    return [_answer(model, model.row(given, i)) for i, given in enumerate(rows, 1)]


def _answer(model: Model, row: Row) -> list[float]:
    values: Values = _rounded(row, model.type)
    shape = list(model.signature["input_shape"])
    for kind, fields in model.operations:
        values, shape = OPERATIONS[kind](values, shape, model, **fields)
    return list(values)


def _array(content: bytes, kind: str, shape: Sequence[int]) -> Any:
    """A list; of a matrix or more, a list of its rows."""
    values = array("b" if kind == "?" else kind, content)
    if sys.byteorder == "big":
        values.byteswap()
    if len(shape) == 1:
        return values.tolist()
    width = math.prod(shape[1:])
    return [values[i : i + width].tolist() for i in range(0, len(values), width)]


def _rounded(values: Sequence[float], kind: str) -> list[float]:
    return array(kind, values).tolist()


def _product(x: Values, y: Values) -> float:
    return float(sum(map(mul, x, y)))


if sys.version_info >= (3, 12):
    _product = math.sumprod


def _affine(x: Values, shape: list[int], model: Model, weight: list[Values], bias: Values) -> Any:
    n = shape[-1]
    made = [_product(w, x[i : i + n]) + b for i in range(0, len(x), n) for w, b in zip(weight, bias, strict=True)]
    return made, [*shape[:-1], len(bias)]


def _activation(x: Values, shape: list[int], model: Model, function: str) -> Any:
    functions: dict[str, Callable[[float], float]] = {"relu": _relu, "tanh": math.tanh, "sigmoid": _sigmoid}
    return list(map(functions[function], x)), shape


def _relu(x: float) -> float:
    return 0.0 if x < 0.0 else x


def _sigmoid(x: float) -> float:
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def _flatten(x: Values, shape: list[int], model: Model) -> Any:
    return x, [len(x)]


def _unit(x: Values, shape: list[int], model: Model, factor: float, shift: float) -> Any:
    return [value * factor + shift for value in x], shape


def _convolution(x: Values, shape: list[int], model: Model, weight: list[Values], bias: Values, window: list[int],
                 stride: list[int], padding: list[int]) -> Any:  # fmt: skip
    channels, high, wide = shape
    up, side = padding
    empty = [0.0] * (wide + 2 * side)
    padded = []
    for c in range(channels):
        lines = [x[(c * high + i) * wide : (c * high + i + 1) * wide] for i in range(high)]
        padded.append([empty] * up + [[0.0] * side + list(line) + [0.0] * side for line in lines] + [empty] * up)
    rows, columns = _slid(high + 2 * up, window[0], stride[0]), _slid(wide + 2 * side, window[1], stride[1])
    made: list[list[float]] = [[] for _ in bias]
    for i in range(0, rows * stride[0], stride[0]):
        for j in range(0, columns * stride[1], stride[1]):
            patch = [v for plane in padded for line in plane[i : i + window[0]] for v in line[j : j + window[1]]]
            for out, w, b in zip(made, weight, bias, strict=True):
                out.append(_product(w, patch) + b)
    return [v for out in made for v in out], [len(bias), rows, columns]


def _max_pool(x: Values, shape: list[int], model: Model, window: list[int], stride: list[int]) -> Any:
    channels, high, wide = shape
    rows, columns = _slid(high, window[0], stride[0]), _slid(wide, window[1], stride[1])
    made: list[float] = []
    for c in range(channels):
        for i in range(0, rows * stride[0], stride[0]):
            lines = [x[(c * high + k) * wide : (c * high + k + 1) * wide] for k in range(i, i + window[0])]
            starts = range(0, columns * stride[1], stride[1])
            made += [max(max(line[j : j + window[1]]) for line in lines) for j in starts]
    return made, [channels, rows, columns]


def _slid(side: int, window: int, stride: int) -> int:
    return (side - window) // stride + 1


def _embedding(x: Values, shape: list[int], model: Model, table: list[Values]) -> Any:
    made: list[float] = []
    for token in x:
        if not 0 <= token < len(table):
            raise ValueError(f"token {token:g} is not of the vocabulary, 0 to {len(table) - 1}")
        made += table[int(token)]
    return made, [*shape, len(table[0])]


def _lstm(x: Values, shape: list[int], model: Model, from_input: list[Values], from_state: list[Values],
          bias: Values) -> Any:  # fmt: skip
    length, n = shape
    h = len(bias) // 4
    state, cell, made = [0.0] * h, [0.0] * h, list[float]()
    for t in range(length):
        now = x[t * n : (t + 1) * n]
        gates = [
            _product(w, now) + _product(u, state) + b
            for w, u, b in zip(from_input, from_state, bias, strict=True)
        ]  # fmt: skip
        first, forget, new, out = (gates[i * h : (i + 1) * h] for i in range(4))
        cell = [
            _sigmoid(f) * c + _sigmoid(i) * math.tanh(g)
            for f, c, i, g in zip(forget, cell, first, new, strict=True)
        ]  # fmt: skip
        state = [_sigmoid(o) * math.tanh(c) for o, c in zip(out, cell, strict=True)]
        made += state
    return made, [length, h]


def _features(x: Values, shape: list[int], model: Model, terms: list[list[Any]], outputs: list[int]) -> Any:
    values: list[Any] = []
    for operation, arguments, value in terms:
        if operation == "input":
            values.append(x[int(float.fromhex(value))])
        elif operation == "number":
            values.append(float.fromhex(value))
        else:
            values.append(TERMS[operation](*(values[place] for place in arguments)))
    return _rounded([values[place] for place in outputs], model.type), [len(outputs)]


def _divided(x: float, y: float) -> float:
    if y:
        return x / y
    return math.nan if x == 0.0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _floor(x: float) -> float:
    return float(math.floor(x)) if math.isfinite(x) and x else x


TERMS: Mapping[str, Callable[..., Any]] = {
    "+": add, "-": sub, "*": mul, "/": _divided, "floor": _floor, "isnan": math.isnan,
    "<": lt, ">": gt, ">=": ge, "==": eq, "not": not_, "and": and_, "or": or_,
    "where": lambda condition, x, y: x if condition else y,
}  # fmt: skip


def _trees(x: Values, shape: list[int], model: Model, roots: list[int], feature: list[int], threshold: Values,
           left: list[int], right: list[int], default_left: list[int], leaf: list[Values], base: float,
           zero_first: bool, width: int) -> Any:  # fmt: skip
    values, sums = _rounded(x, "f"), [base] * width
    for node in roots:
        while left[node] != node:
            value = values[feature[node]]
            goes_left = default_left[node] if math.isnan(value) else value < threshold[node]
            node = left[node] if goes_left else right[node]
        sums = list(map(add, sums, leaf[node]))
    made = [0.0] * zero_first + sums
    return made, [len(made)]


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "Affine": _affine, "Activation": _activation, "Flatten": _flatten, "Unit": _unit, "Convolution": _convolution,
    "MaxPool": _max_pool, "Embedding": _embedding, "Lstm": _lstm, "Features": _features, "Trees": _trees,
}  # fmt: skip
"""From numbers in a row and their shape to others."""
