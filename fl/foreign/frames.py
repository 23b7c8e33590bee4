"""Frames over a stream socket: a JSON header, then buffers of any length, sent without copies.

    8 bytes   length of the header, number of buffers (uint32 each, little-endian)
    8 bytes   a buffer: its length
    header, buffers

A frame is read whole. Nothing in it is ever unpickled here.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Frame: TypeAlias = tuple[dict[str, Any], list[Buffer]]

_SIZES = struct.Struct("<II")
SMALL = 1 << 16
"""Bytes up to which parts are joined before they are sent: copying them costs less than another system call."""


def send(to: socket.socket, header: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
    """Write one frame. Raises OSError where the other end is gone."""
    text = json.dumps(header).encode()
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    joined = bytearray(_SIZES.pack(len(text), len(views)))
    joined += struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    joined += text
    for view in views:
        if view.nbytes <= SMALL:
            joined += view
            continue
        to.sendall(joined)
        to.sendall(view)
        joined = bytearray()
    if joined:
        to.sendall(joined)


def receive(source: socket.socket) -> Frame:
    """Read one frame. Raises EOFError where the other end is gone, also in the middle of a frame."""
    return Reader(source, ahead=0).receive()


class Reader:
    """Frames from one socket, which nobody else reads: up to ``ahead`` bytes are taken at a time, frames or not."""

    def __init__(self, source: socket.socket, *, ahead: int = SMALL) -> None:
        self._source, self._ahead, self._held = source, ahead, memoryview(b"")

    def receive(self) -> Frame:
        """As the function of that name."""
        header_bytes, count = _SIZES.unpack(self._take(_SIZES.size))
        lengths = struct.unpack(f"<{count}Q", self._take(8 * count))
        header = json.loads(self._take(header_bytes))
        return header, [self._take(length) for length in lengths]

    @property
    def holds_a_frame(self) -> bool:
        """Whether the next frame has been read ahead, whole: waiting for the socket would not tell."""
        held = self._held
        if len(held) < _SIZES.size:
            return False
        header_bytes, count = _SIZES.unpack_from(held)
        start = _SIZES.size + 8 * int(count)
        if len(held) < start:
            return False
        lengths: tuple[int, ...] = struct.unpack_from(f"<{count}Q", held, _SIZES.size)
        return len(held) >= start + int(header_bytes) + sum(lengths)

    def _take(self, length: int) -> bytearray:
        while not self._held and 0 < length < self._ahead:
            self._held = memoryview(self._some())
        content = bytearray(length)
        had = min(length, len(self._held))
        content[:had] = self._held[:had]
        self._held = self._held[had:]
        if had == length:
            return content
        if length - had < self._ahead:
            content[had:] = self._take(length - had)
            return content
        _fill(self._source, memoryview(content)[had:])
        return content

    def _some(self) -> bytes:
        try:
            got = self._source.recv(self._ahead)
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not got:
            raise EOFError("the other end is closed")
        return got


def _fill(source: socket.socket, view: memoryview) -> None:
    while view.nbytes:
        try:
            got = source.recv_into(view)
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not got:
            raise EOFError("the other end is closed")
        view = view[got:]
