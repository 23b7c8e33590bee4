"""The registry's catalogue of data sets, for people: a line each, or everything of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def lines(registry: Path) -> dict[str, str]:
    """NAME@VERSION of each recorded data set, and what it is."""
    from fl.registry import Registry
    from fl.registry.datasets import SHOWN

    found = {}
    for entry in Registry(registry).datasets():
        users = entry["used_by"]
        made = f"made {len(users)} version{'s' * (len(users) != 1)}, the latest {users[-1]}"
        name = f"{entry['name']}@{entry['version'][:SHOWN]}"
        found[name] = f"{entry['examples']:,} examples, {entry['created'][:10]}, {made}"
    return found


def facts(wanted: str, registry: Path) -> dict[str, Any]:
    """Everything that is recorded of the data set called NAME@VERSION."""
    from fl.registry import Registry

    return Registry(registry).dataset(wanted)
