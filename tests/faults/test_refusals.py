"""Replies that lie: each is refused with its reason, and the rest add up to what they would have without it.

The devices' own boundary lets none of these out (tests/contracts), so they are made where a stranger's SuperNode would
make them: between the devices and the server, on real replies.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

from clients.grid import UnitGrid
from experiments.run import simulate
from fl import wire
from fl.files import read_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

LIAR = 2


def arrays_changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        name = next(iter(content.array_records))
        arrays = {n: np.array(v) for n, v in wire.arrays_of(content.array_records[name]).items()}
        change(arrays)
        content[name] = wire.array_record(arrays)

    return lie


def first(arrays: dict[str, Any], value: Any) -> None:
    name = next(iter(arrays))
    arrays[name] = value(arrays[name])


def poked(value: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        next(iter(arrays.values())).flat[0] = value

    return change


def weight(value: Any) -> Callable[[RecordDict], None]:
    """The client's weight: of a unit's sum a column, of a single reply a number."""

    def lie(content: RecordDict) -> None:
        (record,) = content.metric_records.values()
        for name in ("weight", wire.NUM_EXAMPLES):
            if name in record:
                record[name] = [value] if isinstance(record[name], list) else value

    return lie


def extra_record(content: RecordDict) -> None:
    content["more"] = ArrayRecord([np.zeros(3)])


def without_metrics(content: RecordDict) -> None:
    for name in list(content.metric_records):
        del content[name]


def nan_metric(content: RecordDict) -> None:
    (record,) = content.metric_records.values()
    record["train_loss"] = [math.nan] if isinstance(next(iter(record.values())), list) else math.nan


LIES: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "nan": (arrays_changed(poked(math.nan)), "holds a NaN or an infinity"),
    "infinity": (arrays_changed(poked(math.inf)), "holds a NaN or an infinity"),
    "missing": (arrays_changed(lambda a: a.pop(next(iter(a)))), "is missing"),
    "extra array": (arrays_changed(lambda a: a.update(more=np.zeros(2, np.float32))), "was not asked for"),
    "shape": (arrays_changed(lambda a: first(a, lambda v: v[:1])), "has shape"),
    "scalar": (arrays_changed(lambda a: first(a, lambda v: v.reshape(-1)[:1])), "has shape"),
    "dtype": (arrays_changed(lambda a: first(a, lambda v: v.astype(np.float64))), "has dtype float64"),
    "huge": (arrays_changed(lambda a: first(a, lambda v: np.zeros((4096, 64), v.dtype))), "has shape"),
    "extra record": (extra_record, "array record"),
    "no metrics": (without_metrics, "0 metric records"),
    "a metric of nan": (nan_metric, "nan"),
    "weight 0": (weight(0), "allowed: above 0"),
    "weight below 0": (weight(-3), "allowed: above 0"),
    "weight nan": (weight(math.nan), "allowed: above 0"),
    "weight huge": (weight(2.0**60), "allowed: above 0"),
}
TREE_LIES: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "half a booster": (arrays_changed(lambda a: first(a, lambda v: v[: len(v) // 2])), "holds no booster"),
    "no bytes": (arrays_changed(lambda a: first(a, lambda v: v.astype(np.float32))), "is float32 of shape"),
}
STRATEGIES = ["own", "fedavg", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "qfedavg"]
QUICK = {
    ("own", "nan"),
    ("fedavg", "shape"),
    ("fedmedian", "nan"),
    ("fedyogi", "weight below 0"),
    ("own", "weight nan"),
}
MATRIX = [
    pytest.param(strategy, lie, marks=() if (strategy, lie) in QUICK else pytest.mark.slow)
    for strategy in STRATEGIES
    for lie in LIES
] + [("fedxgbbagging", lie) for lie in TREE_LIES]


@contextmanager
def replies_of(liar: int, change: Callable[[Message], Message], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training replies of one client pass through ``change`` on their way to the server."""
    ask = UnitGrid.send_and_receive

    def between(self: UnitGrid, messages: Any, **how: Any) -> list[Message]:
        messages = list(messages)
        replies = ask(self, messages, **how)
        training = any(message.metadata.message_type == "train" for message in messages)
        return [
            change(reply) if training and wire.client_of(reply.metadata.src_node_id) == liar else reply
            for reply in replies
        ]

    with monkeypatch.context() as patched:
        patched.setattr(UnitGrid, "send_and_receive", between)
        yield


EVERYONE = ("cohort_size=6", "num_rounds=2", "engine.unit_size=1", "evaluate_clients_every=null")


def last_model(run: Path) -> str:
    return str(read_json(run / "summary.json")["model_sha256"])


@pytest.mark.parametrize("strategy, lie", MATRIX)
def test_a_lie_is_refused_and_the_rest_add_up_as_without_it(
    strategy: str, lie: str, settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, reason = (LIES | TREE_LIES)[lie]

    def lying(reply: Message) -> Message:
        tell(reply.content)
        return reply

    def absent(reply: Message) -> Message:
        return Message(Error(code=wire.UNAVAILABLE, reason="not there"), reply_to=Reversed(reply))

    with replies_of(LIAR, lying, monkeypatch):
        lied = simulate(settings(f"strategy={strategy}", *EVERYONE, name="lied"))
    with replies_of(LIAR, absent, monkeypatch):
        without = simulate(settings(f"strategy={strategy}", *EVERYONE, name="without"))
    for line in told(lied)[1:]:
        assert line["clients"] == {"asked": 6, "answered": 5, "failed": 0, "refused": 1, "late": 0}
        (refused,) = line["refused"]
        assert refused["client"] == LIAR and reason in refused["reason"]
    assert last_model(lied) == last_model(without)
    assert not Registry(lied.parent / "registry").verify()


class Reversed:
    """Stands for the instruction that a reply answers, so that an Error can answer it in its place."""

    def __new__(cls, reply: Message) -> Any:
        metadata = reply.metadata
        message = Message(RecordDict(), metadata.src_node_id, metadata.message_type)
        message.metadata.__dict__["_message_id"] = metadata.reply_to_message_id
        return message


def test_a_client_answers_once_and_nobody_answers_for_another(settings: Settings, told: Told) -> None:
    from server.guard import Declared, guarded

    model = {"w": np.zeros(2, np.float32)}
    asked = [Message(RecordDict(), wire.node_of(client), "train") for client in (0, 1)]
    for message in asked:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"

    def reply(to: Message) -> Message:
        metrics = MetricRecord({wire.NUM_EXAMPLES: 3})
        return Message(RecordDict({"arrays": wire.array_record(model), "metrics": metrics}), reply_to=to)

    stranger = Message(RecordDict(), wire.node_of(7), "train")
    stranger.metadata.__dict__["_message_id"] = "m7"
    replies = [reply(asked[0]), reply(asked[0]), reply(stranger), reply(asked[1])]
    kept = guarded(asked, replies, Declared(model))
    assert [one.has_error() for one in kept] == [False, True, True, False]
    assert "has answered already" in str(kept[1].error.reason) and "was not asked" in str(kept[2].error.reason)


def test_a_report_that_lies_does_not_reach_the_mean(
    settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = UnitGrid.send_and_receive

    def between(self: UnitGrid, messages: Any, **how: Any) -> list[Message]:
        replies = ask(self, messages, **how)
        for reply in replies:
            mine = wire.client_of(reply.metadata.src_node_id) == LIAR
            if mine and reply.has_content() and "statistics" in reply.content.config_records:
                reply.content.config_records["statistics"]["mean:loss"] = [math.nan, 1.0]
        return replies

    monkeypatch.setattr(UnitGrid, "send_and_receive", between)
    run = simulate(settings("cohort_size=6", "server=random", "num_rounds=1"))
    line = told(run)[1]
    assert math.isfinite(line["client_metrics"]["loss"]["max"])
    (refused,) = line["refused_reports"]
    assert refused["client"] == LIAR
