"""Workers that are forks of this process: ready at once, with all that is loaded, and without Ray.

A nursery is forked before this process has any other thread, and forks the workers when it is asked to: also those
that take the place of one that died. A worker reads calls from a socket and answers through its own memory file. It
ends with its socket, the nursery with its own, and the kernel ends both when their parent is gone, however it went.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress
from select import POLLIN, poll
from typing import Any, NoReturn

from flwr.app import RecordDict

from clients import transport
from clients.dispatch import Died
from clients.setting import Setting
from clients.sockets import Sockets, serve
from clients.unit import Reply
from fl.child_process import end_with_parent, exactly, never_returns

MOST_SECONDS_TO_DIE = 5.0
_PID = struct.Struct("<Q")


class ForkedPool:
    """A Pool of processes that are forked from this one, which holds ``setting`` and has no other threads yet.

    A worker is its process id.
    """

    shares_memory = True
    grace_seconds = 0.0

    def __init__(self, setting: Setting) -> None:
        if not transport.available():
            raise OSError("this system has no memory files")
        self._control, theirs = socket.socketpair()
        self._sockets = Sockets()
        self._nursery = os.fork()
        if not self._nursery:
            self._control.close()
            _nurse(theirs, setting)
        theirs.close()

    def start(self) -> int:
        """Ask the nursery for a worker."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [b"+"], [theirs.fileno()])
        theirs.close()
        pid: int = _PID.unpack(exactly(self._control, _PID.size))[0]
        self._sockets.add(pid, ours)
        return pid

    def ready(self, workers: list[Any]) -> None:
        """They are as ready as this process was."""

    def is_ready(self, worker: int) -> bool:
        """From the start."""
        return True

    def put(self, content: RecordDict) -> Any:
        """Memory is always shared."""
        raise TypeError("memory is shared")

    def call(self, worker: int, kind: str, clients: tuple[int, ...], content: Any) -> None:
        """Through its socket."""
        self._sockets.call(worker, kind, clients, content)

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """Whoever has answered or closed its socket."""
        return self._sockets.wait(timeout)

    def end(self, worker: int) -> None:
        """Kill it, and wait until it is gone: it holds what was open here, the lock of the run's folder too."""
        self._sockets.remove(worker)
        with suppress(ProcessLookupError):
            death = os.pidfd_open(worker)
            try:
                signal.pidfd_send_signal(death, signal.SIGKILL)
                gone = poll()
                gone.register(death, POLLIN)
                gone.poll(1000 * MOST_SECONDS_TO_DIE)
            finally:
                os.close(death)

    def close(self) -> None:
        """End the nursery; its workers have been ended by now."""
        self._control.close()
        self._sockets.close()
        with suppress(ChildProcessError):
            os.waitpid(self._nursery, 0)


def _nurse(control: socket.socket, setting: Setting) -> NoReturn:
    """Fork a worker for every socket that comes, until there is nobody to send one."""
    with never_returns():
        end_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets dead workers by itself
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                break
            pid = os.fork()
            if not pid:
                control.close()
                _work(socket.socket(fileno=descriptors[0]), setting)
            os.close(descriptors[0])
            control.sendall(_PID.pack(pid))
    os._exit(0)


def _work(driver: socket.socket, setting: Setting) -> NoReturn:
    with never_returns():
        end_with_parent()
        serve(driver, lambda: setting)
    os._exit(0)
