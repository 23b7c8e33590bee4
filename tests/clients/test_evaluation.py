"""A model on a client's own test part: statistics that merge, and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clients.setting import Setting
from clients.unit import Reply, answer
from fl import wire
from fl.metrics import merge, values
from fl.models import arrays
from fl.models.evaluate import evaluate
from fl.parameters import Parameters

Devices = Callable[..., Setting]


def ask(setting: Setting, parameters: Parameters, clients: list[int], **more: Any) -> list[Reply]:
    content = wire.evaluate_content(wire.array_record(parameters), round=3, **more)
    return answer(setting, "evaluate", content, clients)


def statistics(reply: Reply) -> dict[str, Any]:
    assert reply.content is not None, reply.error
    return wire._decode(reply.content.config_records["statistics"])


def test_merged_over_clients_it_is_the_evaluation_of_all_their_examples(devices: Devices, start: Parameters) -> None:
    setting = devices()
    replies = ask(setting, start, list(range(6)))
    merged = values(merge(statistics(reply) for reply in replies))
    parts = [setting.store.partition(client).test for client in range(6)]
    arrays.load_parameters(setting.module, start)
    x, y = np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    whole = values(evaluate(setting.module, x, y, setting.signature))
    assert merged["accuracy"] == pytest.approx(whole["accuracy"], rel=1e-12)
    assert merged["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_each_client_answers_for_itself(devices: Devices, start: Parameters) -> None:
    setting = devices()
    replies = ask(setting, start, [4, 1])
    assert [reply.clients for reply in replies] == [(4,), (1,)]
    for reply, client in zip(replies, (4, 1), strict=True):
        assert reply.content is not None
        metrics = reply.content.metric_records["metrics"]
        assert metrics["client"] == client
        assert metrics["num-examples"] == len(setting.store.partition(client).test.y)
        assert not reply.content.array_records


def test_a_client_without_a_test_part_fails_alone(devices: Devices, start: Parameters) -> None:
    setting = devices()
    place = setting.store.place
    nothing = slice(0, 0)
    object.__setattr__(
        setting.store, "place", lambda client, part: nothing if (client, part) == (1, 2) else place(client, part)
    )
    first, second, third = ask(setting, start, [0, 1, 2])
    assert first.content is not None and third.content is not None
    assert second.error is not None and second.error.code == wire.FAILED
    assert "client 1 failed: its test part is empty" in str(second.error.reason)


def test_evaluating_is_no_use_of_the_device_where_it_says_so(devices: Devices, start: Parameters) -> None:
    setting = devices(personal=True)
    (reply,) = ask(setting, start, [1], personal=False)
    assert not [name for name in statistics(reply) if name.startswith("personal")]
    assert setting.personal is not None and setting.personal.load(1, before=99) is None
    (reply,) = ask(setting, start, [1])
    assert {"personal_loss", "personal_accuracy", "lag"} <= statistics(reply).keys()
