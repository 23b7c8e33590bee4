"""Evidence: the statistics that a decision about a version rests on, a JSON file a name, kept beside the version.

A version never changes; what is known of it grows. Evidence of the same name takes the place of the older.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.errors import BadInput
from fl.files import read_json, write_json
from fl.registry.layout import evidence_folder, locked, make_folder
from fl.registry.versions import Version

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_name(name: str) -> None:
    """Raise BadInput for what evidence cannot be called."""
    if not _NAME.fullmatch(name):
        raise BadInput(key="evidence", got=repr(name), allowed="a name of small letters, digits and _")


def attach(folder: Path, version: Version, name: str, evidence: Mapping[str, Any]) -> None:
    """Keep ``evidence``, JSON values, under ``name``; see ``Registry.attach``."""
    check_name(name)
    if not version.path.is_file():
        raise BadInput(key="version", got=version.name, allowed=f"a version of the registry {folder}")
    with locked(folder):
        place = evidence_folder(folder, version.hash)
        make_folder(place)
        write_json(place / f"{name}.json", evidence, site="registry.evidence")


def evidence_paths(folder: Path, version: Version) -> list[Path]:
    """The files of a version's evidence, by name."""
    return sorted(evidence_folder(folder, version.hash).glob("[a-z]*.json"))


def evidence(folder: Path, version: Version) -> dict[str, dict[str, Any]]:
    """Everything that is attached to a version, by name. Raises CorruptFile."""
    return {path.stem: read_json(path) for path in evidence_paths(folder, version)}
