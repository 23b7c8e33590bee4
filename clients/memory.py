"""How this process asks the system for memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's ``mallopt``."""

LARGEST_REUSED = 2**25
"""Bytes of the largest array whose memory is kept when it is freed: the most that glibc allows."""

MOST_KEPT = 2**28
"""Freed bytes at the end of the heap from which on some go back to the system."""


def keep_freed_memory() -> None:
    """Let arrays that come and go every round use the same pages again.

    By default glibc gives an array of some hundred KiB back when it is freed, and the system fills its successor with
    zeros page by page: of a round of a small model that is a quarter. Does nothing where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED)
    mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
