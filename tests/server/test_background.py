"""Work beside the main thread: in order, together where it waits, and what goes wrong is said behind what went well."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from server.background import Background


class Slow:
    """Work that can be held up; remembers which jobs it was given together."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.groups: list[list[int]] = []

    def __call__(self, jobs: Sequence[int]) -> Iterator[int]:
        self.groups.append(list(jobs))
        self.begun.set()
        assert self.go.wait(10)
        for job in jobs:
            if job < 0:
                raise ValueError(f"job {job}")
            yield 10 * job


def started(work: Slow, jobs: Sequence[int], *, most: int) -> Background[int, int]:
    """``jobs`` begun: the first alone, since the others come while it is held up."""
    background = Background(work, most=most)
    background.start(jobs[0])
    assert work.begun.wait(10)
    for job in jobs[1:]:
        background.start(job)
    return background


def test_what_waits_is_done_together_and_in_order() -> None:
    work = Slow()
    background = started(work, [1, 2, 3, 4], most=10)
    assert list(background.results(wait=False)) == []
    work.go.set()
    assert list(background.results(wait=True)) == [10, 20, 30, 40]
    assert work.groups == [[1], [2, 3, 4]]
    assert list(background.results(wait=True)) == []  # each once


def test_whoever_starts_more_than_may_be_open_waits() -> None:
    work = Slow()
    background = started(work, [1, 2], most=2)
    third = threading.Thread(target=background.start, args=(3,))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    work.go.set()
    third.join(10)
    assert not third.is_alive()
    assert list(background.results(wait=True)) == [10, 20, 30]


def test_an_error_comes_behind_the_results_before_it_and_ends_what_waits() -> None:
    work = Slow()
    background = started(work, [1, -2, 3], most=10)
    work.go.set()
    found: list[int] = []
    with pytest.raises(ValueError, match="job -2"):
        found += background.results(wait=True)
    assert found == [10]
    assert list(background.results(wait=True)) == []  # the third was not begun, and the error is said once


def test_what_comes_within_a_while_is_done_together_unless_somebody_waits() -> None:
    work = Slow()
    work.go.set()
    background = Background(work, most=10, gather_seconds=30)
    background.start(1)
    assert list(background.results(wait=True)) == [10]
    for job in (2, 3, 4):
        background.start(job)
    assert list(background.results(wait=False)) == []
    assert list(background.results(wait=True)) == [20, 30, 40]
    assert work.groups == [[1], [2, 3, 4]]


def test_as_many_as_may_wait_do_not_wait_for_more() -> None:
    work = Slow()
    work.go.set()
    background = Background(work, most=3, gather_seconds=30)
    began = time.monotonic()
    for job in range(1, 8):
        background.start(job)
    assert list(background.results(wait=True)) == [10, 20, 30, 40, 50, 60, 70]
    assert time.monotonic() - began < 20
