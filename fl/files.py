"""Files that are whole or absent: written beside, synced, renamed, and the folder synced; and that know themselves.

Whatever keeps a file from being written is said as StorageFailed, with the file. JSON files carry the hash of what is
in them; other files are known by a hash that somebody else keeps (``sha256_file``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from fl.errors import BadInput, CorruptFile, StorageFailed
from fl.faults import reach

HASH, FILES = "content_sha256", "files"
"""The field of a JSON file that holds the hash of all others, and that in which it keeps those of files beside it."""


@contextmanager
def storing(path: Path, *, site: str) -> Iterator[None]:
    """Whatever the system says against writing ``path`` leaves the block as StorageFailed. ``site``: of fl.faults."""
    with _said_of(path):
        reach(f"{site}.begin")
        yield
        reach(f"{site}.done")


def write_bytes(path: Path, content: bytes, *, site: str) -> None:
    """Replace ``path`` by ``content`` so that after a crash it holds the old bytes or the new ones, nothing between.

    ``site`` names what is written among ``fl.faults.SITES``. Raises StorageFailed; the old bytes are there then.
    """
    write_together({path: content}, site=site)


def write_together(contents: Mapping[Path, bytes], *, site: str) -> None:
    """``write_bytes`` of several files: all are durable before the first of them appears, and they appear in order.

    What is written before a sync goes out with it, so that most of the files cost no wait for the disk of their own.
    """
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        with ExitStack() as stack:
            written = {}
            for path, draft in drafts.items():
                with _said_of(path):
                    reach(f"{site}.begin")
                    # Unbuffered: what a full disk did not take would be tried again, and raise again, at the closing.
                    written[path] = stack.enter_context(draft.open("wb", buffering=0))
                    _write_all(written[path], contents[path])
                    reach(f"{site}.written")
            for path, file in written.items():
                with _said_of(path):
                    os.fsync(file.fileno())
        for path, draft in drafts.items():
            with _said_of(path):
                draft.replace(path)
    except BaseException:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        raise
    for path in contents:
        with _said_of(path):
            reach(f"{site}.renamed")
    for folder, path in {path.parent: path for path in contents}.items():
        with _said_of(path):
            sync_folder(folder)
            reach(f"{site}.done")


def _write_all(file: FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(path=str(path), why=error.strerror or str(error)) from error


def make_parents(path: Path) -> None:
    """Make the folder that ``path`` is to be in. Raises StorageFailed."""
    with _said_of(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)


def append(path: Path, content: bytes, *, site: str, durable: bool) -> None:
    """Add ``content`` to a file; it outlives this process, and if ``durable`` a power cut. Raises StorageFailed."""
    with storing(path, site=site), path.open("ab", buffering=0) as file:
        _write_all(file, content)
        reach(f"{site}.written")
        if durable:
            os.fsync(file.fileno())


def write_json(path: Path, value: Mapping[str, Any], *, site: str) -> None:
    """``write_bytes`` of indented JSON with sorted keys, and its hash; NaN is refused, because JSON has none."""
    write_bytes(path, json_bytes(value), site=site)


def read_json(path: Path) -> dict[str, Any]:
    """The value in a JSON file. Raises CorruptFile, naming the file, if it is not JSON or not what was written."""
    content = path.read_bytes()
    try:
        value = json.loads(content)
    except ValueError as error:
        raise CorruptFile(path=str(path), why=f"not JSON: {error}") from error
    if not isinstance(value, dict) or value.pop(HASH, None) is None or json_bytes(value) != content:
        raise CorruptFile(path=str(path), why="its content is not what was written: it has another hash than it says")
    return value


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file: the value as a reader will find it (keys are texts, sequences lists), and its hash."""
    found = json.loads(json.dumps(value, allow_nan=False))
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**found, HASH: digest}, indent=2, sort_keys=True) + "\n").encode()


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


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    """Each array as NAME.npy in ``folder``, and the hashes of the files by their names, for ``check_files``."""
    hashes = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, np.ascontiguousarray(array), allow_pickle=False)
        hashes[path.name] = sha256_file(path)
    return hashes


def check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raise CorruptFile for the first file of ``folder`` whose bytes do not have the hash that is recorded of it."""
    for name, digest in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CorruptFile(path=str(path), why="the file is missing")
        if sha256_file(path) != digest:
            raise CorruptFile(path=str(path), why="its bytes are not those that were written")


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
