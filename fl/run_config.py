"""A run's settings as Flower's run config, and back: dotted names and scalar values.

What TOML lacks is written as JSON; so is whatever has a ``_target_``, whose keys are the target's own and change with
it as a whole, or dots in its keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fl.errors import BadInput


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested settings as flat ones.

    >>> flatten({"client": {"clip_norm": None, "batch_size": 10}, "model": {"_target_": "my.Net", "width": 3}})
    {'client.clip_norm': 'null', 'client.batch_size': 10, 'model': '{"_target_": "my.Net", "width": 3}'}
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and not any(key == "_target_" or "." in key for key in value):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and not _reads_as_json(value)):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = json.dumps(value)
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``. Raises BadInput by key for what begins like JSON and is none."""
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        *path, name = dotted.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[name] = _from_json(dotted, value) if isinstance(value, str) and _reads_as_json(value) else value
    return nested


def _from_json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(key=key, got=text, allowed=f"JSON ({error})") from error


def _reads_as_json(text: str) -> bool:
    return text == "null" or text[:1] in ("[", "{", '"')
