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
    header_bytes, count = _SIZES.unpack(_exactly(source, _SIZES.size))
    lengths = struct.unpack(f"<{count}Q", _exactly(source, 8 * count))
    header = json.loads(_exactly(source, header_bytes))
    buffers: list[Buffer] = [_exactly(source, length) for length in lengths]
    return header, buffers


def _exactly(source: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view.nbytes:
        try:
            got = source.recv_into(view)
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not got:
            raise EOFError("the other end is closed")
        view = view[got:]
    return content
