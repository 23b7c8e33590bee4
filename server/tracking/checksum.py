"""CRC-32C, which guards every record of an event file. TensorBoard's own takes 0.1 microseconds a byte in plain Python.

The checksum is linear over XOR: each byte adds what a table says of its value and of the number of bytes behind it,
so that NumPy adds up a block at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78
BLOCK = 512
"""Bytes at once. The table has 1 KiB for each of them, and takes 5 microseconds of each to make."""


def crc32c(data: bytes) -> int:
    """The checksum of ``data``, 32 bits.

    >>> hex(crc32c(b"123456789"))  # the check value of RFC 3720's polynomial
    '0xe3069283'
    """
    table, rows = _table()
    crc = 0xFFFFFFFF
    for start in range(0, len(data), BLOCK):
        block = np.frombuffer(data[start : start + BLOCK], np.uint8).astype(np.intp)
        n = len(block)
        block[:4] ^= np.frombuffer(crc.to_bytes(4, "little"), np.uint8)[:n]
        crc = int(np.bitwise_xor.reduce(table[rows[BLOCK - n :] + block])) ^ (crc >> 8 * n)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as records hold it, since the checksum of what holds its own checksum says little."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """What a byte adds, the rows one behind the other, the first with BLOCK - 1 bytes behind it; where rows begin."""
    one: NDArray[Any] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = one >> 1 ^ (one & 1) * np.uint32(POLYNOMIAL)
    table = np.empty((BLOCK, 256), np.uint32)
    table[-1] = one
    for row in range(BLOCK - 1, 0, -1):
        table[row - 1] = table[row] >> 8 ^ one[table[row] & 0xFF]
    return table.reshape(-1), np.arange(BLOCK) * 256
