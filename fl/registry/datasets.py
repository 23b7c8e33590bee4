"""The catalogue of data sets: what versions were made from, a JSON file a data set and content; and their evidence.

A data set's version is the fingerprint of its arrays: the same content is the same version, wherever it was read.
What was found out about it, its profile or the rules it was held against, is kept beside it, a JSON file a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.errors import BadInput
from fl.files import read_json, write_json
from fl.registry.evidence import check_name
from fl.registry.layout import datasets_folder, locked, make_folder, now

SHOWN = 12
"""Digits of a version where people see it."""


def record_dataset(
    folder: Path, name: str, fingerprint: str, facts: Mapping[str, Any], *, used_by: str | None = None
) -> str:
    """Record that the version ``used_by`` was made from a data set; returns NAME@VERSION. See ``Registry``."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "data"
    with locked(folder):
        place = datasets_folder(folder) / clean
        path = place / f"{fingerprint}.json"
        if path.is_file():
            known = read_json(path)
        else:
            earlier = [entry for entry in datasets(folder) if entry["name"] == clean]
            known = {"created": now(), "parent": earlier[-1]["version"] if earlier else None, "used_by": []}
        users = [user for user in known["used_by"] if user != used_by]
        users += [] if used_by is None else [used_by]
        entry = {**facts, **known, "name": clean, "version": fingerprint, "used_by": users}
        make_folder(place)
        write_json(path, entry, site="registry.dataset")
    return f"{clean}@{fingerprint[:SHOWN]}"


def datasets(folder: Path) -> list[dict[str, Any]]:
    """Every recorded data set, oldest first. Raises CorruptFile."""
    found = [read_json(path) for path in datasets_folder(folder).glob("*/*.json")]
    return sorted(found, key=lambda entry: (entry["created"], entry["name"]))


def dataset(folder: Path, wanted: str) -> dict[str, Any]:
    """The one called NAME@VERSION, VERSION being the first digits of a version, or nothing for the newest of NAME."""
    name, _, start = wanted.partition("@")
    every = datasets(folder)
    found = [entry for entry in every if entry["name"] == name and entry["version"].startswith(start)]
    if not found or (start and len(found) > 1):
        known = ", ".join(f"{e['name']}@{e['version'][:SHOWN]}" for e in reversed(every[-8:])) or "none is recorded yet"
        raise BadInput(key="data set", got=wanted, allowed=f"one data set of {folder}: {known}")
    return found[-1]


def attach(folder: Path, wanted: str, name: str, evidence: Mapping[str, Any]) -> None:
    """Keep ``evidence``, JSON values, of the data set called ``wanted``; see ``Registry.attach_to_dataset``."""
    check_name(name)
    entry = dataset(folder, wanted)
    with locked(folder):
        place = _evidence_folder(folder, entry)
        make_folder(place)
        write_json(place / f"{name}.json", evidence, site="registry.evidence")


def evidence(folder: Path, wanted: str) -> dict[str, dict[str, Any]]:
    """Everything that is attached to a data set, by name. Raises CorruptFile."""
    place = _evidence_folder(folder, dataset(folder, wanted))
    return {path.stem: read_json(path) for path in sorted(place.glob("[a-z]*.json"))}


def _evidence_folder(folder: Path, entry: Mapping[str, Any]) -> Path:
    return datasets_folder(folder) / str(entry["name"]) / str(entry["version"])
