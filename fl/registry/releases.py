"""Releases on disk: what was ordered, where it stands, what was decided and why, and what an operator asks for.

    releases/<id>/release.json      what was ordered; written once
    releases/<id>/state.json        the policy's state and its last Decision; written by the one router that leads
    releases/<id>/decisions.jsonl   every Decision that changed something, with the state it rests on
    releases/<id>/request.json      what an operator asks for: pause, go-on, abort, promote; kept when it was followed
    releases/<id>/end.json          how it ended; a release without it is open
    releases/<id>/.leader           locked by the router that leads

An alias has at most one open release. The end is recorded last: after a crash in between, whoever leads next moves the
alias again, which changes nothing the second time.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl.decisions import Action, Decision
from fl.errors import BadInput, NotAccepted
from fl.files import append, read_json, write_json
from fl.registry.aliases import alias_version, check_alias, promote
from fl.registry.layout import locked, make_folder, now, release_folder, releases_folder
from fl.registry.names import resolve
from fl.releases import TARGETS, Arm, Evidence, Policy, Release, State, arm_names, promoted, rolled_back

REQUESTS = ("pause", "go-on", "abort", "promote")
_SITE = "registry.release"


@dataclass(frozen=True)
class Standing:
    """Where a release stands: its policy's state, the last Decision, and when that was."""

    state: State
    decision: Decision
    when: str


def order(
    folder: Path,
    *,
    policy: str,
    versions: tuple[str, ...],
    options: Mapping[str, Any],
    target: str = "http",
    serves: str = "champion",
    seed: int = 1,
    by: str = "",
) -> Release:
    """Record a release of ``versions``, names of challengers, against what the alias ``serves`` names; returns it.

    Raises BadInput, and records nothing, if a version is missing or stands twice, or if the alias names none or has a
    release that is open.
    """
    if target not in TARGETS:
        raise BadInput(key="--target", got=target, allowed=" or ".join(TARGETS))
    champion = alias_version(folder, check_alias(serves))
    if champion is None:
        allowed = "an alias that names a version; fl versions promote names one"
        raise BadInput(key="--serves", got=serves, allowed=allowed)
    hashes = [champion.hash, *(resolve(folder, name).hash for name in versions)]
    if len(hashes) < 2 or len(set(hashes)) < len(hashes):
        got = ", ".join(versions) or "nothing"
        allowed = f"a version or more, each once, other than {serves}, which is {champion.name}"
        raise BadInput(key="--challenger", got=got, allowed=allowed)
    arms = tuple(Arm(name, digest) for name, digest in zip(arm_names(len(versions)), hashes, strict=True))
    with locked(folder):
        for other in open_releases(folder):
            if other.serves == serves:
                allowed = f"an alias without an open release; {other.id} is open: wait for its end, or fl deploy abort"
                raise BadInput(key="--serves", got=serves, allowed=allowed)
        taken = {path.name for path in releases_folder(folder).glob("*")}
        number = next(n for n in range(1, len(taken) + 2) if f"{policy}-{n}" not in taken)
        made = Release(f"{policy}-{number}", policy, target, serves, arms, dict(options), seed, now(), by)
        make_folder(release_folder(folder, made.id))
        write_json(release_folder(folder, made.id) / "release.json", made.to_dict(), site=_SITE)
    return made


def releases(folder: Path) -> list[Release]:
    """Every release, the oldest first. Raises CorruptFile."""
    found = [Release.from_dict(read_json(path)) for path in releases_folder(folder).glob("*/release.json")]
    return sorted(found, key=lambda release: (release.started, release.id))


def open_releases(folder: Path) -> list[Release]:
    """Those that have not ended, the oldest first: at most one an alias."""
    return [release for release in releases(folder) if ending(folder, release.id) is None]


def release(folder: Path, release_id: str) -> Release:
    """The release of that id. Raises BadInput naming those there are."""
    path = release_folder(folder, release_id) / "release.json"
    if "/" in release_id or not path.is_file():
        known = ", ".join(r.id for r in releases(folder)[-5:]) or "none: fl deploy orders one"
        raise BadInput(key="RELEASE", got=release_id, allowed=f"a release of {folder}: {known}")
    return Release.from_dict(read_json(path))


def ending(folder: Path, release_id: str) -> dict[str, Any] | None:
    """How a release ended: ended, winner, reason, time; None while it is open."""
    path = release_folder(folder, release_id) / "end.json"
    return read_json(path) if path.is_file() else None


def read_state(folder: Path, release_id: str) -> Standing | None:
    """Where a release stands, None before its first step."""
    path = release_folder(folder, release_id) / "state.json"
    if not path.is_file():
        return None
    known = read_json(path)
    return Standing(known["state"], Decision(Action(known["action"]), known["reason"]), known["time"])


def write_state(folder: Path, release_id: str, state: State, decision: Decision) -> None:
    """Keep where a release stands, whole or not at all; a Decision that is not HOLD is added to the others."""
    told = {"time": now(), "action": decision.action.value, "reason": decision.reason, "state": dict(state)}
    place = release_folder(folder, release_id)
    write_json(place / "state.json", told, site=f"{_SITE}.state")
    if decision.action is not Action.HOLD:
        line = json.dumps(told, allow_nan=False).encode() + b"\n"
        append(place / "decisions.jsonl", line, site=f"{_SITE}.decisions", durable=True)


def decisions(folder: Path, release_id: str) -> list[dict[str, Any]]:
    """Every Decision that changed something, the oldest first: time, action, reason, state."""
    path = release_folder(folder, release_id) / "decisions.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def ask(folder: Path, release_id: str, action: str, *, reason: str = "", by: str = "", arm: str | None = None) -> None:
    """Ask whoever leads an open release to ``pause``, ``go-on``, ``abort``, or ``promote`` the version of ``arm``."""
    if action not in REQUESTS:
        raise BadInput(key="action", got=action, allowed=", ".join(REQUESTS))
    found, ended = release(folder, release_id), ending(folder, release_id)
    if ended is not None:
        raise BadInput(key="RELEASE", got=f"{release_id}, which was {ended['ended']}", allowed="a release that is open")
    if arm is not None and arm not in found.names[1:]:
        raise BadInput(key="--arm", got=arm, allowed=", ".join(found.names[1:]))
    asked = {"action": action, "arm": arm or found.names[1], "reason": reason, "by": by, "time": now()}
    write_json(release_folder(folder, release_id) / "request.json", asked, site=f"{_SITE}.request")


def asked(folder: Path, release_id: str) -> dict[str, Any] | None:
    """What an operator asked for last: action, arm, reason, by, time."""
    path = release_folder(folder, release_id) / "request.json"
    return read_json(path) if path.is_file() else None


@contextmanager
def lead(folder: Path, release_id: str) -> Iterator[bool]:
    """Whether this process leads the release, for as long as the block lasts; the kernel lets go when it dies."""
    with (release_folder(folder, release_id) / ".leader").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def resumed(folder: Path, found: Release, policy: Policy) -> State:
    """The state from which to go on: the kept one, or the policy's first."""
    standing = read_state(folder, found.id)
    return policy.begin() if standing is None else standing.state


def advance(
    folder: Path, found: Release, policy: Policy, state: State, evidence: Evidence, *, keep: bool = True
) -> tuple[State, Decision]:
    """One step of a release by the router that leads it: what an operator asks for, else what the policy decides.

    The state is kept, unless ``keep`` is False and nothing but evidence came to it. Where it says that the release has
    ended, the alias moves (through the gate) and the end is recorded. While paused, evidence is not counted. Call it
    from one thread at a time; it writes and syncs two files.
    """
    if "ended" not in state:
        before = state
        state, decision = _decided(folder, found, policy, state, evidence)
        if (keep and state != before) or decision.action is not Action.HOLD:
            write_state(folder, found.id, state, decision)
    else:  # it ended, and whoever led then did not live to say so
        standing = read_state(folder, found.id)
        decision = standing.decision if standing else Decision(Action.ROLL_BACK, "it ended")
    if "ended" in state and ending(folder, found.id) is None:
        state, decision = _end(folder, found, state, decision)
    return state, decision


def _decided(folder: Path, found: Release, policy: Policy, state: State, evidence: Evidence) -> tuple[State, Decision]:
    request = asked(folder, found.id) or {"action": "go-on"}
    why = f"{request['action']} by {request.get('by') or 'an operator'}: {request.get('reason') or 'no reason given'}"
    if request["action"] == "pause":
        return state, Decision(Action.HOLD, why)
    if request["action"] == "abort":
        return rolled_back(state, why)
    if request["action"] == "promote":
        return promoted(state, request["arm"], why)
    return policy.step(state, evidence)


def _end(folder: Path, found: Release, state: State, decision: Decision) -> tuple[State, Decision]:
    """Move the alias, if the release was won by somebody else than the champion, and record the end."""
    winner = state["winner"]
    if state["ended"] == "promoted" and winner != found.names[0]:
        against = _against(folder, found, winner)
        if not against:
            try:
                version = resolve(folder, found.version(winner))
                promote(folder, version, found.serves, reason=f"{found.id}: {decision.reason}", by=found.by)
            except NotAccepted as error:
                against = str(error)
        if against:
            state, decision = rolled_back(state, against)
            write_state(folder, found.id, state, decision)
    told = {"ended": state["ended"], "winner": state["winner"], "reason": decision.reason, "time": now()}
    write_json(release_folder(folder, found.id) / "end.json", told, site=f"{_SITE}.end")
    return state, decision


def _against(folder: Path, found: Release, winner: str) -> str:
    """What keeps an alias from moving, in words: that somebody moved it since the release began."""
    serving = alias_version(folder, found.serves)
    if serving is not None and serving.hash not in (found.arms[0].version, found.version(winner)):
        return f"{found.serves} was moved to {serving.name} while the release was open"
    return ""
