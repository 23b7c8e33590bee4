"""Objects between processes of one machine: arrays through shared memory, everything else in a short message.

An object is pickled with its buffers left out; the buffers are copied, 64-byte aligned, into a memory file that has
no name. The other process opens that file through the first one's /proc entry, so nothing has to be cleaned up: when
both have ended, however they ended, the memory is gone. Where there is no such thing, Ray's object store does it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

ALIGNMENT = 64
"""GEMM kernels are chosen by alignment, so bits may depend on it."""

IN_BAND = 1 << 15
"""Buffers of fewer bytes in all travel in the message itself."""


def available() -> bool:
    """Whether this machine has memory files and /proc."""
    return sys.platform == "linux" and hasattr(os, "memfd_create")


@dataclass(frozen=True)
class Packed:
    """An object on its way: its pickle, and where its buffers lie. ``pid`` 0: they are in ``buffers``."""

    pickle: bytes
    pid: int = 0
    file: int = 0
    size: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    buffers: tuple[bytes, ...] = ()

    def load(self, *, copy: bool) -> Any:
        """The object. Its arrays are read-only views of the shared memory, valid until the segment is written again;
        with ``copy`` they are its own.
        """
        buffers: Sequence[Any] = self.buffers
        if self.pid:
            view = memoryview(_opened(self.pid, self.file, self.size))
            buffers = [view[start : start + length] for start, length in self.spans]
        if copy:
            buffers = [bytearray(buffer) for buffer in buffers]
        return pickle.loads(self.pickle, buffers=buffers)  # noqa: S301  from a process of our own


class Segment:
    """A memory file of this process, as large as the largest object it has held."""

    def __init__(self) -> None:
        self._file = os.memfd_create("meadow", os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None

    def pack(self, value: Any) -> Packed:
        """Put ``value`` in; what was in before is gone, for whoever holds views of it too."""
        buffers: list[pickle.PickleBuffer] = []
        message = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        spans, end = [], 0
        for view in raw:
            spans.append((end, view.nbytes))
            end += -(-view.nbytes // ALIGNMENT) * ALIGNMENT
        if end < IN_BAND:
            return Packed(message, buffers=tuple(bytes(view) for view in raw))
        shared = self._of_size(end)
        for view, (start, length) in zip(raw, spans, strict=True):
            shared[start : start + length] = view
        return Packed(message, os.getpid(), self._file, len(shared), tuple(spans))

    def close(self) -> None:
        """Give the memory back, once nobody maps it any more."""
        if self._map is not None:
            self._map.close()
        os.close(self._file)

    def _of_size(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            os.ftruncate(self._file, rounded)
            self._map = mmap.mmap(self._file, rounded)
        return self._map


def forget_mappings() -> None:
    """Let go of the memory of other processes that this one has read; views of it keep theirs."""
    _opened.cache_clear()


@lru_cache(maxsize=64)
def _opened(pid: int, file: int, size: int) -> mmap.mmap:
    descriptor = os.open(f"/proc/{pid}/fd/{file}", os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
