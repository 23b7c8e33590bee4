"""Values as JSON holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

_STRICT = json.JSONEncoder(allow_nan=False, check_circular=False)


def as_json(value: Any) -> Any:
    """What a reader of ``value`` as JSON will find: keys are texts, sequences lists.

    By the C encoder and decoder, ten times as fast as a walk through it. Raises TypeError or ValueError for what JSON
    has no word for: an array, an infinity.
    """
    return json.loads(_STRICT.encode(value))


def plain(value: Any) -> Any:
    """``as_json`` of anything: paths are text, NumPy's numbers and arrays Python's, what is no finite number null.

    >>> plain({"a": np.float32(1), "b": (math.inf, PurePath("c"))})
    {'a': 1.0, 'b': [None, 'c']}
    """
    try:
        return as_json(value)
    except (TypeError, ValueError):
        return _walked(value)


def _walked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _walked(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_walked(part) for part in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
