"""The options of a release policy: each with its default, what is allowed, and a check before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fl.errors import BadInput


@dataclass(frozen=True)
class Option:
    """``fits`` holds for a value that is ``allowed``, in words; ``means`` says what the option does."""

    default: Any
    means: str
    allowed: str
    fits: Callable[[Any], bool]


Options: TypeAlias = Mapping[str, Option]


def number(default: float | None, means: str, *, low: float, high: float, strict: bool = False) -> Option:
    """A number from ``low`` to ``high``, both left out if ``strict``; null too where that is the default."""
    words = f"a number {'between' if strict else 'from'} {low:g} {'and' if strict else 'to'} {high:g}"

    def fits(value: Any) -> bool:
        if value is None:
            return default is None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return low < value < high if strict else low <= value <= high

    return Option(default, means, words + (", or null" if default is None else ""), fits)


def integer(default: int, means: str, *, low: int, high: int = 10**9) -> Option:
    """An integer from ``low`` to ``high``."""

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Option(default, means, f"an integer from {low} to {high}", fits)


def one_of(default: Any, means: str, *choices: Any) -> Option:
    """One of ``choices``, by type too."""
    words = ", ".join("null" if c is None else str(c).lower() if isinstance(c, bool) else str(c) for c in choices)
    return Option(default, means, words, lambda value: any(value == c and type(value) is type(c) for c in choices))


def text(default: str, means: str, *, allowed: str = "a text") -> Option:
    """Any text."""
    return Option(default, means, allowed, lambda value: isinstance(value, str))


def checked(options: Options, given: Mapping[str, Any], *, policy: str) -> dict[str, Any]:
    """Every option: as given, or its default. Raises BadInput for one that is unknown, or not allowed."""
    for name in given:
        if name not in options:
            raise BadInput(key="--option", got=name, allowed=f"for {policy}: {', '.join(options)}")
    whole = {name: given.get(name, option.default) for name, option in options.items()}
    for name, option in options.items():
        if not option.fits(whole[name]):
            raise BadInput(key=f"--option {name}", got=whole[name], allowed=option.allowed)
    return whole
