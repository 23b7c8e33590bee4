"""Processes that are forked from this one and end with it, and what is said over the sockets to them.

A message is a pickle behind its length: it comes from a process of our own. Large buffers follow it without copies.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PR_SET_PDEATHSIG = 1

IN_THE_PICKLE = 2**16
"""Bytes up to which a buffer is copied into the pickle: that costs less than another system call."""

_SIZES = struct.Struct("<QQ")


@contextmanager
def never_returns() -> Iterator[None]:
    """Whatever happens in the block, this process, a fork, does not go on with what its parent was doing."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes: it is the parent's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def end_with_parent() -> None:
    """Let the kernel kill this process, a fork, when its parent is gone, however it went."""
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def send(to: socket.socket, value: object) -> None:
    """One message. Raises OSError if the other end is closed."""
    large: list[memoryview] = []

    def in_the_pickle(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes > IN_THE_PICKLE:
            large.append(view)
        return view.nbytes <= IN_THE_PICKLE

    message = pickle.dumps(value, protocol=5, buffer_callback=in_the_pickle)
    lengths = struct.pack(f"<{len(large)}Q", *(view.nbytes for view in large))
    to.sendall(b"".join((_SIZES.pack(len(message), len(large)), lengths, message)))
    for view in large:
        to.sendall(view)


def receive(source: socket.socket) -> Any:
    """The next message. Raises EOFError if the other end is closed."""
    length, count = _SIZES.unpack(exactly(source, _SIZES.size))
    lengths = struct.unpack(f"<{count}Q", exactly(source, 8 * count))
    message = exactly(source, length)
    return pickle.loads(message, buffers=[exactly(source, each) for each in lengths])  # noqa: S301


def exactly(source: socket.socket, length: int) -> bytearray:
    """So many bytes. Raises EOFError if the other end is closed before."""
    content = bytearray(length)
    view = memoryview(content)
    while view.nbytes:
        got = source.recv_into(view)
        if not got:
            raise EOFError("the other end is closed")
        view = view[got:]
    return content
