"""Files that are whole or absent: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from fl.errors import BadInput, CorruptFile


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that after a crash it holds the old bytes or the new ones, nothing between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """``write_bytes`` of indented JSON with sorted keys; NaN is refused, because JSON has none."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises CorruptFile, naming the file, if it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptFile(path=str(path), why=f"not JSON: {error}") from error


def sync_folder(path: Path) -> None:
    """Make a rename inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(path: Path, *, key: str) -> Path:
    """Make ``path`` a folder and prove that it can be written to; BadInput naming ``key`` otherwise."""
    probe = path / f".probe.{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise BadInput(key=key, got=str(path), allowed=f"a folder that can be written ({error.strerror})") from error
    return path
