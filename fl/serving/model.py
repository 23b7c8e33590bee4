"""A loaded version: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fl.parameters import Array
from fl.signature import Signature


class Unanswerable(Exception):
    """What was asked cannot be answered; the text says why, to whoever asked."""


@dataclass(frozen=True)
class Model:
    """A version that can be asked.

    version    its name, RUN:ROUND, or what a bundle is known by
    hash       of the version: the same hash, the same answers
    signature  what goes in and comes out
    answer     (N, *input_shape) in input_dtype, scaled, to the raw outputs (N, ...); called by one thread at a time
    steady     how long it answers depends on N alone, and it cannot hang: an ONNX file, and no code of anybody's
    """

    version: str
    hash: str
    signature: Signature
    answer: Callable[[Array], Array]
    steady: bool = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one example's answer."""
        classes = (self.signature.num_outputs,)
        return (*self.signature.input_shape, *classes) if self.signature.task == "next_token" else classes

    def inputs(self, values: Array, *, stored: bool, first: int = 0) -> Array:
        """``values`` (N, *input_shape) as the model takes them. ``stored``: as the data hold them, not yet scaled.

        ``first`` is the number of the first row, for errors.

        Raises Unanswerable for what the model cannot be asked: another shape, tokens that there are not, an infinity,
        or a NaN where the model knows no missing values.
        """
        shape = self.signature.input_shape
        if values.shape[1:] != shape:
            raise Unanswerable(f"examples have the shape {list(values.shape[1:])}, the model takes {list(shape)}")
        if not len(values):
            raise Unanswerable("there is no example")
        if self.signature.input_dtype == "int64":
            return self._tokens(values)
        with np.errstate(over="ignore"):
            found = values.astype(self.signature.input_dtype, copy=False)
        if stored and self.signature.input_scale != 1.0:
            found = found * found.dtype.type(self.signature.input_scale)
        if np.isfinite(found).all():
            return found
        strange = np.isinf(found) if self.takes_missing else ~np.isfinite(found)
        if strange.any():
            row = int(np.flatnonzero(strange.reshape(len(found), -1).any(axis=1))[0])
            allowed = "numbers, and NaN for a missing one" if self.takes_missing else "numbers"
            where = f" in column {self._column(strange[row])}" if strange.ndim == 2 else ""
            raise Unanswerable(f"row {first + row} holds {found[row][strange[row]].flat[0]}{where}, allowed: {allowed}")
        return found

    def _column(self, marked: Array) -> str:
        """The name of the first marked column of a table."""
        return self.signature.input_names[int(np.flatnonzero(marked)[0])]

    @property
    def takes_missing(self) -> bool:
        """Whether the model fills missing values by itself."""
        return bool(self.signature.medians or self.signature.recipe)

    def _tokens(self, values: Array) -> Array:
        if values.dtype.kind not in "iu":
            raise Unanswerable(f"tokens are whole numbers, not {values.dtype}")
        most = self.signature.num_outputs
        if (values < 0).any() or (values >= most).any():
            raise Unanswerable(f"tokens are whole numbers from 0, below {most}")
        return values.astype(np.int64)
