"""A model as a short list of operations: what the small formats are printed from. Of one example, not of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fl.packaging.formulas import Formulas
from fl.parameters import Array
from fl.signature import Signature

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """``weight`` (m, n) times the last axis, plus ``bias`` (m,)."""

    weight: Array
    bias: Array

    def shape(self, given: Shape) -> Shape:
        return (*given[:-1], len(self.bias))


@dataclass(frozen=True)
class Activation:
    """A function of each number: "relu", "tanh" or "sigmoid"."""

    function: str

    def shape(self, given: Shape) -> Shape:
        return given


@dataclass(frozen=True)
class Flatten:
    """One axis of all."""

    def shape(self, given: Shape) -> Shape:
        return (math.prod(given),)


@dataclass(frozen=True)
class Convolution:
    """``weight`` (m, n, height, width) slid over (n, H, W) with zeros around it, plus ``bias`` (m,)."""

    weight: Array
    bias: Array
    stride: tuple[int, int]
    padding: tuple[int, int]

    def shape(self, given: Shape) -> Shape:
        return (len(self.bias), *_slid(given, self.weight.shape[2:], self.stride, self.padding))


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window of (n, H, W); what no whole window covers is left out."""

    window: tuple[int, int]
    stride: tuple[int, int]

    def shape(self, given: Shape) -> Shape:
        return (given[0], *_slid(given, self.window, self.stride, (0, 0)))


@dataclass(frozen=True)
class Embedding:
    """The row of ``table`` (tokens, width) of each token."""

    table: Array

    def shape(self, given: Shape) -> Shape:
        return (*given, self.table.shape[1])


@dataclass(frozen=True)
class Lstm:
    """One layer over (T, n), from a state of zeros; its output at every position, (T, h).

    ``from_input`` (4h, n), ``from_state`` (4h, h) and ``bias`` (4h,) hold the gates input, forget, cell, output.
    """

    from_input: Array
    from_state: Array
    bias: Array

    @property
    def width(self) -> int:
        """h."""
        return int(self.from_state.shape[1])

    def shape(self, given: Shape) -> Shape:
        return (given[0], self.width)


@dataclass(frozen=True)
class Unit:
    """Times ``factor``, plus ``shift``: back into the unit of a regression's target."""

    factor: float
    shift: float

    def shape(self, given: Shape) -> Shape:
        return given


@dataclass(frozen=True)
class Features:
    """Columns -> features; rounded to the model's dtype at the end."""

    formulas: Formulas

    def shape(self, given: Shape) -> Shape:
        return (len(self.formulas.outputs),)


@dataclass(frozen=True)
class Trees:
    """From each of ``roots`` down to a leaf, which is its own child; the leaves' numbers added up, and to ``base``.

    An input, as float32, goes left where it is below ``threshold``, or missing and ``default_left``. ``leaf`` is
    (nodes, k). ``zero_first``: a 0 comes before the sum, the logit of the first of two classes.
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    default_left: Array
    leaf: Array
    base: float
    zero_first: bool

    def shape(self, given: Shape) -> Shape:
        return (self.leaf.shape[1] + self.zero_first,)


Operation: TypeAlias = (
    Affine | Activation | Flatten | Convolution | MaxPool | Embedding | Lstm | Unit | Features | Trees
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """``operations`` in order. ``shapes``: of what each takes, and of the answer; one more than there are operations.

    An input is rounded to the signature's input_dtype first.
    """

    signature: Signature
    operations: tuple[Operation, ...]
    shapes: tuple[Shape, ...]

    @property
    def inputs(self) -> int:
        """Numbers in an example."""
        return math.prod(self.shapes[0])

    @property
    def outputs(self) -> int:
        """Numbers in an answer."""
        return math.prod(self.shapes[-1])

    @property
    def wide(self) -> bool:
        """Whether the model computes in float64."""
        return self.signature.input_dtype == "float64"

    @property
    def steps(self) -> list[tuple[Operation, Shape, Shape]]:
        """Each operation with the shape of what it takes and of what it makes."""
        return list(zip(self.operations, self.shapes[:-1], self.shapes[1:], strict=True))

    @property
    def multiplications(self) -> int:
        """An example, about: what an answer costs."""
        return sum(_multiplications(*step) for step in self.steps)

    def label_of(self, place: int) -> str:
        """The name of a class or token."""
        return self.signature.class_names[place] if self.signature.class_names else str(place)


def _multiplications(operation: Operation, given: Shape, made: Shape) -> int:
    match operation:
        case Affine(weight=weight):
            return math.prod(given[:-1]) * weight.size
        case Convolution(weight=weight):
            return math.prod(made[1:]) * weight.size
        case Lstm(from_input=first, from_state=second):
            return given[0] * (first.size + second.size)
        case Features(formulas=formulas):
            return len(formulas.terms)
        case Trees(roots=roots):
            return 8 * len(roots)
        case _:
            return math.prod(made)


def _slid(given: Shape, window: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Shape:
    sides = zip(given[1:], window, stride, padding, strict=True)
    return tuple((side + 2 * p - w) // s + 1 for side, w, s, p in sides)
