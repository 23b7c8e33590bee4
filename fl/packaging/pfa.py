"""PFA 0.8.1: the Portable Format for Analytics, one JSON document that engines on the JVM and in Python run.

Rows of a table are records whose fields may be null; other examples are arrays of numbers. A class comes with its label
and the logits. What preprocessing computes is a ``let`` a number; a missing value in between is NaN.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from fl.packaging.apart import run
from fl.packaging.formulas import CONDITIONS, Formulas, Term
from fl.packaging.layers import Dense, dense_layers
from fl.packaging.metadata import KEY, signature_of, to_text
from fl.packaging.operations import Program, Trees
from fl.packaging.predict import Predict
from fl.packaging.reading import program_of
from fl.parameters import Array
from fl.signature import Signature

Json: TypeAlias = Any

_NUMBERS: Json = {"type": "array", "items": "double"}
_NAN: Json = {"/": [0.0, 0.0]}
_FUNCTIONS: Mapping[str, Json] = {
    "relu": {"params": [{"x": "double"}], "ret": "double", "do": {"if": {"<": ["x", 0.0]}, "then": 0.0, "else": "x"}},
    "tanh": {"params": [{"x": "double"}], "ret": "double", "do": {"m.tanh": "x"}},
    "sigmoid": {"params": [{"x": "double"}], "ret": "double", "do": {"m.link.logit": "x"}},
}

# titus2 was written for an older Python and NumPy: what it asks them for is put back first.
READER = """
import inspect, json, sys
import numpy
inspect.getargspec = inspect.getfullargspec
numpy.float_ = numpy.float64
from titus.genpy import PFAEngine
with open(sys.argv[1]) as file:
    (engine,) = PFAEngine.fromJson(file.read())
for line in sys.stdin:
    print(json.dumps(engine.action(json.loads(line))))
"""


def check(module: nn.Module, signature: Signature) -> None:
    """Raise BadInput for a model that this language of numbers has no words for."""
    dense_layers(program_of(module, signature), language="PFA", with_trees=True)


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """One JSON document. ``example`` is not needed."""
    signature = signature_of(metadata)
    program = program_of(module, signature)
    features, rest = dense_layers(program, language="PFA", with_trees=True)
    columns, taken = _input(program)
    action = [{"let": {name: value}} for name, value in columns]
    names = [name for name, _ in columns]
    if features is not None:
        steps, names = _terms(features.formulas, names)
        action += steps
    action.append({"let": {"h0": {"type": _NUMBERS, "new": names} if names else "input"}})
    if isinstance(rest, Trees):
        (steps, cells, made), functions = _trees(rest), {"leaf": _LEAF}
    else:
        (steps, cells, made) = _layers(rest)
        functions = {layer.activation: _FUNCTIONS[layer.activation] for layer in rest if layer.activation}
    action += steps
    output, last = _output(program, made, cells)
    document = {
        "name": "Meadow",
        "version": 1,
        "method": "map",
        "input": taken,
        "output": output,
        "cells": cells,
        "fcns": functions,
        "action": [*action, last],
        "metadata": {KEY: to_text(metadata)},
    }
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="ascii")


def read(path: Path) -> Predict:
    """titus2 in a Python of its own."""
    document = json.loads(path.read_text(encoding="ascii"))
    signature = signature_of(document["metadata"][KEY])
    fields = document["input"].get("fields")

    def predict(inputs: Array) -> Array:
        rows = inputs.reshape(len(inputs), -1).astype(np.float64).astype(object)
        rows[rows != rows] = None
        names = [field["name"] for field in fields or ()]
        given = [dict(zip(names, row, strict=True)) if fields else row for row in rows.tolist()]
        lines = "".join(json.dumps(row) + "\n" for row in given)
        told = [json.loads(line) for line in run([sys.executable, "-c", READER, path], lines.encode()).splitlines()]
        answers = np.array([answer["outputs"] if isinstance(answer, dict) else [answer] for answer in told])
        return answers.astype(np.float64 if signature.input_dtype == "float64" else np.float32)

    return predict


def _input(program: Program) -> tuple[list[tuple[str, Json]], Json]:
    """The columns by the names they get here, with where they come from; and the type of an example."""
    signature = program.signature
    if len(signature.input_shape) != 1:
        return [], _NUMBERS
    fields: list[str] = []
    for name in signature.input_names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        while plain in fields:
            plain += "_"
        fields.append(plain)
    told = [
        {"name": field, "type": ["null", "double"], "doc": name}
        for field, name in zip(fields, signature.input_names, strict=True)
    ]
    columns = [
        (f"c{i}", {"ifnotnull": {"v": {"attr": "input", "path": [[field]]}}, "then": "v", "else": _NAN})
        for i, field in enumerate(fields)
    ]
    return columns, {"type": "record", "name": "Row", "fields": told}


def _output(program: Program, made: str, cells: dict[str, Json]) -> tuple[Json, Json]:
    if program.signature.task == "regression":
        return "double", {"attr": made, "path": [0]}
    labels = [program.label_of(i) for i in range(program.signature.num_outputs)]
    cells["labels"] = {"type": {"type": "array", "items": "string"}, "init": labels}
    fields = [{"name": "label", "type": "string"}, {"name": "outputs", "type": _NUMBERS}]
    label = {"cell": "labels", "path": [{"a.argmax": made}]}
    kind = {"type": "record", "name": "Answer", "fields": fields}
    return kind, {"type": "Answer", "new": {"label": label, "outputs": made}}


def _layers(layers: Sequence[Dense]) -> tuple[list[Json], dict[str, Json], str]:
    """Steps from ``h0`` on, the cells that hold the weights, and the name of the answer."""
    steps: list[Json] = []
    cells: dict[str, Json] = {}
    made = "h0"
    fields = [{"name": "coeff", "type": {"type": "array", "items": _NUMBERS}}, {"name": "const", "type": _NUMBERS}]
    kind: Json = {"type": "record", "name": "Layer", "fields": fields}
    for i, layer in enumerate(layers, 1):
        init = {"coeff": _numbers(layer.weight), "const": _numbers(layer.bias)}
        cells[f"layer{i}"] = {"type": kind, "init": init}
        kind = "Layer"  # a type is declared where it is first used
        steps.append({"let": {f"h{i}": {"model.reg.linear": [made, {"cell": f"layer{i}"}]}}})
        made = f"h{i}"
        if layer.activation is not None:
            steps.append({"let": {f"a{i}": {"a.map": [made, {"fcn": f"u.{layer.activation}"}]}}})
            made = f"a{i}"
    return steps, cells, made


def _numbers(array: Array) -> Json:
    """The shortest digits that give the same bits in the array's own dtype."""
    return [_numbers(row) for row in array] if array.ndim > 1 else [float(text) for text in array.astype(str)]


def _terms(formulas: Formulas, columns: Sequence[str]) -> tuple[list[Json], list[str]]:
    """A step a number that is computed, and the names of those that come out."""
    names = [columns[int(t.value)] if t.operation == "input" else f"t{i}" for i, t in enumerate(formulas.terms)]
    steps = [
        {"let": {names[i]: _expression(term, formulas.terms, names)}}
        for i, term in enumerate(formulas.terms)
        if term.operation not in CONDITIONS and term.operation != "input"
    ]
    return steps, [names[place] for place in formulas.outputs]


def _expression(term: Term, terms: Sequence[Term], names: Sequence[str]) -> Json:
    given = [_operand(place, terms, names) for place in term.arguments]
    match term.operation:
        case "number":
            return _number(term.value)
        case "where":
            return {"if": given[0], "then": given[1], "else": given[2]}
        case "floor" | "isnan":
            return {"m.floor" if term.operation == "floor" else "impute.isnan": given}
        case "not":
            return {"!": given}
        case "and" | "or":
            return {"&&" if term.operation == "and" else "||": given}
        case "<" | ">" | ">=" | "==":
            compared: Json = {term.operation: given}
            for place, value in zip(term.arguments, given, strict=True):
                if terms[place].operation != "number":  # a missing value compares with nothing
                    compared = {"&&": [{"!": [{"impute.isnan": [value]}]}, compared]}
            return compared
        case _:
            return {term.operation: given}


def _operand(place: int, terms: Sequence[Term], names: Sequence[str]) -> Json:
    term = terms[place]
    inline = term.operation in CONDITIONS or term.operation == "number"
    return _expression(term, terms, names) if inline else names[place]


def _number(value: float) -> Json:
    if math.isnan(value):
        return _NAN
    return value if math.isfinite(value) else {"/": [math.copysign(1.0, value), 0.0]}


_LEAF: Json = {
    "params": [{"x": _NUMBERS}, {"root": "int"}],
    "ret": "int",
    "do": [
        {"let": {"at": "root"}},
        {
            "while": {"!=": [{"cell": "left", "path": ["at"]}, "at"]},
            "do": [
                {"let": {"value": {"attr": "x", "path": [{"cell": "feature", "path": ["at"]}]}}},
                {
                    "let": {
                        "goes_left": {
                            "if": {"impute.isnan": ["value"]},
                            "then": {"cell": "default_left", "path": ["at"]},
                            "else": {"<": ["value", {"cell": "threshold", "path": ["at"]}]},
                        }
                    }
                },
                {
                    "set": {
                        "at": {
                            "if": "goes_left",
                            "then": {"cell": "left", "path": ["at"]},
                            "else": {"cell": "right", "path": ["at"]},
                        }
                    }
                },
            ],
        },
        "at",
    ],
}
"""From a root down to a leaf, which is its own left child."""


def _trees(trees: Trees) -> tuple[list[Json], dict[str, Json], str]:
    """The sum of what the leaves say that ``h0`` reaches; as ``_layers``."""
    types = {"roots": "int", "feature": "int", "left": "int", "right": "int", "default_left": "boolean"}
    cells: dict[str, Json] = {
        name: {"type": {"type": "array", "items": kind}, "init": getattr(trees, name).tolist()}
        for name, kind in types.items()
    }
    cells["threshold"] = {"type": _NUMBERS, "init": trees.threshold.tolist()}
    cells["leaf"] = {"type": {"type": "array", "items": _NUMBERS}, "init": trees.leaf.tolist()}
    leaf = {"cell": "leaf", "path": [{"u.leaf": ["h0", "root"]}]}
    steps: list[Json] = [
        {"let": {"sum": {"type": _NUMBERS, "new": [trees.base] * trees.leaf.shape[1]}}},
        {"foreach": "root", "in": {"cell": "roots"}, "seq": True, "do": {"set": {"sum": {"la.add": ["sum", leaf]}}}},
    ]
    if not trees.zero_first:
        return steps, cells, "sum"
    first: Json = {"type": _NUMBERS, "new": [0.0]}
    return [*steps, {"let": {"both": {"a.concat": [first, "sum"]}}}], cells, "both"
