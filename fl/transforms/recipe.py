"""A recipe: fitted steps in their order. One record for a partition, for one request and for a model.

    offline   ``apply``: a partition's rows at once
    online    ``apply_one``: one example, by name
    a model   fl/models/recipe_preprocessing.py: ``compute`` on tensors, so that every export holds it

All three run ``compute``: an input is rounded to ``dtype`` first, as a model gets it; all else is float64; the features
are rounded to ``dtype`` at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.transforms.arithmetic import NUMPY, Arithmetic, Column
from fl.transforms.steps import STEPS, Columns, RowStep, Step, step_name


@dataclass(frozen=True)
class Recipe:
    """``inputs``: names of the table's columns. ``dtype``: of inputs and features, "float32" or "float64"."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    dtype: str = "float32"

    def compute(self, columns: Sequence[Column], a: Arithmetic) -> Columns:
        """Float64 input columns -> features by name."""
        found = {name: a.known(x) for name, x in zip(self.inputs, columns, strict=True)}
        for step in self.steps:
            found = found if isinstance(step, RowStep) else step.apply(found, a)
        return found

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of what comes out, in order."""
        return tuple(self.compute(list(np.zeros((len(self.inputs), 1))), NUMPY))

    @property
    def drops_rows(self) -> bool:
        """Whether some rows are not trained on."""
        return any(isinstance(step, RowStep) for step in self.steps)

    def values(self, x: Array) -> Array:
        """Rows (n, inputs) -> features (n, features), float64: what later steps are fitted on."""
        with np.errstate(all="ignore"):  # a value out of range becomes a missing one, here as in a model
            columns = list(x.astype(self.dtype).astype(np.float64).T)
            return np.stack(list(self.compute(columns, NUMPY).values()), axis=1)

    def apply(self, x: Array) -> Array:
        """Rows (n, inputs) -> features (n, features) of ``dtype``."""
        with np.errstate(all="ignore"):
            return self.values(x).astype(self.dtype)

    def apply_one(self, row: Mapping[str, float | None]) -> dict[str, float]:
        """One example by the names of its columns -> its features by name. None, or no value, is a missing one."""
        if unknown := [name for name in row if name not in self.inputs]:
            raise BadInput(key="features", got=unknown[0], allowed=", ".join(self.inputs))
        given = [math.nan if (value := row.get(name)) is None else float(value) for name in self.inputs]
        return dict(zip(self.features, self.apply(np.array([given]))[0].tolist(), strict=True))

    def kept(self, x: Array, label: Array) -> Array:
        """The numbers of the rows (n, inputs) that are trained on, ascending."""
        rows = np.arange(len(x))
        for i, step in enumerate(self.steps):
            if isinstance(step, RowStep):
                before = Recipe(self.inputs, self.steps[:i], self.dtype)
                columns = dict(zip(before.features, before.values(x[rows]).T, strict=True))
                rows = rows[step.keep(columns, label[rows])]
        return rows

    def to_json(self) -> str:
        """As text; numbers keep every bit."""
        steps = [{"step": step_name(step), **asdict(step)} for step in self.steps]
        return json.dumps({"inputs": self.inputs, "dtype": self.dtype, "steps": steps})

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The inverse of ``to_json``; BadInput where it is none."""
        try:
            values = json.loads(text)
            steps = tuple(_step(step) for step in values["steps"])
            return cls(tuple(values["inputs"]), steps, str(values["dtype"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(key="recipe", got=f"{error!r}", allowed="a recipe as it was written") from error


def _step(values: Mapping[str, Any]) -> Step:
    kind = STEPS[values["step"]]
    return kind(**{f.name: _frozen(values[f.name]) for f in fields(kind)})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
