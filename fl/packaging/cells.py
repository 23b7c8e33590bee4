"""CSV in and out of the programs that a model is exported as: an example a line, an answer a line."""

from __future__ import annotations

import csv
import io

import numpy as np

from fl.packaging.operations import Program
from fl.parameters import Array
from fl.signature import Signature


def column_names(program: Program) -> list[str]:
    """What the numbers of an answer go by: a class, a token at a position, or the prediction."""
    signature = program.signature
    if signature.task == "regression":
        return ["prediction"]
    labels = [program.label_of(i) for i in range(signature.num_outputs)]
    if signature.task == "classification":
        return labels
    return [f"{position} {label}" for position in range(program.shapes[-1][0]) for label in labels]


def cell(text: str) -> str:
    """A text as one cell.

    >>> cell("plain"), cell('5" or more, say')
    ('plain', '"5"" or more, say"')
    """
    quoted = any(c in text for c in ',"\r\n') or not text
    return '"' + text.replace('"', '""') + '"' if quoted else text


def rows_as_csv(inputs: Array) -> str:
    """Examples (N, ...) as lines without a header; every bit comes back, and NaN is an empty cell."""
    flat = inputs.reshape(len(inputs), -1)
    lines = [",".join("" if text == "nan" else text for text in row) for row in flat.astype(str).tolist()]
    return "\n".join(lines) + "\n"


def answers_of(text: str, signature: Signature) -> Array:
    """The numbers in what a program printed, (N, ...) as the model gives them; the label before them is passed over."""
    rows = list(csv.reader(io.StringIO(text)))[1:]
    first = 0 if signature.task == "regression" else 1
    dtype = np.float64 if signature.input_dtype == "float64" else np.float32
    shape = (*signature.input_shape, signature.num_outputs) if signature.task == "next_token" else (-1,)
    return np.array([row[first:] for row in rows], dtype=dtype).reshape(len(rows), *shape)
