"""How a version comes into being: the parameters, a line in the log, then the manifest.

The rename of the manifest is the commit. A process that is killed before it leaves at most parameters that nothing
refers to and a line in the log without a manifest, and both are invisible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.files import sync_folder, write_together
from fl.parameters import Parameters, num_bytes, num_values, sha256
from fl.plain import as_json
from fl.registry.aliases import stack
from fl.registry.blobs import write_blobs
from fl.registry.layout import ALIASES, check_run_id, locked, make_folder, manifest_path, now, rounds
from fl.registry.log import Entry, append, live_entries
from fl.registry.names import resolve
from fl.registry.provenance import code_state
from fl.registry.versions import DIRECTIONS, Version, canonical, read_version

SCHEMA = 1
_DEFAULTS: dict[str, Any] = {
    "cohort": [],
    "config": {},
    "seed": None,
    "dataset": {},
    "signature": None,
    "model": {},
    "metrics": {},
    "selection": {"metric": "accuracy", "direction": "max"},
    "seeding": {},
}


def commit(folder: Path, several: Sequence[tuple[Parameters, Mapping[str, Any]]], *, replace: bool) -> list[Version]:
    """Make parameters with their fields versions, in their order; see ``Registry.commit_all``."""
    with locked(folder):
        versions: list[Version] = []
        new: dict[Path, bytes] = {}
        replaced: list[Version] = []
        for parameters, fields in several:
            run_id, round = _identity(fields)
            manifest = _manifest(parameters, fields, run_id, round, _parent(folder, fields, run_id, round, versions))
            path = manifest_path(folder, run_id, round)
            old = read_version(folder, run_id, round) if path.exists() else None
            if old and not (differing := _differing(old.manifest, manifest)):
                versions.append(old)
                continue
            if old and not replace:
                raise BadInput(
                    key="round",
                    got=f"{old.name}, which is committed and differs in {', '.join(differing)}",
                    allowed="a round that is not committed yet, because a version never changes",
                )
            replaced += [old] if old else []
            new[path] = canonical(manifest)
            versions.append(Version.made(path, manifest, new[path]))
        write_blobs(folder, {v.model_sha256: given for v, (given, _) in zip(versions, several, strict=True)})
        if replaced:
            _drop(folder, replaced)
        for run_id, entries in groupby((v for v in versions if v.path in new), key=lambda version: version.run_id):
            make_folder(manifest_path(folder, run_id, 0).parent)
            append(folder, run_id, "commit", *map(_entry, entries))
        write_together(new, site="registry.manifest")
    return versions


def drop_after(folder: Path, run_id: str, round: int) -> list[Version]:
    """Remove the versions of a run later than ``round``, newest first; see ``Registry.drop_after``."""
    with locked(folder):
        dropped = [read_version(folder, run_id, r) for r in reversed(rounds(folder, run_id)) if r > round]
        _drop(folder, dropped)
    return dropped


def _drop(folder: Path, versions: Sequence[Version]) -> None:
    """Take manifests away, newest first, so that a crash leaves a shorter run; BadInput if one is in use elsewhere."""
    users = {digest: alias for alias in ALIASES for _, digest in stack(folder, alias)}
    leaving = {v.hash for v in versions}
    for (run_id, round), entry in live_entries(folder).items():
        if entry.parent is not None and entry.hash not in leaving:
            users[entry.parent] = f"{run_id}:{round}"
    for version in versions:
        if version.hash in users:
            got = f"{version.name}, to be removed although {users[version.hash]} depends on it"
            raise BadInput(key="version", got=got, allowed="one that no alias names or did, and no version came from")
    for version in versions:
        version.path.unlink()
        sync_folder(version.path.parent)
        append(folder, version.run_id, "drop", _entry(version))


def _entry(version: Version) -> Entry:
    return Entry(version.round, version.hash, version.model_sha256, version.manifest["parent"])


def _identity(fields: Mapping[str, Any]) -> tuple[str, int]:
    """Run and round of a version to be made; BadInput if they cannot be."""
    run_id, round = fields.get("run_id"), fields.get("round")
    if not isinstance(round, (int, np.integer)) or not 0 <= round < 10**6:
        raise BadInput(key="round", got=round, allowed="an integer from 0 to 999999")
    return check_run_id(run_id if isinstance(run_id, str) else ""), int(round)


def _parent(
    folder: Path, fields: Mapping[str, Any], run_id: str, round: int, before: Sequence[Version]
) -> Version | None:
    """The version a new one comes from: the given one, or the newest earlier one of the same run.

    ``before``: versions that are made together with it.
    """
    if "parent" not in fields:
        if before and (before[-1].run_id, before[-1].round) == (run_id, round - 1):
            return before[-1]
        if manifest_path(folder, run_id, round - 1).is_file():  # nearly always, and cheaper than a listing
            return read_version(folder, run_id, round - 1)
        earlier = [r for r in rounds(folder, run_id) if r < round]
        return read_version(folder, run_id, earlier[-1]) if earlier else None
    parent = fields["parent"]
    if parent is None:
        return None
    version = parent if isinstance(parent, Version) else resolve(folder, str(parent))
    if not manifest_path(folder, version.run_id, version.round).is_file():
        raise BadInput(key="parent", got=version.name, allowed=f"a version of the registry {folder}")
    return version


def _manifest(
    parameters: Parameters, fields: Mapping[str, Any], run_id: str, round: int, parent: Version | None
) -> dict[str, Any]:
    """The complete manifest; BadInput if a field cannot be in one."""
    given = _as_json({k: v for k, v in fields.items() if k != "parent"})
    manifest = {
        **_DEFAULTS,
        "code": code_state(),
        **given,
        "schema": SCHEMA,
        "name": f"{run_id}:{round}",
        "parent": parent.hash if parent else None,
        "parent_name": parent.name if parent else None,
        "created": now(),
        "num_parameters": num_values(parameters),
        "bytes": num_bytes(parameters),
        "model_sha256": sha256(parameters),
    }
    direction = manifest["selection"].get("direction")
    if direction not in DIRECTIONS:
        raise BadInput(key="selection.direction", got=direction, allowed=", ".join(DIRECTIONS))
    return manifest


def _as_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` as JSON holds them. A metric that is not finite becomes None: a run that diverged is versioned too."""
    try:
        found: dict[str, Any] = as_json(fields)
    except (TypeError, ValueError):
        found = _walked(fields)
    return found


def _walked(value: Any, *where: object) -> Any:
    """``_as_json`` of what the encoder does not take, or the reason why nothing can: ``where`` leads to it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): _walked(v, *where, k) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_walked(v, *where, i) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if where[:1] == ("metrics",):
            return None
        raise BadInput(key=_path(where), got=value, allowed="a finite number")
    if value is None or isinstance(value, (str, int, float)):
        return value
    allowed = "what JSON holds: a mapping, list, text, number, truth or null"
    raise BadInput(key=_path(where), got=repr(value), allowed=allowed)


def _path(where: Sequence[object]) -> str:
    return "manifest" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in where)


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Fields in which two manifests differ, but for the time."""
    return sorted(k for k in a.keys() | b.keys() if k != "created" and a.get(k) != b.get(k))
