"""Tab completion of overrides: groups, their choices, and the settings of what is chosen, from the YAML files alone."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import typer

from experiments.choices import GROUPS, choices, defaults, summary, top_values, values


def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What ``incomplete`` may become, given the overrides before it, and a line about each.

    Bash makes three words of ``dataset=mn`` and replaces only the last; other shells replace the whole word.
    """
    before = [str(text) for text in context.params.get("overrides") or ()]
    if before and before[-1] == "=":
        return _values(before[-2] if len(before) > 1 else "", incomplete, whole_word=False)
    if before and "=" not in before[-1] and not incomplete:
        return _values(before[-1], "", whole_word=False)
    key, equals, typed = incomplete.partition("=")
    return _values(key, typed, whole_word=True) if equals else _keys(before, incomplete)


def _values(key: str, typed: str, *, whole_word: bool) -> list[tuple[str, str]]:
    """Choices of a group; ``typed`` may already have several, separated by commas, for a multirun."""
    earlier, comma, last = typed.rpartition(",")
    start = f"{key}={earlier}{comma}" if whole_word else f"{earlier}{comma}"
    names = choices(key) if key in GROUPS else []
    found = [name for name in names if name.startswith(last)]
    # Shells show what is said about a choice in one line.
    return [(f"{start}{name}", shorten(summary(key, name), 60)) for name in found]


def _keys(before: Sequence[str], incomplete: str) -> list[tuple[str, str]]:
    typed = " ".join(before).replace(" = ", "=").split()
    chosen = defaults() | dict(text.split("=", 1) for text in typed if text.partition("=")[0] in GROUPS)
    found = [*GROUPS, *top_values()]
    for group, choice in chosen.items():
        if choice in choices(group) and group != "experiment":
            found += [f"{group}.{key}" for key in values(group, choice) if key != "name"]
    return [(f"{key}=", "") for key in found if key.startswith(incomplete)]
