"""An event of the stream as numbers, or what is wrong with it: its columns, their ranges, its label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.serving.model import Model, Unanswerable
from fl.serving.row_source import Row
from fl.serving.rows import label_names, values_of

SLACK = 2.0
"""How far a value may lie outside what the reference holds, in widths of that."""


@dataclass(frozen=True)
class Event:
    """``inputs`` (*input_shape) as stored, before any scale; ``target`` a class's number, or a number."""

    number: int
    inputs: Array
    target: float


@dataclass(frozen=True)
class Refused:
    """An event that is not learned from, and why. ``cells`` as they came."""

    number: int
    reason: str
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Ranges:
    """``low`` and ``high`` (*input_shape): outside of them a value is not believed. NaN: nothing is known of it."""

    low: Array
    high: Array

    @classmethod
    def of(cls, examples: Array) -> Ranges:
        """What reference examples (N, *input_shape) hold, and SLACK widths on either side."""
        known = np.isfinite(examples)
        low = np.where(known, examples, np.inf).min(axis=0)
        high = np.where(known, examples, -np.inf).max(axis=0)
        width = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
        nothing = ~known.any(axis=0)
        return cls(np.where(nothing, np.nan, low - SLACK * width), np.where(nothing, np.nan, high + SLACK * width))

    def first_outside(self, inputs: Array) -> int | None:
        """The place of the first value that is not believed, of ``inputs`` (*input_shape) laid flat; None if none."""
        outside = np.flatnonzero((inputs < self.low) | (inputs > self.high))
        return int(outside[0]) if len(outside) else None


@dataclass(frozen=True)
class Reader:
    """Makes events of rows. ``label`` is the column of what the model should have said."""

    model: Model
    ranges: Ranges
    label: str

    def __post_init__(self) -> None:
        if self.model.signature.task == "next_token":
            raise BadInput(key="VERSION", got="a model of texts", allowed="one that tells classes or numbers")

    def read(self, row: Row) -> Event | Refused:
        """The event, or the reason why it is none."""
        if row.trouble:
            return Refused(row.number, row.trouble, row.cells)
        cells = dict(row.cells)
        target = self._target(cells.pop(self.label, None))
        if isinstance(target, str):
            return Refused(row.number, target, row.cells)
        names = self.model.signature.feature_names if len(self.model.signature.input_shape) == 1 else ()
        given: Any = {name: cells.get(name) for name in names} if names else list(cells.values())
        if absent := [name for name in names if name not in cells]:
            return Refused(row.number, f"there is no column {absent[0]!r}", row.cells)
        try:
            (inputs,) = values_of([given], self.model)
            self.model.inputs(inputs[None], stored=True)
        except Unanswerable as error:
            return Refused(row.number, str(error).removeprefix("row 0: ").removeprefix("row 0, "), row.cells)
        place = self.ranges.first_outside(inputs)
        if place is not None:
            low, high = (float(bound.flat[place]) for bound in (self.ranges.low, self.ranges.high))
            column = names[place] if names else place
            reason = f"column {column}: {inputs.flat[place]:g} is outside {low:g} to {high:g}"
            return Refused(row.number, reason, row.cells)
        return Event(row.number, inputs, target)

    def _target(self, given: Any) -> float | str:
        """The label as a number, or what is wrong with it."""
        signature = self.model.signature
        if signature.task == "regression":
            if not isinstance(given, int | float) or not math.isfinite(given):
                return f"label {self.label}: {given!r} is no number"
            away = abs(given - signature.target_mean) / signature.target_std
            return float(given) if away <= 10.0 else f"label {self.label}: {given:g} is {away:.0f} deviations away"
        names = label_names(signature)
        if names == ["False", "True"] and given in (0, 1):  # as rows have what is true or false
            return float(given)
        if str(given) in names:
            return float(names.index(str(given)))
        told = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        return f"label {self.label}: {given!r} is none of {told}"
