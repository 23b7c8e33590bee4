"""One piece of work beside the main thread: started, and waited for before the next one starts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """A thread that does one thing at a time, in the order given. Made on first use."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: Future[T] | None = None

    def start(self, work: Callable[[], T]) -> None:
        """Begin ``work``; what was begun before must have been finished."""
        if self._under_way is not None:
            raise RuntimeError("finish() comes before the next start()")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._under_way = self._threads.submit(work)

    def finish(self) -> T | None:
        """Wait for what was begun and return its result, None if nothing was; raises what it raised."""
        if self._under_way is None:
            return None
        under_way, self._under_way = self._under_way, None
        return under_way.result()
