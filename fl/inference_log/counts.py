"""Numbers of a server that outlive it: in mapped memory, so that writing one costs no call of the system."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Self, final

TAKEN, REFUSED, REMOVED = range(3)
"""Records taken in all; never written; written, and removed since as too old."""

_BYTES = 24


@final
class Counts:
    """Three whole numbers in the file ``path``. The server whose numbers they are has the file locked while it lives.

    own    this is that server; otherwise ``alive`` says whether it lives
    """

    def __init__(self, path: Path, *, own: bool = False) -> None:
        self._file = os.open(path, os.O_RDWR | (os.O_CREAT if own else 0), 0o644)
        if os.fstat(self._file).st_size < _BYTES:
            os.ftruncate(self._file, _BYTES)
        self._memory = mmap.mmap(self._file, _BYTES)
        self._numbers = memoryview(self._memory).cast("Q")
        self.alive = own
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if own else fcntl.LOCK_NB))
        except BlockingIOError:
            self.alive = True

    def get(self, place: int) -> int:
        """The number at TAKEN, REFUSED or REMOVED."""
        return int(self._numbers[place])

    def set(self, place: int, value: int) -> None:
        """Let it be ``value``: known to every process from now on, also if this one ends here."""
        self._numbers[place] = value

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        self._numbers.release()
        self._memory.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
