"""A model's files, and the rows it is asked about: by position or by the names of the columns, or from CSV."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

Row = list[float]


class Model:
    """``operations`` in order, each a kind and its numbers and arrays; ``signature`` as the model was trained with."""

    def __init__(self, description: bytes, weights: bytes, array: Callable[[bytes, str, Sequence[int]], Any]) -> None:
        """``array`` makes one of little-endian bytes, a type ("f", "d", "q" or "?") and a shape."""
        told = json.loads(description)
        self.metadata: dict[str, Any] = told["meadow"]
        self.signature: dict[str, Any] = self.metadata["signature"]
        self.columns: list[str] = told["columns"]
        self.shape: list[int] = told["shape"]

        def filled(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            start, end = value["bytes"]
            return array(weights[start:end], value["type"], value["shape"])

        self.operations: list[tuple[str, dict[str, Any]]] = [
            (kind, {name: filled(value) for name, value in fields.items()}) for kind, fields in told["operations"]
        ]

    @property
    def type(self) -> str:
        """Of all numbers: "f" or "d"."""
        return "d" if self.signature["input_dtype"] == "float64" else "f"

    @property
    def inputs(self) -> int:
        """Numbers in a row."""
        return math.prod(self.signature["input_shape"])

    @property
    def names(self) -> list[str]:
        """Of the columns, where the data have names."""
        return list(self.signature["feature_names"])

    def label(self, answer: Iterable[Any]) -> str:
        """The class, or the token after the last position, of one row's answer; "" for a number."""
        if self.signature["task"] == "regression":
            return ""
        last = list(_flat(answer))[-self.signature["num_outputs"] :]
        place = last.index(max(last))
        return str(self.signature["class_names"][place]) if self.signature["class_names"] else str(place)

    def row(self, given: Any, number: int) -> Row:
        """A sequence, or a mapping by name in which None or no value is a missing one, as numbers in their order."""
        if isinstance(given, Mapping):
            unknown = [name for name in given if name not in self.names]
            if unknown:
                raise ValueError(f"row {number}: there is no column {unknown[0]!r}, only {', '.join(self.names)}")
            given = [given.get(name) for name in self.names]
        values = [math.nan if value is None else float(value) for value in _flat(given)]
        if len(values) != self.inputs:
            raise ValueError(f"row {number}: {len(values)} values, expected {self.inputs}")
        return values


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Iterable) and not isinstance(value, str):
            yield from _flat(value)
        else:
            yield value


def number(text: str) -> float:
    """A cell of a table: a number, true or false; empty, NA and nan are missing. ValueError for anything else.

    >>> number(" 1.5"), number("true"), number("NA")
    (1.5, 1.0, nan)
    """
    stripped = text.strip()
    known = {"": math.nan, "NA": math.nan, "true": 1.0, "false": 0.0}
    return known[stripped] if stripped in known else float(stripped)


def read_csv(file: Iterable[str], model: Model) -> Iterator[Row]:
    """Rows in the order of the model's columns. Raises ValueError, whose text names the row, for what is none."""
    lines = csv.reader(file)
    first = next(lines, None)
    if first is None:
        return
    places = _places(first, model)
    if not _is_header(first):
        yield _read(first, places, 1)
    for i, line in enumerate((line for line in lines if line or model.inputs == 1), 1 if _is_header(first) else 2):
        yield _read(line or [""], places, i)


def _is_header(cells: Sequence[str]) -> bool:
    try:
        return not [number(cell) for cell in cells]
    except ValueError:
        return True


def _places(first: Sequence[str], model: Model) -> tuple[list[int], int]:
    """Where each input stands in a line, and how many cells a line has."""
    if model.names and _is_header(first):
        for name in model.names:
            if first.count(name) != 1:
                raise ValueError(f"the header has the column {name!r} {first.count(name)} times, expected once")
        return [first.index(name) for name in model.names], len(first)
    if len(first) != model.inputs:
        raise ValueError(f"{len(first)} columns, expected {model.inputs}")
    return list(range(model.inputs)), len(first)


def _read(cells: Sequence[str], places: tuple[list[int], int], i: int) -> Row:
    wanted, width = places
    if len(cells) != width:
        raise ValueError(f"row {i}: {len(cells)} cells, expected {width}")
    try:
        return [number(cells[place]) for place in wanted]
    except ValueError as error:
        raise ValueError(f"row {i}: not a number: {error}") from error


def main(model: Model, predict: Callable[[list[Row]], Any], words: Sequence[str], out: TextIO) -> int:
    """``python model.pyz ROWS.csv``: the label, where there are labels, and the answer of each row, as CSV."""
    writer = csv.writer(out, lineterminator="\n")
    labelled = model.signature["task"] != "regression"
    writer.writerow([*(["label"] if labelled else []), *model.columns])
    digits = "%.17g" if model.type == "d" else "%.9g"
    try:
        with Path(words[0]).open(encoding="utf-8-sig", newline="") if words else sys.stdin as file:
            for row in read_csv(file, model):
                answer = list(_flat(predict([row])))
                label = [model.label(answer)] if labelled else []
                writer.writerow([*label, *(digits % value for value in answer)])
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
