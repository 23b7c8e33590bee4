"""The device's own model: where it came from, when it is renewed, what it sends, and what it gains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import personal
from clients.evaluation import measure
from clients.setting import Setting
from clients.training import Trained
from clients.unit import answer
from clients.updates import make_updates
from experiments.run import simulate
from fl import wire
from fl.files import read_json
from fl.messages import EvaluateTask, EvaluationReport, TrainTask, Update
from fl.metrics import values
from fl.parameters import Parameters, add, subtract

Devices = Callable[..., Setting]
Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]


def update(setting: Setting, start: Parameters, client: int, *, round: int) -> Update:
    ((_, made),) = make_updates(setting, TrainTask(round, round - 1, start), [client])
    assert isinstance(made, Update), made
    return made


def shifted(start: Parameters, by: float) -> Parameters:
    return {name: value + np.float32(by) for name, value in start.items()}


def same(a: Parameters, b: Parameters) -> None:
    for name, value in b.items():
        np.testing.assert_allclose(a[name], value, rtol=1e-5, atol=1e-6)


def test_fresh_training_leaves_its_model_on_the_device_with_its_version(devices: Devices, start: Parameters) -> None:
    setting = devices(personal=True, personal_learning_rate=None)
    sent = update(setting, start, 1, round=3)
    own = personal.load(setting, 1, before=4)
    assert own is not None and own.version == 2
    same(own.parameters, add(start, sent.delta))
    assert personal.load(setting, 1, before=3) is None and personal.load(setting, 2, before=9) is None


def test_without_personal_nothing_is_kept(devices: Devices, start: Parameters) -> None:
    setting = devices()
    update(setting, start, 1, round=3)
    assert setting.personal is None and personal.load(setting, 1, before=9) is None


def test_a_device_picks_up_the_newest_version_at_its_next_use_and_the_lag_is_told(
    devices: Devices, start: Parameters
) -> None:
    setting = devices(personal=True, personal_learning_rate=None)
    update(setting, start, 1, round=1)  # its own model comes from version 0
    newer = shifted(start, 0.1)
    used = personal.use(setting, EvaluateTask(5, 5, newer), [1, 2])
    assert [used[client][1] for client in (1, 2)] == [5, 0]  # type: ignore[index]
    for client in (1, 2):
        own = personal.load(setting, client, before=6)
        assert own is not None and own.version == 5
    again = personal.use(setting, EvaluateTask(5, 5, newer), [1])
    assert again[1][1] == 0  # type: ignore[index]
    same(again[1][0], used[1][0])  # type: ignore[index, arg-type]


def test_its_own_model_is_the_newest_version_trained_further(devices: Devices, start: Parameters) -> None:
    setting = devices(personal=True, personal_epochs=8)
    report = evaluate(setting, start, 1)
    own = personal.load(setting, 1, before=2)
    assert own is not None
    on_its_own = values(measure(setting, own.parameters, 1))
    assert report["personal_loss"] == pytest.approx(on_its_own["loss"])
    train = setting.store.partition(1).train
    from fl.models import arrays
    from fl.models.evaluate import evaluate as measured

    losses = []
    for parameters in (start, own.parameters):
        arrays.load_parameters(setting.module, parameters)
        losses.append(values(measured(setting.module, train.x, train.y, setting.signature))["loss"])
    assert losses[1] < losses[0]


def evaluate(setting: Setting, start: Parameters, client: int, **more: Any) -> dict[str, float]:
    content = wire.evaluate_content(wire.array_record(start), round=1, **more)
    (reply,) = answer(setting, "evaluate", content, [client])
    assert reply.content is not None, reply.error
    from fl.wire import _decode

    return values(_decode(reply.content.config_records["statistics"]))


def test_a_device_that_sends_its_own_model_sends_the_difference_to_where_it_came_from(
    devices: Devices, start: Parameters
) -> None:
    setting = devices(personal=True, sends="personal")
    first = update(setting, start, 1, round=1)
    own = personal.load(setting, 1, before=2)
    assert own is not None and first.base_version == 0
    same(first.delta, subtract(own.parameters, start))
    newer = shifted(start, 0.2)
    second = update(setting, newer, 1, round=4)
    assert second.base_version == 0 and second.round == 4
    same(second.delta, first.delta)
    renewed = personal.load(setting, 1, before=5)
    assert renewed is not None and renewed.version == 3
    third = update(setting, shifted(start, 0.3), 1, round=6)
    assert third.base_version == 3
    same(third.delta, subtract(renewed.parameters, newer))


def test_a_round_that_happens_again_sends_the_same(devices: Devices, start: Parameters) -> None:
    setting = devices(personal=True, sends="personal")
    update(setting, start, 1, round=1)
    once = update(setting, shifted(start, 0.2), 1, round=2)
    twice = update(setting, shifted(start, 0.2), 1, round=2)
    for name in start:
        np.testing.assert_array_equal(once.delta[name], twice.delta[name])


def test_the_gain_is_told_client_by_client_and_merged(settings: Settings, told: Told) -> None:
    run = simulate(settings("client.personal=true", "client.personal_epochs=3", "num_rounds=3"))
    lines = [json.loads(line) for line in (run / "personal.jsonl").read_text().splitlines()]
    assert [line["client"] for line in lines] == list(range(6))
    for line in lines:
        assert line["gain"] == pytest.approx(line["personal_accuracy"] - line["accuracy"])
    merged = read_json(run / "summary.json")["personal"]
    gains = [line["gain"] for line in lines]
    assert merged["gain"] == pytest.approx(sum(gains) / 6) and merged["clients"] == 6
    assert merged["share_better"] == sum(gain > 0 for gain in gains) / 6
    assert merged["share_worse"] == sum(gain < 0 for gain in gains) / 6
    assert merged["share_lower_loss"] == sum(line["personal_loss"] < line["loss"] for line in lines) / 6
    assert merged["lag"] == pytest.approx(sum(line["lag"] for line in lines) / 6)
    assert any(line["lag"] > 0 for line in lines), "everybody took part in the last round"
    assert {"gain", "share_better", "share_worse", "share_lower_loss", "lag"} <= told(run)[1]["personal"].keys()


def test_personal_models_change_no_bit_of_the_global_one(settings: Settings) -> None:
    runs = [
        simulate(settings(f"client.personal={personal}", "client.personal_epochs=2", name=personal))
        for personal in ("true", "false")
    ]
    hashes = {read_json(run / "summary.json")["model_sha256"] for run in runs}
    assert len(hashes) == 1


def test_updates_from_behind_are_told(settings: Settings, told: Told) -> None:
    run = simulate(settings("client.personal=true", "client.sends=personal", "cohort_size=3", "num_rounds=5"))
    lags = [line["train_metrics"]["lag"] for line in told(run)[1:]]
    assert lags[0] == 0 and max(lags) > 0


def test_reports_without_a_personal_model_have_no_gain() -> None:
    from fl.metrics import Mean
    from server.over_clients import gain_of, personal_gain

    plain = EvaluationReport(client=1, round=1, num_examples=2, statistics={"loss": Mean(2.0, 2.0)})
    own = EvaluationReport(1, 1, 2, {"loss": Mean(2.0, 2.0), "personal_loss": Mean(1.0, 2.0), "lag": Mean(3.0, 1.0)})
    assert gain_of(plain) is None and personal_gain([plain]) == {}
    assert gain_of(own) == 0.5
    assert personal_gain([plain, own])["lag"] == 3.0
    assert personal_gain([plain, own])["share_lower_loss"] == 1.0
    accuracy_alone = EvaluationReport(1, 1, 2, {"accuracy": Mean(1.0, 2.0), "personal_accuracy": Mean(2.0, 2.0)})
    assert personal_gain([accuracy_alone])["share_lower_loss"] == 0.0


def test_its_own_rate_is_the_same_in_every_round(devices: Devices, start: Parameters) -> None:
    falling = {"name": "cosine", "decay": 1.0, "step_rounds": None, "minimum": 0.0, "warmup_rounds": 0}
    scheduled = devices(personal=True, personal_learning_rate=None, schedule=falling)
    own = devices(personal=True, personal_learning_rate=0.3, schedule=falling)

    def moved(setting: Setting, round: int) -> float:
        ((_, trained),) = personal.specialise(setting, start, [1], version=round, round=round)
        assert isinstance(trained, Trained)
        return trained.learning_rate

    assert moved(scheduled, 2) < moved(scheduled, 1)
    assert moved(own, 1) == moved(own, 2) == 0.3
