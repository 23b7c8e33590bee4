"""The queue in front of the log, and the thread behind it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import orjson

from fl.files import writable_folder
from fl.inference_log.counts import REFUSED, TAKEN, Counts
from fl.inference_log.files import bound, needs_duckdb, recover, to_parquet
from fl.inference_log.records import Record, lines_of

PORTION = 32
"""Records that are written down in one go; between two goes those who answer have their turn."""

SALT_BYTES = 32


@final
class InferenceLog:
    """One server's writer. ``add`` is called by one thread and never waits; everything else happens in another.

    flush_seconds    between two times of writing: what a kill can cost
    most_waiting     records in the queue; what would be more is refused, and counted
    rotate_bytes, rotate_seconds   how large and how old a file becomes before it is made Parquet
    most_bytes       of all Parquet files of the folder; the oldest are removed

    ``lost_before`` is what earlier servers of the folder lost in all. Raises BadInput for a folder that cannot be
    written, MissingExtra without DuckDB.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flush_seconds: float = 0.5,
        most_waiting: int = 100_000,
        rotate_bytes: int = 32 * 2**20,
        rotate_seconds: float = 300.0,
        most_bytes: int = 4 * 2**30,
    ) -> None:
        needs_duckdb()
        self.folder = writable_folder(folder, key="--log")
        self.flush_seconds, self.most_waiting = flush_seconds, most_waiting
        self.rotate_bytes, self.rotate_seconds, self.most_bytes = rotate_bytes, rotate_seconds, most_bytes
        self.server = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        self.taken = self.refused = 0
        self.trouble = ""
        self._salt = _salt(folder)
        self._queue: deque[tuple[int, Record]] = deque()
        self.lost_before = recover(folder)
        self._counts = Counts(folder / f"{self.server}.count", own=True)
        self._part, self._file, self._opened = 0, -1, 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="inference log", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Take a record down. Never waits, never raises."""
        self.taken += 1
        if len(self._queue) >= self.most_waiting:
            self._refuse(1)
        else:
            self._queue.append((self.taken, record))
        self._counts.set(TAKEN, self.taken)

    def close(self) -> None:
        """Write what waits, as Parquet, and let the thread end."""
        self._ending.set()
        self._thread.join()
        self._counts.close()

    def _refuse(self, records: int) -> None:
        self.refused += records
        self._counts.set(REFUSED, self.refused)

    # --- the thread

    def _write(self) -> None:
        while not self._ending.wait(self.flush_seconds):
            self._flush()
            if self._file >= 0 and self._is_full():
                self._rotate()
        self._flush()
        self._rotate()

    def _flush(self) -> None:
        for _ in range(-(-len(self._queue) // PORTION)):
            portion = [self._queue.popleft() for _ in range(min(PORTION, len(self._queue)))]
            try:
                self._append(b"".join(self._lines(portion)))
                self.trouble = ""
            except OSError as error:  # a full disk costs records, and never an answer
                self._refuse(len(portion))
                self.trouble = f"{self.folder}: {error.strerror}"
            if not self._ending.is_set():
                time.sleep(0.0005)

    def _append(self, content: bytes) -> None:
        if self._file < 0:
            self._part += 1
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._opened = time.monotonic()
        size = os.fstat(self._file).st_size
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:
            os.ftruncate(self._file, size)  # a line is there, or it is not
            raise

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.server}-{self._part:06d}.jsonl"

    def _lines(self, portion: Sequence[tuple[int, Record]]) -> Iterator[bytes]:
        told = lines_of([record for _, record in portion], self._salt)
        for (number, _), known in zip(portion, told, strict=True):
            values = {"server": self.server, "number": number, **known}
            try:
                yield orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
            except TypeError:  # a text that no UTF-8 can say
                yield json.dumps(values, separators=(",", ":")).encode() + b"\n"

    def _is_full(self) -> bool:
        age = time.monotonic() - self._opened
        return age >= self.rotate_seconds or os.fstat(self._file).st_size >= self.rotate_bytes

    def _rotate(self) -> None:
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        try:
            to_parquet(self._path)
            bound(self.folder, self.most_bytes)
        except Exception as error:  # noqa: BLE001  the lines are there still, and the next server tries again
            self.trouble = f"{self._path}: {error}"


def _salt(folder: Path) -> bytes:
    """The folder's own, made by its first server."""
    path = folder / "salt"
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file() or path.stat().st_size != 2 * SALT_BYTES:
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(SALT_BYTES))
        return bytes.fromhex(path.read_text())
