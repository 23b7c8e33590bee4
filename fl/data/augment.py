"""Examples varied by their own client before it trains on them, as many as before; drawn anew in each round.

    - flip:  {share: 0.5}                    images, left to right
    - shift: {pixels: 2}                     images, by so many at the most either way; zeros come in
    - noise: {deviation: 0.1, columns: [a]}  Gaussian; of the full range (uint8 images), or of a column's own deviation
    - mixup: {alpha: 0.2, columns: [a, b]}   each example with another one (H. Zhang et al., "mixup", 2018)

``columns`` of a table are all that there are, unless some are named: a code is not to be varied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fl.data.dataset import Examples
from fl.data.noise import add_noise
from fl.data.written_steps import Entry, read_steps
from fl.errors import BadInput
from fl.parameters import Array
from fl.signature import Signature

KEY = "client.augment"


@dataclass(frozen=True)
class Varying:
    """What a step works on: ``examples``, described by ``signature``; ``draw`` is the step's own; ``key`` too."""

    examples: Examples
    signature: Signature
    draw: np.random.Generator
    key: str

    def images(self) -> Array:
        """The inputs (n, channels, h, w), or BadInput for what is none."""
        if len(self.signature.input_shape) != 3:
            raise BadInput(key=self.key, got=f"inputs of shape {self.signature.input_shape}", allowed="images")
        return self.examples.x

    def chosen(self, columns: Sequence[str] | None) -> Array | None:
        """A mask (columns,) of a table's, or None for all inputs."""
        if columns is None:
            return None
        if len(self.signature.input_shape) != 1:
            raise BadInput(key=f"{self.key}.columns", got=list(columns), allowed="nothing: this is no table")
        names = self.signature.input_names
        for name in columns:
            if name not in names:
                raise BadInput(key=f"{self.key}.columns", got=name, allowed=", ".join(names))
        return np.isin(names, list(columns))

    def made(self, x: Array, columns: Sequence[str] | None = None, y: Array | None = None) -> Examples:
        """Examples with inputs ``x`` in the ``columns``, and targets ``y``."""
        mask = self.chosen(columns)
        before = self.examples
        return Examples(x if mask is None else np.where(mask, x, before.x), before.y if y is None else y)

    def within(self, option: str, value: float, low: float, high: float) -> None:
        """BadInput unless ``value`` lies between the bounds."""
        if not low <= value <= high:
            raise BadInput(key=f"{self.key}.{option}", got=value, allowed=f"a number from {low:g} to {high:g}")


def _flip(v: Varying, *, share: float = 0.5) -> Examples:
    x = v.images()
    v.within("share", share, 0, 1)
    chosen = v.draw.random(len(x)) < share
    return v.made(np.where(chosen[:, None, None, None], x[..., ::-1], x))


def _shift(v: Varying, *, pixels: int) -> Examples:
    x = v.images()
    height, width = v.signature.input_shape[-2:]
    v.within("pixels", pixels, 1, min(height, width) - 1)
    padded = np.pad(x, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    down, right = v.draw.integers(0, 2 * pixels + 1, (2, len(x), 1))
    rows, columns = down + np.arange(height), right + np.arange(width)
    n, channels = np.arange(len(x))[:, None, None, None], np.arange(x.shape[1])[None, :, None, None]
    return v.made(padded[n, channels, rows[:, None, :, None], columns[:, None, None, :]])


def _noise(v: Varying, *, deviation: float, columns: Sequence[str] | None = None) -> Examples:
    v.within("deviation", deviation, 0, 1e3)
    return v.made(add_noise(v.examples.x, deviation, v.draw), columns)


def _mixup(v: Varying, *, alpha: float, columns: Sequence[str] | None = None) -> Examples:
    """x = l x_i + (1 - l) x_j with l from Beta(alpha, alpha), and a number y likewise. A class is that of i with
    chance l, else that of j: the loss is then, on average over the draws, l times the one plus 1 - l times the other.
    A value that either example lacks stays as it is.
    """
    v.within("alpha", alpha, 1e-3, 1e3)
    x, y = v.examples.x, v.examples.y
    other = v.draw.permutation(len(x))
    share = v.draw.beta(alpha, alpha, len(x))
    first = v.draw.random(len(x)) < share
    wide = share.reshape(-1, *(1,) * (x.ndim - 1))
    mixed = wide * x + (1 - wide) * x[other]
    mixed = np.where(np.isnan(mixed), x, mixed)
    mixed = (np.rint(mixed) if x.dtype.kind in "iu" else mixed).astype(x.dtype)
    if v.signature.task == "regression":
        return v.made(mixed, columns, (share * y + (1 - share) * y[other]).astype(y.dtype))
    return v.made(mixed, columns, np.where(first, y, y[other]))


Vary: TypeAlias = Callable[..., Examples]
STEPS: Mapping[str, Vary] = {"flip": _flip, "shift": _shift, "noise": _noise, "mixup": _mixup}


def read_augment(written: object) -> list[Entry]:
    """The steps that settings ask for, or none; BadInput for what is none. Checked as far as can be without data."""
    return [] if written is None else read_steps(written, STEPS, key=KEY, example="- shift: {pixels: 2}")


def augment(
    examples: Examples,
    steps: Sequence[tuple[str, Mapping[str, Any]]],
    signature: Signature,
    draws: Callable[[int], np.random.Generator],
) -> Examples:
    """``examples`` after all steps; ``draws`` gives each step, by its place, the generator of its own."""
    for i, (name, options) in enumerate(steps):
        examples = STEPS[name](Varying(examples, signature, draws(i), f"{KEY}[{i}].{name}"), **options)
    return examples
