"""What the result of a stage depends on, as hashes: nothing of a stage's own is imported to find out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import fl
from experiments.choices import flat
from experiments.lifecycle.stage import Done, Settings, Stage
from fl.errors import BadInput
from fl.files import sha256_file

PROJECT = Path(fl.__file__).parent.parent
Inputs = dict[str, dict[str, Any]]
_WORDS = {"sources": "data", "code": "code", "settings": "setting", "stages": "stage"}


def inputs_of(stage: Stage, settings: Settings, before: Mapping[str, Done]) -> Inputs:
    """Everything the result of ``stage`` depends on, by kind and name; ``settings`` are those that it reads."""
    return {
        "sources": dict(stage.sources(settings)),
        "code": {name: code_sha256(name) for name in stage.code},
        "settings": json.loads(json.dumps(flat(dict(settings)))),
        "stages": {name: _output(name, before) for name in stage.after},
    }


def _output(name: str, before: Mapping[str, Done]) -> str:
    """The hash of all that a stage left, or of its file in STAGE/FILE."""
    stage, _, file = name.partition("/")
    files = before[stage].files
    return files[file] if file else sha256_of(dict(files))


def changed(old: Mapping[str, Any], new: Inputs) -> list[str]:
    """In words, what of ``new`` differs from ``old`` or cannot be known; empty where the result would be the same."""
    found = []
    for kind, values in new.items():
        known = old.get(kind, {})
        names = [name for name in {**known, **values} if known.get(name, "") != values.get(name, "")]
        names += [name for name, value in values.items() if kind == "sources" and value is None and name not in names]
        found += [f"{_WORDS[kind]} {name}" for name in names]
    return found


def narrowed(settings: Settings, keys: tuple[str, ...]) -> dict[str, Any]:
    """The settings below ``keys`` alone, without those whose key has a minus in front.

    >>> narrowed({"seed": 1, "server": {"seeding": "random", "quorum": 0.5}}, ("server.seeding",))
    {'server': {'seeding': 'random'}}
    >>> narrowed({"seed": 1, "server": {"seeding": "random", "quorum": 0.5}}, ("server", "-server.seeding"))
    {'server': {'quorum': 0.5}}
    """
    found: dict[str, Any] = {}
    for key in keys:
        source, target = settings, found
        *sections, last = key.removeprefix("-").split(".")
        for name in sections:
            source, target = source[name], target.setdefault(name, {})
        if key.startswith("-"):
            target.pop(last, None)
        else:
            target[last] = deepcopy(source[last])
    return found


def sha256_of(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256(name: str) -> str:
    """SHA-256 of the source of one of our modules, or of all modules of a package."""
    path = PROJECT.joinpath(*name.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return _sha256_files(files)


def own_code(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """The user's own modules that ``_target_`` names in the settings, and the hash of each one's source."""
    ours = {"fl", "flwr", "clients", "server"}
    for key, target in flat(dict(settings)).items():
        if key.endswith("_target_") and isinstance(target, str) and (top := target.partition(".")[0]) not in ours:
            spec = PathFinder.find_spec(top)
            places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
            files = sorted(file for place in places for file in place.rglob("*.py"))
            if spec and spec.origin and not files:
                files = [Path(spec.origin)]
            yield f"module {top}", _sha256_files(files) if files else None


def data_sources(settings: Settings) -> dict[str, str | None]:
    """What the section ``dataset`` reads, with the hash of each file; BadInput where a file is not there."""
    dataset = settings["dataset"]
    name = dataset["name"]
    if name == "function":
        # The function may read anything: only running it tells.
        return {str(dataset["function"]): None}
    if name == "sql":
        return _sources_of_query(dataset)
    if dataset.get("path") is None:
        from fl.data.shipped_files import FILES_OF

        return {path.name: sha256_file(path) for path in FILES_OF.get(name, ())}
    path = Path(dataset["path"])
    if name == "hub" and not path.exists():
        return {str(path): None}
    if not path.is_file():
        raise BadInput(key="dataset.path", got=str(path), allowed=f"the path of a .{name} file that exists")
    return {str(path): sha256_file(path)}


def quarantine_source(settings: Settings) -> dict[str, str | None]:
    """The file of clients that are left out, if there is one."""
    file = settings["dataset"].get("quarantine")
    return {"quarantine": sha256_file(Path(file)) if Path(file).is_file() else None} if file else {}


def _sources_of_query(dataset: Mapping[str, Any]) -> dict[str, str | None]:
    """The database's file; what a server has, or files that only the query names, cannot be known without asking."""
    from fl.data.sql_sources import database_file, shown

    file = Path(dataset["path"]) if dataset["path"] else database_file(shown(dataset["url"] or ""))
    if file is None:
        return {shown(dataset["url"] or "the query"): None}
    if not file.is_file():
        key = "dataset.path" if dataset["path"] else "dataset.url"
        raise BadInput(key=key, got=str(file), allowed="a database file that exists")
    return {str(file): sha256_file(file)}


def _sha256_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()
