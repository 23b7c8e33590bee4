"""Work beside the main thread, in the order given. What waits while something is done is done together after it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Generic, TypeVar

SWITCH_SECONDS = 0.0005
"""How long this thread may keep the main one from going on: 5 ms, as Python has it, are all of a small round."""

GATHER_SECONDS = 0.1
"""Between two beginnings, unless somebody waits: what each costs is shared by all that came meanwhile.

It is also about how much of a run a kill -9 takes. A round of the 2NN is trained in 30 ms, and its commit costs a
seventh less CPU than with half of this.
"""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Background(Generic[Job, Result]):
    """A thread, made on first use. ``work`` takes the jobs that wait and gives their results in the same order.

    ``most`` jobs may be unfinished; whoever starts another one waits. ``gather_seconds`` lie between two beginnings of
    ``work``, unless somebody waits. What it raises ends it: jobs after that are not begun, and ``results`` raises it
    behind the results that were there.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Iterable[Result]],
        *,
        most: int = 1,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self.most = most
        self._work = work
        self._gather_seconds = gather_seconds
        self._not_before = 0.0
        self._awaited = 0
        self._changed = Condition()
        self._waiting: list[Job] = []
        self._unfinished = 0
        self._results: deque[Result] = deque()
        self._error: BaseException | None = None
        self._thread: ThreadPoolExecutor | None = None

    def start(self, job: Job) -> None:
        """Hand over a job, as soon as there is room for it."""
        if self._thread is None:
            sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished < self.most or self._error)
            self._waiting.append(job)
            self._unfinished += 1
            if self._unfinished >= self.most:  # the thread need not gather any longer; else it is left asleep
                self._changed.notify_all()
            if len(self._waiting) == 1:  # the others go with it
                self._thread.submit(self._do_what_waits)

    def results(self, *, wait: bool) -> Iterator[Result]:
        """Results that nobody has taken yet, in the order of their jobs; with ``wait``, of all that was started."""
        with self._changed:
            if wait:
                self._awaited += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._unfinished or self._error)
                self._awaited -= 1
            found, self._results = self._results, deque()
            error = None
            if self._error is not None:  # said once: what was started after it is forgotten
                error, self._error = self._error, None
                self._waiting, self._unfinished = [], 0
        yield from found
        if error is not None:
            raise error

    def _do_what_waits(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._awaited or self._unfinished >= self.most or self._error,
                timeout=self._not_before - time.monotonic(),
            )
            if self._error is not None:
                return
            jobs, self._waiting = self._waiting, []
        self._not_before = time.monotonic() + self._gather_seconds
        try:
            for result in self._work(jobs):
                with self._changed:
                    self._results.append(result)
                    self._unfinished -= 1
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  it is for whoever asks for the results
            with self._changed:
                self._error = error
                self._changed.notify_all()
