"""What can be chosen on the command line, read from conf/ without Hydra: for help, completion and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import conf

FOLDER = Path(conf.__file__).parent
GROUPS = ("dataset", "partition", "model", "algorithm", "strategy", "client", "server", "engine", "experiment")
LIFECYCLE_GROUPS = ("business",)
"""Those that only `fl lifecycle` takes besides."""


def choices(group: str) -> list[str]:
    """The names that ``group=NAME`` takes, sorted."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def summary(group: str, choice: str) -> str:
    """What a choice is: the comment that its file starts with."""
    lines = (FOLDER / group / f"{choice}.yaml").read_text().splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and "@package" not in line), "")


def defaults() -> dict[str, str]:
    """Group -> what is chosen unless something else is said; groups without a choice are left out."""
    listed = _read(FOLDER / "simulate.yaml")["defaults"]
    entries = {key: value for entry in listed if isinstance(entry, dict) for key, value in entry.items()}
    return {group: entries[group] for group in GROUPS if entries.get(group)}


def values(group: str, choice: str) -> dict[str, Any]:
    """The settings of a choice, dotted and flat, with those of the choices that it builds on."""
    content = _read(FOLDER / group / f"{choice}.yaml")
    inherited: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            inherited |= values(group, entry)
    return inherited | flat(content)


def top_values() -> dict[str, Any]:
    """The settings that belong to no group, with their defaults."""
    content = _read(FOLDER / "simulate.yaml")
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


def meanings(kind: type, prefix: str = "") -> dict[str, str]:
    """Dotted key -> what it means, for a class of conf/schema.py and the classes inside it."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner, meaning = get_args(hint)[:2]
        found[prefix + name] = meaning
        if is_dataclass(inner):
            found |= meanings(inner, f"{prefix}{name}.")  # type: ignore[arg-type]  # a class, not an instance
    return found


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys.

    >>> flat({"client": {"schedule": {"name": "constant"}}, "seed": 1})
    {'client.schedule.name': 'constant', 'seed': 1}
    """
    out: dict[str, Any] = {}
    for key, value in nested.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return out


def one_of(names: Sequence[str], wanted: str) -> str:
    """Words for what is allowed: all names, and which of them ``wanted`` resembles.

    >>> one_of(["mnist", "csv"], "mnits")
    'one of mnist, csv; the closest is mnist'
    """
    listed = f"one of {', '.join(names)}"
    close = closest(names, wanted)
    return f"{listed}; the closest is {close[0]}" if close else listed


def closest(names: Sequence[str], wanted: str, *, cutoff: float = 0.6) -> list[str]:
    """Up to three names that ``wanted`` resembles by ``cutoff`` (0 to 1) or more, the most similar first."""
    return get_close_matches(wanted, names, n=3, cutoff=cutoff)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content
