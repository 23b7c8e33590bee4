"""Work units over sockets, between a pool and those of its workers that are on the same machine.

Arrays pass through shared memory (clients/transport.py). A worker that dies closes its socket, and a pool that dies
closes all of them: nobody asks whether the other is still there.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from clients.dispatch import Died
from clients.setting import Setting
from clients.transport import Packed, Segment
from clients.unit import Reply, answer
from fl.child_process import receive, send
from fl.errors import CorruptFile, MeadowError, StorageFailed

MOST_SECONDS_TO_CONNECT = 10.0
_CREDENTIALS = struct.Struct("3i")


class Sockets:
    """A pool's ends of the sockets to its workers, whatever these are to the pool.

    A worker is listened to from a call to its answer: one that dies while it is idle says so at the next call.
    """

    def __init__(self) -> None:
        self._selector = DefaultSelector()
        self._of: dict[Any, socket.socket] = {}

    def __contains__(self, worker: object) -> bool:
        return worker in self._of

    def add(self, worker: Any, connection: socket.socket) -> None:
        """``worker`` answers through ``connection`` from now on."""
        self._of[worker] = connection

    def remove(self, worker: Any) -> None:
        """Close the socket to ``worker``, if there is one; it ends with it."""
        if connection := self._of.pop(worker, None):
            with suppress(KeyError):  # it is idle
                self._selector.unregister(connection)
            connection.close()

    def call(self, worker: Any, kind: str, clients: tuple[int, ...], content: Packed) -> None:
        """Send a call; a worker that is dead says so when its socket is read."""
        connection = self._of[worker]
        self._selector.register(connection, EVENT_READ, worker)
        with suppress(OSError):
            send(connection, (kind, clients, content))

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """Who was called and has answered, or closed its socket. Raises what keeps a worker from going on at all."""
        return [(key.data, self._answer(self._of[key.data])) for key, _ in self._selector.select(timeout)]

    def close(self) -> None:
        """Close those that are left."""
        for worker in list(self._of):
            self.remove(worker)
        self._selector.close()

    def _answer(self, connection: socket.socket) -> list[Reply] | Died:
        self._selector.unregister(connection)
        try:
            answered: Packed | MeadowError = receive(connection)
            if isinstance(answered, MeadowError):
                raise answered
            replies: list[Reply] = answered.load(copy=True)
        except (EOFError, OSError) as error:
            return Died(type(error).__name__)
        return replies


def serve(driver: socket.socket, setting: Callable[[], Setting]) -> None:
    """Do units until the driver closes the socket. It reads an answer before it calls again: one segment is enough."""
    results = Segment()
    with suppress(EOFError, OSError):
        while True:
            kind, clients, content = receive(driver)
            try:
                setting().store  # noqa: B018  opened here: damage ends the run, rather than a client's task
                replies = answer(setting(), kind, content.load(copy=False), clients)
                answered: Packed | MeadowError = results.pack(replies)
            except (StorageFailed, CorruptFile) as failure:
                answered = failure
            send(driver, answered)


class Listener:
    """Where workers that this process did not fork connect. It has no name in the file system.

    The kernel tells who is at the other end: a socket is that of a worker if its process is.
    """

    def __init__(self) -> None:
        self.address = f"\0meadow-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        self._listener.settimeout(MOST_SECONDS_TO_CONNECT)
        self._early: dict[int, socket.socket] = {}

    def accept(self, pid: int) -> socket.socket:
        """The socket of the process ``pid``, which has connected. Raises TimeoutError if it has not."""
        while pid not in self._early:
            connection, _ = self._listener.accept()
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self._early[_CREDENTIALS.unpack(credentials)[0]] = connection
        return self._early.pop(pid)

    def close(self) -> None:
        """Nobody connects any more."""
        for connection in (self._listener, *self._early.values()):
            connection.close()


def connect(address: str) -> socket.socket:
    """A worker's end of a socket to the process that listens at ``address``."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection
