"""Terms of a table's preprocessing as derived fields of PMML, in which NaN is a missing value."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from fl.packaging.formulas import CONDITIONS, Formulas, Term

_FUNCTIONS = {
    "+": "+", "-": "-", "*": "*", "/": "/", "floor": "floor", "isnan": "isMissing", "where": "if",
    "not": "not", "and": "and", "or": "or",
    "<": "lessThan", ">": "greaterThan", ">=": "greaterOrEqual", "==": "equal",
}  # fmt: skip


def element(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    """A new last child. An underscore behind a name is dropped: ``from_``."""
    return ET.SubElement(parent, tag, {name.rstrip("_"): value for name, value in attributes.items()})


def derived_fields(parent: ET.Element, formulas: Formulas, names: Sequence[str]) -> list[str]:
    """Add a field a number that is computed, by the ``names`` of the terms; those of the outputs come back.

    Conditions stand where they are used.
    """
    for place, term in enumerate(formulas.terms):
        if term.operation not in CONDITIONS and term.operation != "input":
            field = element(parent, "DerivedField", name=names[place], optype="continuous", dataType="double")
            _expression(field, term, formulas.terms, names)
    return [names[place] for place in formulas.outputs]


def _expression(parent: ET.Element, term: Term, terms: Sequence[Term], names: Sequence[str]) -> None:
    if term.operation == "number":
        _number(parent, term.value)
        return
    function, arguments = _FUNCTIONS[term.operation], [terms[place] for place in term.arguments]
    compares = term.operation in ("<", ">", ">=", "==")
    if compares:
        # Of a missing value no comparison holds; and instead of an infinity there is the last number before it.
        function = _with_infinity(function, arguments[1])
        parent = element(parent, "Apply", function="and")
        for place in term.arguments:
            if terms[place].operation != "number":
                _operand(element(parent, "Apply", function="isNotMissing"), place, terms, names)
    apply = element(parent, "Apply", function=function)
    for place in term.arguments:
        _operand(apply, place, terms, names)


def _operand(parent: ET.Element, place: int, terms: Sequence[Term], names: Sequence[str]) -> None:
    term = terms[place]
    if term.operation in CONDITIONS:
        _expression(parent, term, terms, names)
    elif term.operation == "number":
        _number(parent, term.value)
    else:
        element(parent, "FieldRef", field=names[place])


def _with_infinity(function: str, other: Term) -> str:
    closed = {("lessThan", math.inf): "lessOrEqual", ("greaterThan", -math.inf): "greaterOrEqual"}
    return closed.get((function, other.value), function) if other.operation == "number" else function


def _number(parent: ET.Element, value: float) -> None:
    if math.isnan(value):
        element(parent, "Constant", dataType="double", missing="true")
        return
    finite = max(-sys.float_info.max, min(sys.float_info.max, value))
    element(parent, "Constant", dataType="double").text = repr(finite)
