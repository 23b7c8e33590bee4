"""A shadow: a version that gets copies of requests, in a process of its own, and whose answers nobody waits for.

Whatever it does, crash, hang or take all the memory it can get, it does in that process; here there is a queue with a
bound, and a thread that hands over what has gathered and waits for the answer no longer than a limit. What finds the
queue full is dropped and counted; a process that is late, or only raises, is ended, and started again after a while
that doubles.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, final

import numpy as np

from fl.parameters import Array
from fl.serving.model import Model

AGREES_WITHIN = 0.01
"""Of a regression: answers agree that differ by at most this share of the champion's, or by this near 0."""

START_SECONDS = 60.0
GATHER_SECONDS = 0.02
"""Between two hand-overs: a request at a time, the shadow would wake as often as the server, beside it."""
FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 16.0, 256.0
"""Between two starts of a process that fails. A start loads the version anew, and is what a failing shadow costs: those
who are answered during one wait longer, and of all of them they are to be well below one in a hundred."""
MOST_RAISED = 4
"""Hand-overs in a row to which there was no answer but an exception. One that answers nothing is paused as well: for
those who are answered beside it, it costs as much as one that is sound."""

IMPORTED_FIRST = ("torch", "onnxruntime", "numpy.random")
"""What takes long to import, and is imported once for all shadows, as our own modules are, where the server itself has
needed it."""


@dataclass(frozen=True)
class Copy:
    """A request for the shadow: its id, what went into the model, and what the champion said."""

    id: str
    inputs: Array
    outputs: Array


@dataclass(frozen=True)
class Compared:
    """What a shadow said to some requests, or that it failed: then there are no answers.

    seconds    that it took over each; ``agreed`` how many agree with the champion
    """

    copies: tuple[Copy, ...]
    seconds: float
    answers: tuple[Array, ...] = ()
    agreed: int = 0


@final
class Mirror:
    """A shadow under way, known by ``name`` once it has loaded.

    load           makes the model of a version, in the other process, and so has to be picklable
    most_rows      that are handed over in one go; ``most_waiting`` requests wait at most
    answer_seconds that it may take over that
    """

    def __init__(
        self,
        arm: str,
        version: str,
        load: Callable[[str], Model],
        *,
        regression: bool,
        most_rows: int = 64,
        most_waiting: int = 256,
        answer_seconds: float = 2.0,
    ) -> None:
        self.arm, self.version, self.name = arm, version, version[:12]
        self.compared = 0
        self.dropped = self.failures = 0
        self.trouble = ""
        self._load, self._regression = load, regression
        self._most_rows, self._most_waiting, self._answer_seconds = most_rows, most_waiting, answer_seconds
        self._queue: deque[Copy] = deque()
        self._done: deque[Compared] = deque(maxlen=10_000)
        self._raised = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mirror of {arm}", daemon=True)
        self._thread.start()

    def offer(self, number: str, inputs: Array, outputs: Array) -> None:
        """Hand a copy of a request over, if there is room. Never waits."""
        if len(self._queue) < self._most_waiting:
            self._queue.append(Copy(number, inputs, outputs))
        else:
            self.dropped += 1

    def take(self) -> list[Compared]:
        """What has been compared since the last call."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def end(self) -> None:
        """Let the process end; nobody waits for it."""
        self._ending.set()

    # --- the thread

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            try:
                with _Process(self._load, self.version) as process:
                    self._start(process)
                    while not self._ending.is_set():
                        if (together := self._gathered()) and self._compare(process, together):
                            pause, self.trouble = FIRST_PAUSE_SECONDS, ""
                        if len(self._queue) < self._most_rows:
                            time.sleep(GATHER_SECONDS)
            except _Failed as error:
                self.trouble = str(error)
                self.failures += 1
            if self._ending.wait(pause):
                return
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    def _start(self, process: _Process) -> None:
        try:
            self.name = process.started(START_SECONDS)
        except _Failed:
            self._done.append(Compared(self._gathered(), 0.0))
            raise

    def _gathered(self) -> tuple[Copy, ...]:
        found: list[Copy] = []
        rows = 0
        while self._queue and (not found or rows + len(self._queue[0].inputs) <= self._most_rows):
            found.append(self._queue.popleft())
            rows += len(found[-1].inputs)
        return tuple(found)

    def _compare(self, process: _Process, copies: tuple[Copy, ...]) -> bool:
        """Whether it answered. Raises _Failed where it is gone or late, or raises again and again."""
        began = time.perf_counter()
        try:
            outputs, seconds = process.ask(np.concatenate([copy.inputs for copy in copies]), self._answer_seconds)
        except _Failed:
            self._done.append(Compared(copies, time.perf_counter() - began))
            raise
        if outputs is None:
            self._done.append(Compared(copies, seconds))
            self._raised += 1
            if self._raised % MOST_RAISED == 0:
                raise _Failed(f"it raised at each of the last {self._raised} times it was asked")
            return False
        self._raised = 0
        self.compared += len(copies)
        ends = np.cumsum([len(copy.inputs) for copy in copies])[:-1]
        answers = tuple(np.split(outputs, ends))
        agreed = sum(self._agree(copy.outputs, answer) for copy, answer in zip(copies, answers, strict=True))
        self._done.append(Compared(copies, seconds, answers, agreed))
        return True

    def _agree(self, ours: Array, theirs: Array) -> bool:
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            return False
        if self._regression:
            return bool(np.allclose(theirs, ours, rtol=AGREES_WITHIN, atol=AGREES_WITHIN))
        return bool((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).all())


class _Failed(Exception):
    """The process is gone, or late."""


class _Process:
    def __init__(self, load: Callable[[str], Model], version: str) -> None:
        # A process that has imported all that and does nothing else forks each shadow: started from nothing, at a low
        # priority, a shadow had no chance to begin on a machine that is busy.
        context = multiprocessing.get_context("forkserver")
        ours = tuple(f"{name.partition('.')[0]}." for name in (__name__, load.__module__))
        context.set_forkserver_preload(
            [name for name in sys.modules if name in IMPORTED_FIRST or name.startswith(ours)]
        )
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, load, version), daemon=True)
        try:
            self._process.start()
        except (OSError, ValueError, TypeError, AttributeError) as error:  # no memory, or what cannot be pickled
            raise _Failed(f"it cannot be started: {error}") from error
        theirs.close()

    def started(self, seconds: float) -> str:
        """The version's name, once it is loaded. Raises _Failed."""
        return str(self._received(seconds))

    def ask(self, inputs: Array, seconds: float) -> tuple[Array | None, float]:
        """Its outputs, None if it raised, and the seconds that it took. Raises _Failed."""
        try:
            self._ours.send(inputs)
        except OSError as error:
            raise self._gone() from error
        found: tuple[Array | None, float] = self._received(seconds)
        return found

    def _received(self, seconds: float) -> Any:
        try:
            if not self._ours.poll(seconds):
                raise _Failed(f"no answer within {seconds:g} s")
            return self._ours.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error

    def _gone(self) -> _Failed:
        self._process.join(1)
        return _Failed(f"its process ended, status {self._process.exitcode}")

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join(5)


def _answer(connection: Connection, load: Callable[[str], Model], version: str) -> None:
    """The other process: load, say so, and answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.nice(19)  # those who are answered come first
    model = load(version)
    connection.send(model.version)
    while True:
        try:
            inputs: Any = connection.recv()
        except EOFError:
            return
        began = time.perf_counter()
        try:
            outputs = model.answer(inputs)
        except Exception:  # noqa: BLE001  what a shadow raises is counted there, and it goes on
            outputs = None
        connection.send((outputs, time.perf_counter() - began))


def _end_with(parent: int) -> None:
    """A server that was killed cannot end its shadows, and one that hangs does not see that it is alone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
