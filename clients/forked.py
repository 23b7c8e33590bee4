"""Workers that are forks of this process: ready at once, with all that is loaded, and without Ray.

A nursery is forked before this process has any other thread, and forks the workers when it is asked to: also those
that take the place of one that died. A worker reads calls from a socket and answers through its own memory file. It
ends with its socket, the nursery with its own, and the kernel ends both when their parent is gone, however it went.
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
from dataclasses import dataclass
from select import POLLIN, poll
from selectors import EVENT_READ, DefaultSelector
from typing import Any, NoReturn

from flwr.app import RecordDict

from clients import transport
from clients.dispatch import Died
from clients.setting import Setting
from clients.transport import Packed, Segment
from clients.unit import Reply, answer
from fl.errors import CorruptFile, MeadowError, StorageFailed

PR_SET_PDEATHSIG = 1
MOST_SECONDS_TO_DIE = 5.0
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Worker:
    """A worker process, and this side of its socket."""

    pid: int
    socket: socket.socket

    def __hash__(self) -> int:
        return self.pid


class ForkedPool:
    """A Pool of processes that are forked from this one, which holds ``setting`` and has no other threads yet."""

    shares_memory = True
    grace_seconds = 0.0

    def __init__(self, setting: Setting) -> None:
        if not transport.available():
            raise OSError("this system has no memory files")
        self._control, theirs = socket.socketpair()
        self._selector = DefaultSelector()
        self._nursery = os.fork()
        if not self._nursery:
            self._control.close()
            _nurse(theirs, setting)
        theirs.close()

    def start(self) -> Worker:
        """Ask the nursery for a worker."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [b"+"], [theirs.fileno()])
        theirs.close()
        (pid,) = _LENGTH.unpack(_exactly(self._control, _LENGTH.size))
        worker = Worker(pid, ours)
        self._selector.register(ours, EVENT_READ, worker)
        return worker

    def ready(self, workers: list[Any]) -> None:
        """They are as ready as this process was."""

    def is_ready(self, worker: Worker) -> bool:
        """From the start."""
        return True

    def put(self, content: RecordDict) -> Any:
        """Memory is always shared."""
        raise TypeError("memory is shared")

    def call(self, worker: Worker, kind: str, clients: tuple[int, ...], content: Any) -> None:
        """Send the call; a worker that is dead says so when its socket is read."""
        with suppress(OSError):
            _send(worker.socket, (kind, clients, content))

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """Whoever has answered or closed its socket."""
        return [(key.data, self._answer(key.data)) for key, _ in self._selector.select(timeout)]

    def end(self, worker: Worker) -> None:
        """Kill it, and wait until it is gone: it holds what was open here, the lock of the run's folder too."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(worker.socket)
        worker.socket.close()
        with suppress(ProcessLookupError):
            death = os.pidfd_open(worker.pid)
            try:
                signal.pidfd_send_signal(death, signal.SIGKILL)
                gone = poll()
                gone.register(death, POLLIN)
                gone.poll(1000 * MOST_SECONDS_TO_DIE)
            finally:
                os.close(death)

    def close(self) -> None:
        """End the nursery; its workers' sockets are closed by now."""
        self._control.close()
        self._selector.close()
        with suppress(ChildProcessError):
            os.waitpid(self._nursery, 0)

    def _answer(self, worker: Worker) -> list[Reply] | Died:
        try:
            answered: Packed | MeadowError = _receive(worker.socket)
            if isinstance(answered, MeadowError):
                raise answered
            replies: list[Reply] = answered.load(copy=True)
        except (EOFError, OSError) as error:
            return Died(type(error).__name__)
        return replies


def _nurse(control: socket.socket, setting: Setting) -> NoReturn:
    """Fork a worker for every socket that comes, until there is nobody to send one."""
    with _never_returns():
        _end_with_parent()
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
            control.sendall(_LENGTH.pack(pid))
    os._exit(0)


def _work(driver: socket.socket, setting: Setting) -> NoReturn:
    """Do units until the driver closes the socket. It reads an answer before it calls again: one segment is enough."""
    with _never_returns():
        _end_with_parent()
        results = Segment()
        while True:
            kind, clients, content = _receive(driver)
            try:
                setting.store  # noqa: B018  opened here: what is damaged ends the run, rather than a client's task
                answered: Packed | MeadowError = results.pack(answer(setting, kind, content.load(copy=False), clients))
            except (StorageFailed, CorruptFile) as failure:
                answered = failure
            _send(driver, answered)
    os._exit(0)


@contextmanager
def _never_returns() -> Iterator[None]:
    """Whatever happens in the block, this process does not go on with what its parent was doing."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes: it is the driver's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def _end_with_parent() -> None:
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _send(to: socket.socket, value: object) -> None:
    message = pickle.dumps(value, protocol=5)
    to.sendall(_LENGTH.pack(len(message)) + message)


def _receive(source: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    return pickle.loads(_exactly(source, length))  # noqa: S301  from a process of our own


def _exactly(source: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view.nbytes:
        got = source.recv_into(view)
        if not got:
            raise EOFError("the other end is closed")
        view = view[got:]
    return content
