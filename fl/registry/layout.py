"""Where things lie in a registry folder, and the one lock that writers hold.

    blobs/<model_sha256>.safetensors    the parameters under their content hash; equal ones share one file
    versions/<run_id>/<round>.json      a manifest a version, never changed; its SHA-256 is the version's hash
    versions/<run_id>/log.jsonl         what was committed, dropped and pruned, in order
    runs/<run_id>.json                  facts about the run
    runs/<run_id>.examples.safetensors  a few held-out test examples of the server, for the parity of exports
    evidence/<version hash>/<name>.json what is known of a version besides: what decisions about it rest on
    datasets/<name>/<fingerprint>.json  what versions were made from
    datasets/<name>/<fingerprint>/<evidence>.json   what is known of its content besides
    releases/<id>/                      how a version takes over from another: order, state, decisions; see releases.py
    aliases.json                        champion and challenger, and who moved them when
    .lock                               held by whoever writes

Readers need no lock: every file but the log appears whole by a rename, and a torn last line of the log is ignored.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fl.errors import BadInput
from fl.files import sync_folder, writable_folder

ALIASES = ("champion", "challenger")
RESERVED = (*ALIASES, "latest", "best")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def blobs_folder(folder: Path) -> Path:
    return folder / "blobs"


def blob_path(folder: Path, model_sha256: str) -> Path:
    return blobs_folder(folder) / f"{model_sha256}.safetensors"


def versions_folder(folder: Path) -> Path:
    return folder / "versions"


def manifest_path(folder: Path, run_id: str, round: int) -> Path:
    return versions_folder(folder) / run_id / f"{round:06d}.json"


def log_path(folder: Path, run_id: str) -> Path:
    return versions_folder(folder) / run_id / "log.jsonl"


def run_path(folder: Path, run_id: str) -> Path:
    return folder / "runs" / f"{run_id}.json"


def examples_path(folder: Path, run_id: str) -> Path:
    return folder / "runs" / f"{run_id}.examples.safetensors"


def evidence_folder(folder: Path, version_hash: str) -> Path:
    return folder / "evidence" / version_hash


def datasets_folder(folder: Path) -> Path:
    return folder / "datasets"


def releases_folder(folder: Path) -> Path:
    return folder / "releases"


def release_folder(folder: Path, release_id: str) -> Path:
    return releases_folder(folder) / release_id


def aliases_path(folder: Path) -> Path:
    return folder / "aliases.json"


def run_ids(folder: Path) -> list[str]:
    """Every run that has a folder of versions, sorted."""
    runs = versions_folder(folder)
    return sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []


def rounds(folder: Path, run_id: str) -> list[int]:
    """The rounds of a run that have a manifest, ascending. Costs one folder listing, opens nothing."""
    run = versions_folder(folder) / run_id
    return sorted(int(p.stem) for p in run.glob("[0-9]*.json") if p.stem.isdigit()) if run.is_dir() else []


def check_run_id(run_id: str) -> str:
    """``run_id`` if it can be a file name and half of ``RUN:ROUND``; BadInput otherwise."""
    if not _RUN_ID.fullmatch(run_id) or run_id in RESERVED:
        raise BadInput(
            key="run_id",
            got=repr(run_id),
            allowed=f"letters, digits, '.', '_' and '-', first a letter or digit, and none of {', '.join(RESERVED)}",
        )
    return run_id


def make_folder(path: Path) -> None:
    """Make ``path`` and its parents so that they outlive a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the registry against other writers, threads and processes alike; waits, and is not re-entrant.

    The kernel lets go of it when its holder dies. Raises BadInput naming ``registry_dir`` if the folder cannot be
    written.
    """
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        writable_folder(folder, key="registry_dir")
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said, and not left to the closing: a process forked meanwhile holds a copy of the descriptor.
            fcntl.flock(file, fcntl.LOCK_UN)


def now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
