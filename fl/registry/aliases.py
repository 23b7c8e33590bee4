"""Champion and challenger: movable names for a version, registry-wide, that remember where they stood.

The file holds, for each alias, what it names and every move. The moves are what counts: a promotion puts a version on
a stack, a rollback takes it off again, and the alias names the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl.errors import BadInput, CorruptFile, NotAccepted
from fl.files import read_json, write_json
from fl.registry import gate
from fl.registry.layout import ALIASES, aliases_path, locked, now
from fl.registry.versions import Version, best, check_kept, read_version


def check_alias(alias: str) -> str:
    """``alias`` if there is one of that name, BadInput otherwise."""
    if alias not in ALIASES:
        raise BadInput(key="alias", got=alias, allowed=", ".join(ALIASES))
    return alias


def moves(folder: Path, alias: str) -> list[dict[str, Any]]:
    """Every move of an alias, oldest first: action, from, to (names), hash (of to), when, by, reason."""
    path = aliases_path(folder)
    if not path.is_file():
        return []
    known = read_json(path)
    try:
        return [dict(move) for move in known[alias]["history"]] if check_alias(alias) in known else []
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(path=str(path), why=f"the moves of {alias} cannot be read") from error


def stack(folder: Path, alias: str) -> list[tuple[str, str]]:
    """Name and hash of the versions that ``alias`` can name again, the one it names now last."""
    standing: list[tuple[str, str]] = []
    try:
        for move in moves(folder, alias):
            if move["action"] == "rollback":
                standing.pop()
            else:
                standing.append((str(move["to"]), str(move["hash"])))
    except (KeyError, IndexError) as error:
        raise CorruptFile(path=str(aliases_path(folder)), why=f"the moves of {alias} do not add up") from error
    return standing


def current(folder: Path) -> dict[str, Version]:
    """The version of each alias that has one. Raises CorruptFile if that version is gone or another one."""
    return {alias: _standing(folder, alias, *known[-1]) for alias in ALIASES if (known := stack(folder, alias))}


def alias_version(folder: Path, alias: str) -> Version | None:
    """The version that ``alias`` names, None if it names none. Raises CorruptFile if that one is gone or altered."""
    known = stack(folder, alias)
    return _standing(folder, alias, *known[-1]) if known else None


def promote(
    folder: Path, version: Version, alias: str, *, reason: str, by: str, override: str | None = None
) -> str | None:
    """Let ``alias`` name ``version``; returns the name of what it named before. See ``Registry.promote``."""
    check_alias(alias)
    against = gate.refusals(folder, version) if alias == "champion" else ()
    if override is not None:
        if not override.strip() or not against:
            got = override if against else f"{override!r}, where nothing stands against {version.name} as {alias}"
            raise BadInput(key="--override", got=got, allowed="the reason for a champion that was not accepted")
        check_kept(folder, version)
        gate.override(folder, version, against, reason=override, by=by)
    elif against:
        raise NotAccepted(version=version.name, reasons=against)
    with locked(folder):
        return _promote(folder, version, alias, reason=reason, by=by)


def crown_if_vacant(folder: Path, run_id: str) -> Version | None:
    """Make the best version of a run champion if there is none and nothing stands against it; returns it if it did."""
    with locked(folder):
        first = best(folder, run_id)
        if first is None or stack(folder, "champion") or gate.refusals(folder, first):
            return None
        _promote(folder, first, "champion", reason="the first finished run of the registry", by="meadow")
        return first


def rollback(folder: Path, alias: str, *, reason: str, by: str) -> Version:
    """Let ``alias`` name again what it named before; returns that. See ``Registry.rollback``."""
    check_alias(alias)
    with locked(folder):
        known = stack(folder, alias)
        if len(known) < 2:
            got = f"{alias}, which has been nothing but {known[0][0]}" if known else f"{alias}, which names no version"
            raise BadInput(key="alias", got=got, allowed="an alias that named another version before")
        previous = _standing(folder, alias, *known[-2])
        check_kept(folder, previous)
        _record(folder, alias, "rollback", known[-1][0], previous, reason=reason, by=by)
        return previous


def _promote(folder: Path, version: Version, alias: str, *, reason: str, by: str) -> str | None:
    check_kept(folder, version)
    known = stack(folder, alias)
    # What it named is not opened: a damaged champion must be replaceable.
    before, digest = known[-1] if known else (None, None)
    if digest != version.hash:
        _record(folder, alias, "promote", before, version, reason=reason, by=by)
    return before


def _record(
    folder: Path, alias: str, action: str, before: str | None, version: Version, *, reason: str, by: str
) -> None:
    path = aliases_path(folder)
    everything = read_json(path) if path.is_file() else {}
    move = {
        "action": action,
        "from": before,
        "to": version.name,
        "hash": version.hash,
        "when": now(),
        "by": by,
        "reason": reason,
    }
    everything[alias] = {"name": version.name, "hash": version.hash, "history": [*moves(folder, alias), move]}
    write_json(path, everything, site="registry.aliases")


def _standing(folder: Path, alias: str, name: str, digest: str) -> Version:
    run_id, _, round = name.rpartition(":")
    problem = f"{alias} names {name} ({digest[:12]}...), which is "
    try:
        version = read_version(folder, run_id, int(round))
    except (ValueError, FileNotFoundError) as error:
        raise CorruptFile(path=str(aliases_path(folder)), why=f"{problem}missing") from error
    if version.hash != digest:
        raise CorruptFile(path=str(version.path), why=f"{problem}another manifest now")
    return version
