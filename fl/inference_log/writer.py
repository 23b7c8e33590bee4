"""What becomes of records: a line, made where they are added, and the thread that writes lines."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import final

from fl.files import writable_folder
from fl.inference_log.counts import REFUSED, TAKEN, Counts
from fl.inference_log.files import bound, needs_duckdb, recover, to_parquet
from fl.inference_log.records import Columns, Record, columns_of, line_of

MOST_AT_ONCE = 64
"""Calls of ``write`` whose lines go to the disk by one call: what a full disk can cost at once."""

SALT_BYTES = 32


@final
class InferenceLog:
    """One server's writer. One thread adds, and never waits for the disk; another thread writes.

    flush_seconds    between two times of writing: what a kill can cost, with what the server holds back before it adds
    most_waiting     records that are not written yet; what would be more is refused, and counted
    rotate_bytes, rotate_seconds   how large and how old a file becomes before it is made Parquet
    most_bytes       of all Parquet files of the folder; the oldest are removed

    ``lost_before`` is what earlier servers of the folder lost in all. Raises BadInput for a folder that cannot be
    written, MissingExtra without DuckDB.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flush_seconds: float = 0.4,
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
        self._lock = threading.Lock()  # for a few instructions at a time: nobody waits behind it
        self._waiting = 0
        self._lines: deque[tuple[int, bytes]] = deque()
        self.lost_before = recover(folder)
        self._counts = Counts(folder / f"{self.server}.count", own=True)
        self._part, self._file, self._opened = 0, -1, 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="inference log", daemon=True)
        self._thread.start()

    def add(self, *records: Record) -> None:
        """Take records down. Never waits for the disk, never raises."""
        if records:
            self.write([self.take_number() for _ in records], columns_of(records))

    def take_number(self) -> int:
        """The number of a record that is to come. It is counted from now on: as lost, if it never comes."""
        self.taken += 1
        self._counts.set(TAKEN, self.taken)
        return self.taken

    def write(self, numbers: Sequence[int], columns: Columns) -> None:
        """Take down records that have their numbers. Their line is made here, while their inputs are still in the
        processor's cache: a thread that did it half a second later took twice as long, and those who answer waited for
        it as well.
        """
        with self._lock:
            room = max(0, self.most_waiting - self._waiting)
            taken = numbers[:room]
            self._waiting += len(taken)
        if len(taken) < len(numbers):
            self._refuse(len(numbers) - len(taken))
            columns = {name: values[:room] for name, values in columns.items()}
        if taken:
            self._lines.append((len(taken), line_of(taken, columns, server=self.server, salt=self._salt)))

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return self._waiting

    def close(self) -> None:
        """Write what waits, as Parquet, and let the thread end."""
        self._ending.set()
        self._thread.join()
        self._counts.close()

    def _refuse(self, records: int) -> None:
        with self._lock:
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
        while self._lines:
            together = [self._lines.popleft() for _ in range(min(MOST_AT_ONCE, len(self._lines)))]
            records = sum(count for count, _ in together)
            try:
                self._append(b"".join(line for _, line in together))
                self.trouble = ""
            except OSError as error:  # a full disk costs records, and never an answer
                self._refuse(records)
                self.trouble = f"{self.folder}: {error.strerror}"
            with self._lock:
                self._waiting -= records

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
