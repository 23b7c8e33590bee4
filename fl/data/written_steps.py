"""Steps as people write them in YAML, a list of one name with its options each: checked without any data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fl.errors import BadInput

Entry: TypeAlias = tuple[str, Mapping[str, Any]]

KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("columns", "fields"), ((str,), "a list of names")),
    **dict.fromkeys(("categories", "edges"), ((int, float), "a list of numbers")),
    **dict.fromkeys(
        ("value", "width", "low", "high", "share", "deviation", "alpha"),
        ((int, float), "a number"),
    ),
    **dict.fromkeys(("most", "at_least", "bins", "pixels"), ((int,), "a whole number")),
    **dict.fromkeys(("by", "action", "unit", "into", "over"), ((str,), "a name")),
    "indicator": ((bool,), "true or false"),
}
"""Of what type an option is, or the members of its list."""


def read_steps(written: object, functions: Mapping[str, Callable[..., Any]], *, key: str, example: str) -> list[Entry]:
    """The entries of ``written``. A step's options are the keyword-only parameters of its function.

    Raises BadInput that names the step and the option below ``key``; ``example`` is what a list looks like.
    """
    if not isinstance(written, Sequence) or isinstance(written, str) or not written:
        raise BadInput(key=key, got=written, allowed=f"a list of steps, such as {example}")
    entries = []
    for i, entry in enumerate(written):
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise BadInput(key=f"{key}[{i}]", got=entry, allowed="one step with its options")
        ((name, options),) = entry.items()
        if name not in functions:
            raise BadInput(key=f"{key}[{i}]", got=name, allowed=", ".join(functions))
        options = {} if options is None else options
        _check_options(options, functions[name], f"{key}[{i}].{name}")
        entries.append((str(name), options))
    return entries


def _check_options(options: object, function: Callable[..., Any], key: str) -> None:
    takes = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    allowed = ", ".join(p.name for p in takes) or "no options"
    if not isinstance(options, Mapping):
        raise BadInput(key=key, got=options, allowed=f"options by name: {allowed}")
    for option in options:
        if option not in {p.name for p in takes}:
            raise BadInput(key=key, got=option, allowed=allowed)
    for p in takes:
        if p.default is p.empty and p.name not in options:
            raise BadInput(key=key, got=f"no {p.name}", allowed=f"a value for {p.name}")
    for option, value in options.items():
        kind, what = KINDS[option]
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if (values is value) != what.startswith("a list") or not all(type(v) in kind for v in values):
            raise BadInput(key=f"{key}.{option}", got=value, allowed=what)
