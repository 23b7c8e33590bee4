"""The log of a run's versions: an append-only file that remembers what the manifests should be.

A manifest names itself by its hash, so a manifest alone cannot tell that it was altered, nor a folder that one is
gone. The log can: a line is durable before its manifest appears. It is also the index that answers, without opening a
manifest, which parameters are still referred to.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fl.errors import CorruptFile
from fl.faults import reach
from fl.files import storing, write_bytes
from fl.registry.layout import log_path, now, rounds, run_ids

Event: TypeAlias = Literal["commit", "drop", "prune"]


@dataclass(frozen=True)
class Entry:
    """The last commit of a round: the version's hash, its parameters' hash, its parent's hash."""

    round: int
    hash: str
    model_sha256: str
    parent: str | None


@dataclass(frozen=True)
class RunLog:
    """What the log says now: ``entries`` by round, and the rounds whose parameters were ``pruned``.

    A crash may have kept an entry from becoming a version: there is no version without a manifest.
    """

    entries: dict[int, Entry] = field(default_factory=dict)
    pruned: set[int] = field(default_factory=set)


def read_log(folder: Path, run_id: str) -> RunLog:
    """The log of a run, empty if there is none. Raises CorruptFile for any line but a torn last one."""
    path, log = log_path(folder, run_id), RunLog()
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            _replay(log, _parsed(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFile(path=str(path), why=f"line {number} is not a line of a version log") from error
    return log


def _line(fields: dict[str, Any]) -> bytes:
    """A line of the log, without its end: the fields, and a hash of them."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
    return json.dumps({**fields, "sha256": digest}, sort_keys=True).encode()


def _parsed(line: bytes) -> dict[str, Any]:
    """The fields of a line. Raises ValueError if they are not those that were written."""
    fields: Any = json.loads(line)
    if not isinstance(fields, dict) or fields.pop("sha256", None) is None or _line(fields) != line:
        raise ValueError("another hash than it says")
    return fields


def readable_entries(folder: Path, run_id: str) -> dict[int, Entry]:
    """The entries of a run up to the first line that cannot be read."""
    log = RunLog()
    for line in _sound_lines(folder, run_id):
        _replay(log, _parsed(line))
    return log.entries


def rewrite(folder: Path, run_id: str, *, below: int) -> None:
    """Keep what the log says of rounds ``below``, up to the first line that cannot be read. The lock is held."""
    kept = [line for line in _sound_lines(folder, run_id) if _parsed(line)["round"] < below]
    write_bytes(log_path(folder, run_id), b"".join(line + b"\n" for line in kept), site="registry.log.rewritten")


def _sound_lines(folder: Path, run_id: str) -> list[bytes]:
    path, log, sound = log_path(folder, run_id), RunLog(), []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        try:
            _replay(log, _parsed(line))
        except (ValueError, KeyError, TypeError):
            break
        sound.append(line)
    return sound


def _replay(log: RunLog, line: dict[str, Any]) -> None:
    round, event = int(line["round"]), line["event"]
    if event == "commit":
        log.entries[round] = Entry(round, line["hash"], line["model_sha256"], line["parent"])
        log.pruned.discard(round)
    elif event == "drop":
        log.entries.pop(round, None)
        log.pruned.discard(round)
    elif event == "prune":
        log.pruned.add(round)
    else:
        raise ValueError(event)


def live_entries(folder: Path) -> dict[tuple[str, int], Entry]:
    """The log's entry of every version there is, by run and round; opens one file a run and no manifest.

    Raises CorruptFile for a manifest that its run's log does not know.
    """
    found = {}
    for run_id in run_ids(folder):
        entries = read_log(folder, run_id).entries
        for round in rounds(folder, run_id):
            if round not in entries:
                raise CorruptFile(path=str(log_path(folder, run_id)), why=f"does not know the round {round}")
            found[run_id, round] = entries[round]
    return found


def append(folder: Path, run_id: str, event: Event, *entries: Entry) -> None:
    """Write one line an entry and sync them; a torn last line is cut off first. The caller holds the lock."""
    path, when = log_path(folder, run_id), now()
    lines = [_line({"event": event, "when": when, **vars(entry)}) + b"\n" for entry in entries]
    with storing(path, site="registry.log"), path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(b"".join(lines))
        file.flush()
        reach("registry.log.written")
        os.fsync(file.fileno())
