"""A unit of clients: each by itself, added up in their order, and nobody touched by another's fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from clients.setting import Setting
from clients.unit import Reply, answer
from clients.updates import make_updates
from fl import wire
from fl.errors import ClientFailed
from fl.messages import TrainTask, Update
from fl.parameters import Parameters, norm, zeros_like

Devices = Callable[..., Setting]


def ask(setting: Setting, start: Parameters, clients: list[int], reply: str = "sum", **more: float) -> list[Reply]:
    shared = zeros_like(start) if setting.algorithm.keeps_client_state else {}
    content = wire.train_content(wire.array_record(start), shared, round=1, version=0)
    config = content.config_records["config"]
    config["reply"] = reply
    for name, value in more.items():
        config[name.replace("__", "-")] = value
    return answer(setting, "train", content, clients)


def updates(setting: Setting, start: Parameters, clients: list[int]) -> dict[int, Update]:
    shared = zeros_like(start) if setting.algorithm.keeps_client_state else {}
    return {
        client: one
        for client, one in make_updates(setting, TrainTask(1, 0, start, shared), clients)
        if isinstance(one, Update)
    }


@contextmanager
def poisoned(setting: Setting, client: int) -> Iterator[None]:
    """While it lasts, one client's examples are NaNs."""
    whole = setting.store
    place = whole.place(client, 0)
    x = whole.x.copy()
    x[place] = np.nan
    object.__setattr__(whole, "x", x)
    try:
        yield
    finally:
        del setting.__dict__["store"]


@pytest.mark.parametrize("path", ["auto", "one_by_one"])
@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_the_sum_is_that_of_the_updates_by_weight(
    path: str, algorithm: str, devices: Devices, start: Parameters
) -> None:
    clients = [0, 2, 3, 5]
    single = updates(devices(algorithm=algorithm, path=path), start, clients)
    (reply,) = ask(devices(algorithm=algorithm, path=path), start, clients)
    assert reply.clients == (0, 2, 3, 5) and reply.content is not None
    total = wire.arrays_of(reply.content.array_records["sum"])
    for name in start:
        expected = sum(one.num_examples * one.delta[name].astype(np.float64) for one in single.values())
        np.testing.assert_allclose(total[name], expected, rtol=1e-4, atol=1e-4)
    rows = reply.content.metric_records["clients"]
    assert rows["client"] == [0.0, 2.0, 3.0, 5.0]
    assert rows["weight"] == [float(one.num_examples) for one in single.values()]
    assert rows["update-norm"] == pytest.approx([norm(one.delta) for one in single.values()], rel=1e-5)
    assert ("extra" in reply.content.array_records) == (algorithm == "scaffold")


def test_one_by_one_a_client_does_not_depend_on_its_unit(devices: Devices, start: Parameters) -> None:
    setting = devices(path="one_by_one")
    together, alone = updates(setting, start, [0, 1, 2, 3]), updates(setting, start, [2])
    for name in start:
        np.testing.assert_array_equal(together[2].delta[name], alone[2].delta[name])


@pytest.mark.parametrize("path", ["auto", "one_by_one"])
@pytest.mark.parametrize("reply", ["sum", "parameters"])
def test_a_poisoned_client_is_refused_and_the_others_are_not_touched(
    path: str, reply: str, devices: Devices, start: Parameters
) -> None:
    setting = devices(path=path)
    without = updates(setting, start, [0, 1, 3])
    with poisoned(setting, 2):
        replies = ask(setting, start, [0, 1, 2, 3], reply)
        found = updates(setting, start, [0, 1, 2, 3])
    refused = [one for one in replies if one.error is not None]
    assert [one.clients for one in refused] == [(2,)]
    assert refused[0].error is not None and refused[0].error.code == wire.REFUSED
    assert "client 2: delta refused: array" in str(refused[0].error.reason)
    assert sorted(c for one in replies if one.content for c in one.clients) == [0, 1, 3]
    assert found.keys() == without.keys()
    for client, update in without.items():
        for name, value in update.delta.items():
            np.testing.assert_allclose(found[client].delta[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("path", ["auto", "one_by_one"])
def test_a_client_without_training_examples_fails_alone(path: str, devices: Devices, start: Parameters) -> None:
    for steps in ({}, {"local_steps": 3, "local_epochs": None}):
        setting = devices(path=path, **steps)
        store = setting.store

        def nothing(client: int, part: int, place: Any = store.place) -> Any:
            return slice(0, 0) if (client, part) == (1, 0) else place(client, part)

        parts = store.parts.copy()
        parts[1, 0] = 0
        object.__setattr__(store, "place", nothing)
        object.__setattr__(store, "parts", parts)
        replies = ask(setting, start, [0, 1, 2])
        assert [one.clients for one in replies] == [(0, 2), (1,)]
        assert "there is no example to train on" in str(replies[1].error.reason)  # type: ignore[union-attr]


def test_a_unit_of_failures_answers_for_each(devices: Devices, start: Parameters) -> None:
    wrong = {name: value[..., :1] for name, value in start.items()}
    replies = ask(devices(), wrong, [0, 1])
    assert [one.clients for one in replies] == [(0,), (1,)]
    assert all(one.error is not None and one.error.reason for one in replies)


def test_a_stock_strategys_reply_holds_local_parameters(devices: Devices, start: Parameters) -> None:
    single = updates(devices(), start, [1])[1]
    (reply,) = ask(devices(), start, [1], "parameters")
    assert reply.content is not None
    local = wire.arrays_of(reply.content.array_records["arrays"])
    for name, value in start.items():
        np.testing.assert_allclose(local[name], value + single.delta[name], rtol=1e-6, atol=1e-7)
    metrics = reply.content.metric_records["metrics"]
    assert metrics["num-examples"] == single.num_examples and metrics["client"] == 1
    assert len(reply.content.array_records) == len(reply.content.metric_records) == 1  # Flower insists


def test_clipping_for_flowers_privacy_keeps_the_direction(devices: Devices, start: Parameters) -> None:
    single = updates(devices(), start, [1])[1]
    length = norm(single.delta)
    for limit, bit in ((length / 2, 0), (length * 2, 1)):
        (reply,) = ask(devices(), start, [1], "parameters", clipping_norm=limit)
        assert reply.content is not None
        local = wire.arrays_of(reply.content.array_records["arrays"])
        moved = {name: local[name] - start[name] for name in start}
        assert norm(moved) == pytest.approx(min(length, limit), rel=1e-4)
        assert reply.content.metric_records["metrics"]["norm_bit"] == bit


def test_flowers_proximal_term_holds_clients_back(devices: Devices, start: Parameters) -> None:
    def moved(mu: float) -> float:
        (reply,) = ask(devices(), start, [1], "parameters", proximal__mu=mu)
        assert reply.content is not None
        return float(reply.content.metric_records["metrics"]["update-norm"])  # type: ignore[arg-type]

    assert moved(0.0) > moved(1.0) > moved(5.0)


def test_uniform_weights(devices: Devices, start: Parameters) -> None:
    from dataclasses import replace

    (reply,) = ask(replace(devices(), weighting="uniform"), start, [0, 2])
    assert reply.content is not None and reply.content.metric_records["clients"]["weight"] == [1.0, 1.0]


def test_uniform_weights_are_those_of_stock_strategies_too(devices: Devices, start: Parameters) -> None:
    from dataclasses import replace

    for options in ({}, {"clipping_norm": 0.1}):
        (reply,) = ask(replace(devices(), weighting="uniform"), start, [1], "parameters", **options)
        assert reply.content is not None and reply.content.metric_records["metrics"]["num-examples"] == 1


def test_reasons_are_bounded() -> None:
    error = wire.error_of(ClientFailed(client=3, reason="x" * 10_000))
    assert error.reason is not None and len(error.reason) <= wire.MAX_REASON
