"""Commits in a process of their own, forked from the driver: a small round's commit takes as much Python as its
training, and one interpreter would do them in turns.

It ends with the driver, however that ends, and holds what the driver held: the lock of the run's folder too.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, final

import torch

from fl import faults
from fl.child_process import end_with_parent, never_returns, receive, send
from fl.errors import MeadowError, StorageFailed
from server.commits import Commits, Recorder
from server.records import Closing, RoundRecord, RunRecord, RunSummary
from server.tracking import written

NAME = "meadow-commits"
"""What `top` and `ps` show of the process."""

NOBODY = -1
"""In place of a descriptor."""

_SOCKETS: dict[int, socket.socket] = {}
"""By descriptor, those that this process has made: others' may come by run config, and pickles through them."""


@contextmanager
def commit_process(*, tensorboard: bool) -> Iterator[int]:
    """A process that commits, to be forked while this one has no threads that matter; it has gone with the block.

    The descriptor of a socket to it, for ``recorder``; NOBODY where this system has no more processes, or does not end
    them with their parent. ``tensorboard``: it gets ready to write files for that, while its parent prepares a run.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork() if sys.platform.startswith("linux") else NOBODY
    except OSError:
        pid = NOBODY
    if pid == NOBODY:
        ours.close()
        theirs.close()
        yield NOBODY
        return
    if not pid:
        ours.close()
        _work(theirs, tensorboard)
    theirs.close()
    descriptor = ours.fileno()
    _SOCKETS[descriptor] = ours
    try:
        yield descriptor
    finally:
        del _SOCKETS[descriptor]
        ours.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)  # what it was told to do, it has done and said so
            os.waitpid(pid, 0)


def recorder(commits: Commits, descriptor: int) -> Recorder:
    """``commits``, done by the process behind ``descriptor``; here where there is none, or it cannot have them."""
    if descriptor not in _SOCKETS:
        return commits
    elsewhere = _Elsewhere(_SOCKETS[descriptor])
    return elsewhere if elsewhere.takes(commits) else commits


@final
class _Elsewhere:
    """What it is told to do, and what came of it: (records, what was raised behind them)."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def takes(self, commits: Commits) -> bool:
        """Whether it can have them: a model's class that no module has, for one, cannot be told of."""
        try:
            message = pickle.dumps(commits, protocol=5)
        except (pickle.PicklingError, AttributeError, TypeError):
            return False
        return self._ask("take", message)[1] is None

    def on_start(self, run: RunRecord) -> None:
        self._done("on_start", run)

    def commit(self, closings: Sequence[Closing]) -> Iterator[RoundRecord]:
        records, error = self._ask("commit", closings)
        yield from records
        if error is not None:
            raise error

    def on_round(self, record: RoundRecord) -> None:
        self._done("on_round", record)

    def on_end(self, summary: RunSummary) -> None:
        self._done("on_end", summary)

    def _done(self, what: str, about: object) -> None:
        _, error = self._ask(what, about)
        if error is not None:
            raise error

    def _ask(self, what: str, about: object) -> tuple[list[RoundRecord], Exception | None]:
        try:
            send(self._connection, (what, about))
            answer: tuple[list[RoundRecord], Exception | None] = receive(self._connection)
        except (EOFError, OSError) as gone:
            why = f"the process {NAME}, which does that, was ended by somebody else"
            raise StorageFailed(path="the versions of this run", why=why) from gone
        return answer


def _work(driver: socket.socket, tensorboard: bool) -> NoReturn:
    with never_returns():
        end_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # some send it to all processes: the driver says when it is over
        faults.end_together(os.getppid())
        with suppress(OSError):
            Path("/proc/self/comm").write_text(NAME)
        torch.set_num_threads(1)
        written(tensorboard=tensorboard)
        gc.freeze()  # a collection would look through all that torch has loaded
        does: dict[str, Callable[[Any], None]] = {}
        records: list[RoundRecord] = []

        def take(message: bytes) -> None:
            commits: Commits = pickle.loads(message)  # noqa: S301  from the process that forked this one
            does.update(on_start=commits.on_start, on_round=commits.on_round, on_end=commits.on_end)
            does["commit"] = lambda closings: records.extend(commits.commit(closings))

        does["take"] = take
        while True:
            what, about = receive(driver)
            error: Exception | None = None
            try:
                does[what](about)
            except Exception as raised:  # noqa: BLE001  it is for the driver, whatever it is
                error = _portable(raised)
            send(driver, (records, error))
            records.clear()
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """``error`` as another process can have it, with where it was raised."""
    try:
        again: Any = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001  exceptions of others' code, which may do anything when pickled
        again = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(again, MeadowError):
        again.add_note("".join(traceback.format_exception(error)))
    found: Exception = again
    return found
