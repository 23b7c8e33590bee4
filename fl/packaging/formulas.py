"""What a table model computes before its first layer, as a list of terms that any language can write down.

The terms are read off the code itself: the preprocessing runs once on symbols instead of numbers. So whatever a recipe
can say, every format says too, and there is no second version of it that could differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fl.transforms.arithmetic import Arithmetic, Column

OPERATIONS = (
    "input",
    "number",
    "+",
    "-",
    "*",
    "/",
    "floor",
    "<",
    ">",
    ">=",
    "isnan",
    "==",
    "not",
    "and",
    "or",
    "where",
)
"""``input`` is a column, ``where`` chooses by its first argument; the comparisons with NaN do not hold."""

CONDITIONS = frozenset({"<", ">", ">=", "==", "isnan", "not", "and", "or"})
"""The operations that give true or false; all others give a float64."""


@dataclass(frozen=True)
class Term:
    """One operation. ``arguments`` are places of earlier terms; ``value`` is a number, or the place of an input."""

    operation: str
    arguments: tuple[int, ...] = ()
    value: float = 0.0


@dataclass(frozen=True)
class Formulas:
    """``outputs`` are places in ``terms``. All is float64; only what goes in and comes out has the model's dtype."""

    inputs: int
    terms: tuple[Term, ...]
    outputs: tuple[int, ...]


def trace(compute: Callable[[Sequence[Column], Arithmetic], Sequence[Column]], *, inputs: int) -> Formulas:
    """The terms of ``compute``, which takes ``inputs`` columns; each once, and only those that an output needs.

    >>> trace(lambda columns, a: [columns[0] * columns[0] + a.number(1.0)], inputs=1).terms[1:]
    (Term(operation='*', arguments=(0, 0), value=0.0), Term(operation='number', arguments=(), value=1.0), \
Term(operation='+', arguments=(1, 2), value=0.0))
    """
    page = _Page()
    columns = [page.term("input", value=float(i)) for i in range(inputs)]
    outputs = [symbol.place for symbol in compute(columns, page.arithmetic())]
    needed = set(outputs)
    for place in range(len(page.terms) - 1, -1, -1):
        if place in needed:
            needed.update(page.terms[place].arguments)
    kept = sorted(needed)
    new = {place: i for i, place in enumerate(kept)}
    terms = [page.terms[place] for place in kept]
    moved = tuple(Term(t.operation, tuple(new[p] for p in t.arguments), t.value) for t in terms)
    return Formulas(inputs, moved, tuple(new[p] for p in outputs))


class _Page:
    """Terms as they are written down; an equal one is the same one."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def term(self, operation: str, *arguments: _Symbol, value: float = 0.0) -> _Symbol:
        places = tuple(symbol.place for symbol in arguments)
        key = (operation, places, value.hex())  # 0 and -0 are two numbers, NaN is one
        if key not in self._places:
            self._places[key] = len(self.terms)
            self.terms.append(Term(operation, places, value))
        return _Symbol(self, self._places[key])

    def arithmetic(self) -> Arithmetic:
        return Arithmetic(
            where=lambda condition, x, y: self.term("where", condition, x, y),
            isnan=lambda x: self.term("isnan", x),
            floor=lambda x: self.term("floor", x),
            number=lambda value: self.term("number", value=math.nan if math.isnan(value) else float(value)),
        )


class _Symbol:
    """Stands for a column, and writes down what is done with it."""

    __hash__ = None  # type: ignore[assignment]  # equality is a term, too

    def __init__(self, page: _Page, place: int) -> None:
        self.page, self.place = page, place

    def __add__(self, other: _Symbol) -> _Symbol:
        return self.page.term("+", self, other)

    def __sub__(self, other: _Symbol) -> _Symbol:
        return self.page.term("-", self, other)

    def __mul__(self, other: _Symbol) -> _Symbol:
        return self.page.term("*", self, other)

    def __truediv__(self, other: _Symbol) -> _Symbol:
        return self.page.term("/", self, other)

    def __lt__(self, other: _Symbol) -> _Symbol:
        return self.page.term("<", self, other)

    def __gt__(self, other: _Symbol) -> _Symbol:
        return self.page.term(">", self, other)

    def __ge__(self, other: _Symbol) -> _Symbol:
        return self.page.term(">=", self, other)

    def __eq__(self, other: _Symbol) -> _Symbol:  # type: ignore[override]
        return self.page.term("==", self, other)

    def __and__(self, other: _Symbol) -> _Symbol:
        return self.page.term("and", self, other)

    def __or__(self, other: _Symbol) -> _Symbol:
        return self.page.term("or", self, other)

    def __invert__(self) -> _Symbol:
        return self.page.term("not", self)

    def __bool__(self) -> bool:
        raise TypeError("a symbol is neither true nor false: what is computed may not depend on one example")
