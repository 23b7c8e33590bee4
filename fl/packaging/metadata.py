"""What every exported file carries besides the model: one JSON text under one key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fl.signature import Signature

KEY = "meadow"
"""Where a format has named metadata. One key, because safetensors writes several in no fixed order."""


def to_text(metadata: Mapping[str, Any]) -> str:
    """JSON with sorted keys: the same metadata, the same bytes."""
    return json.dumps(metadata, sort_keys=True, allow_nan=False)


def signature_of(metadata: Mapping[str, Any] | str) -> Signature:
    """The signature in metadata, or in their text."""
    values = json.loads(metadata) if isinstance(metadata, str) else metadata
    return Signature.from_dict(values["signature"])
