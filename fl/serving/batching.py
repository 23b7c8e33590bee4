"""Rows of several requests in one call of the model: while one call runs, the requests for the next one gather.

A model answers 64 rows in little more time than one, so under load a call takes all that has come since the last one
began. Nobody waits for company on an idle server unless ``wait_seconds`` says so, and then no longer than that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from fl.parameters import Array
from fl.serving.model import Model

AT_ONCE_SECONDS = 0.001
"""A steady model's call that takes less is made where requests are read: another thread would cost more than that."""


class Overloaded(Exception):
    """The queue is full: the request was not taken."""


@dataclass(eq=False)
class _Asked:
    model: Model
    inputs: Array
    answer: asyncio.Future[Array]
    at: float


@dataclass(eq=False)
class Batcher:
    """Calls models, one call at a time: in a thread of its own, unless that is more trouble than the call.

    most_rows     of a call; a larger request is a call by itself
    most_waiting  rows in the queue; what would be more is refused
    wait_seconds  how long the first request of a call may wait for others
    """

    most_rows: int = 64
    most_waiting: int = 1024
    wait_seconds: float = 0.0
    calls: int = 0
    _queue: deque[_Asked] = field(default_factory=deque)
    _rows: int = 0
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="model"))
    _running: asyncio.Task[None] | None = None
    _calling: bool = False
    _last: tuple[Model | None, int, float] = (None, 1, 0.0)  # the call before: of which model, rows, seconds
    _beside: list[Batcher] = field(default_factory=list)  # all that requests of one server go to, this one included

    def __post_init__(self) -> None:
        self._beside.append(self)

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or about to be."""
        return self._running is not None

    def another(self) -> Batcher:
        """One with the same bounds, for another model."""
        return Batcher(self.most_rows, self.most_waiting, self.wait_seconds, _beside=self._beside)

    async def ask(self, model: Model, inputs: Array) -> Array:
        """The model's answer to ``inputs``. Raises Overloaded where the queue is full, and what the model raises."""
        if self._queue and self._rows + len(inputs) > self.most_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        asked = _Asked(model, inputs, loop.create_future(), loop.time())
        self._queue.append(asked)
        self._rows += len(inputs)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asked.answer

    def close(self, *, wait: bool = True) -> None:
        """Let the thread end; ``wait`` until it has."""
        if self in self._beside:
            self._beside.remove(self)
        self._thread.shutdown(wait=wait)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                if self.wait_seconds:
                    await self._gather(loop)
                else:
                    await self._arrived()
                together = self._next()
                if together:
                    self.calls += 1
                    self._calling = True
                    try:
                        await self._call(loop, together)
                    finally:
                        self._calling = False
        finally:
            self._running = None

    async def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        ends = self._queue[0].at + self.wait_seconds
        while self._rows < self.most_rows and (left := ends - loop.time()) > 0:
            await asyncio.sleep(min(left, self.wait_seconds / 4))

    async def _arrived(self) -> None:
        """Let those requests in that are being read at this moment, by whichever model they are answered.

        Where each model went ahead with its own, a server of two would take turns in small calls. What waits behind a
        call that is under way is nobody's concern here: that model may be slow, or hang.
        """
        before = 0
        while self._rows < self.most_rows:
            waiting = sum(one.waiting for one in self._beside if not one._calling)
            if waiting <= before:
                return
            before = waiting
            await asyncio.sleep(0)

    def _next(self) -> list[_Asked]:
        """Requests for one model, in their order, that nobody has given up meanwhile."""
        together: list[_Asked] = []
        rows = 0
        while self._queue:
            first = self._queue[0]
            if together and (first.model is not together[0].model or rows + len(first.inputs) > self.most_rows):
                break
            self._queue.popleft()
            self._rows -= len(first.inputs)
            if not first.answer.done():
                together.append(first)
                rows += len(first.inputs)
        return together

    async def _call(self, loop: asyncio.AbstractEventLoop, together: list[_Asked]) -> None:
        model = together[0].model
        inputs = together[0].inputs if len(together) == 1 else np.concatenate([one.inputs for one in together])
        try:
            if self._is_short(model, len(inputs)):
                answers = self._timed(model, inputs)
            else:
                answers = await loop.run_in_executor(self._thread, self._timed, model, inputs)
        except Exception as error:  # noqa: BLE001  whatever a model raises is the answer to those who asked
            for one in together:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        start = 0
        for one in together:
            end = start + len(one.inputs)
            if not one.answer.done():
                one.answer.set_result(answers[start:end])
            start = end

    def _is_short(self, model: Model, rows: int) -> bool:
        known, rows_before, seconds = self._last
        return model.steady and known is model and seconds * max(1.0, rows / rows_before) < AT_ONCE_SECONDS

    def _timed(self, model: Model, inputs: Array) -> Array:
        began = time.perf_counter()
        answers = model.answer(inputs)
        self._last = model, len(inputs), time.perf_counter() - began
        return answers
