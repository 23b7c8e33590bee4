"""Requests that come together are answered together, each with its own rows, and a full queue says so."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from fl.serving.batching import Batcher, Overloaded
from fl.serving.model import Model
from fl.signature import Signature

SIGNATURE = Signature("regression", (1,), "float64", 1)


def doubling(gate: threading.Event | None = None, calls: list[int] | None = None) -> Model:
    """Answers twice what it is asked, once ``gate`` is open; notes the rows of each call."""

    def answer(inputs: np.ndarray) -> np.ndarray:
        if gate is not None:
            assert gate.wait(10)
        if calls is not None:
            calls.append(len(inputs))
        if (inputs < 0).any():
            raise ArithmeticError("negative")
        return inputs * 2

    return Model("v", "h", SIGNATURE, answer)


def rows(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def together(batcher: Batcher, model: Model, asked: list[np.ndarray], gate: threading.Event) -> list[Any]:
    async def main() -> list[Any]:
        first = asyncio.create_task(batcher.ask(model, asked[0]))
        await asyncio.sleep(0.05)  # the first call is under way
        rest = [asyncio.create_task(batcher.ask(model, one)) for one in asked[1:]]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    try:
        return asyncio.run(main())
    finally:
        batcher.close()


def test_what_comes_during_a_call_makes_up_the_next() -> None:
    gate, calls = threading.Event(), []
    asked = [rows(1), *(rows(n, n + 0.5) for n in range(2, 6))]
    found = together(Batcher(most_rows=6), doubling(gate, calls), asked, gate)
    assert calls == [1, 6, 2]
    for one, answer in zip(asked, found, strict=True):
        np.testing.assert_array_equal(answer, one * 2)


def test_requests_for_two_models_are_not_mixed() -> None:
    gate, first, second = threading.Event(), [], []
    a, b = doubling(gate, first), doubling(gate, second)

    async def main() -> None:
        batcher = Batcher()
        tasks = [asyncio.create_task(batcher.ask(model, rows(n))) for n, model in enumerate((a, a, b, b, a))]
        gate.set()
        answers = await asyncio.gather(*tasks)
        assert [float(answer[0, 0]) for answer in answers] == [0, 2, 4, 6, 8]
        batcher.close()

    asyncio.run(main())
    assert (first, second) == ([2, 1], [2])


def test_models_of_one_server_let_all_in_that_is_being_read_before_they_answer() -> None:
    calls: dict[str, list[int]] = {"a": [], "b": []}
    models = {name: doubling(calls=noted) for name, noted in calls.items()}

    async def main() -> None:
        first = Batcher()
        lanes = {"a": first, "b": first.another()}

        async def asked(lane: str, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await lanes[lane].ask(models[lane], rows(1))

        # At two turns nothing comes for "a", but something for "b": there is more to be read.
        await asyncio.gather(*(asked(*one) for one in (("a", 0), ("b", 0), ("b", 1), ("b", 2), ("a", 3))))
        for lane in lanes.values():
            lane.close()

    asyncio.run(main())
    assert calls == {"a": [2], "b": [3]}


def test_nobody_waits_for_the_queue_of_a_model_that_hangs() -> None:
    gate, answered = threading.Event(), asyncio.Event()

    async def main() -> int:
        slow = Batcher()
        quick, hanging, model = slow.another(), doubling(gate), doubling()
        waiting = [asyncio.create_task(slow.ask(hanging, rows(1)))]
        await asyncio.sleep(0.05)  # its call is under way

        async def keep_asking() -> None:
            while not answered.is_set() and len(waiting) < 500:
                waiting.append(asyncio.create_task(slow.ask(hanging, rows(1))))
                await asyncio.sleep(0)

        asking = asyncio.create_task(keep_asking())
        await quick.ask(model, rows(3))
        answered.set()
        await asking
        gate.set()
        await asyncio.gather(*waiting)
        for one in (slow, quick):
            one.close()
        return len(waiting)

    assert asyncio.run(main()) < 100


def test_a_full_queue_refuses_and_what_waits_is_answered() -> None:
    gate = threading.Event()
    asked = [rows(1), rows(2, 3), rows(4, 5), rows(6, 7)]
    found = together(Batcher(most_waiting=4), doubling(gate), asked, gate)
    assert [isinstance(one, Overloaded) for one in found] == [False, False, False, True]


def test_one_larger_than_the_queue_is_answered_on_an_idle_server() -> None:
    gate = threading.Event()
    (found,) = together(Batcher(most_rows=2, most_waiting=2), doubling(gate), [rows(*range(50))], gate)
    np.testing.assert_array_equal(found, rows(*range(50)) * 2)


def test_what_the_model_raises_reaches_those_who_asked_and_nobody_after() -> None:
    gate = threading.Event()

    async def main() -> list[Any]:
        batcher, model = Batcher(), doubling()
        with pytest.raises(ArithmeticError, match="negative"):
            await batcher.ask(model, rows(-1))
        answer = await batcher.ask(model, rows(3))
        batcher.close()
        return [float(answer[0, 0])]

    gate.set()
    assert asyncio.run(main()) == [6.0]


def test_with_a_wait_an_idle_server_gathers_company() -> None:
    calls: list[int] = []

    async def main() -> None:
        batcher, model = Batcher(wait_seconds=0.5, most_rows=3), doubling(calls=calls)
        tasks = []
        for n in range(3):
            tasks.append(asyncio.create_task(batcher.ask(model, rows(n))))
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
        batcher.close()

    asyncio.run(main())
    assert calls == [3]


def test_one_that_was_given_up_costs_no_call() -> None:
    gate, calls = threading.Event(), []

    async def main() -> None:
        batcher, model = Batcher(), doubling(gate, calls)
        first = asyncio.create_task(batcher.ask(model, rows(1)))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.ask(model, rows(2)))
        last = asyncio.create_task(batcher.ask(model, rows(3)))
        await asyncio.sleep(0.02)
        gone.cancel()
        gate.set()
        await asyncio.gather(first, last)
        batcher.close()

    asyncio.run(main())
    assert calls == [1, 1]


def test_a_short_call_of_a_steady_model_is_made_where_the_requests_are_read() -> None:
    where: list[bool] = []

    def answer(inputs: np.ndarray, pause: float = 0.0) -> np.ndarray:
        where.append(threading.current_thread() is threading.main_thread())
        time.sleep(pause)
        return inputs

    quick = Model("v", "h", SIGNATURE, answer, steady=True)
    slow = Model("v", "h", SIGNATURE, lambda inputs: answer(inputs, 0.01), steady=True)
    unknown = Model("v", "h", SIGNATURE, answer)

    async def main() -> list[list[bool]]:
        found = []
        for model in (quick, slow, unknown):
            where.clear()
            for _ in range(50):  # on a busy machine a quick call may take long too
                await batcher.ask(model, rows(1))
                if len(where) > 2 and where[-1]:
                    break
            found.append([where[0], any(where)])
        return found

    batcher = Batcher()
    assert asyncio.run(main()) == [[False, True], [False, False], [False, False]]
    batcher.close()
