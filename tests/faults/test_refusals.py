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
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

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


def metric(name: str, value: Any) -> Callable[[RecordDict], None]:
    """A number of the client's: of a unit's sum a column, of a single reply a number."""

    def lie(content: RecordDict) -> None:
        (record,) = content.metric_records.values()
        record[name] = [value] if isinstance(record.get("weight"), list) else value

    return lie


def without_metric(name: str) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        (record,) = content.metric_records.values()
        del record[name]

    return lie


def as_bytes(data: bytes) -> Callable[[RecordDict], None]:
    """The first array as it comes over a network, with other bytes."""

    def lie(content: RecordDict) -> None:
        record = next(iter(content.array_records.values()))
        name, array = next(iter(record.items()))
        record[name] = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=data)

    return lie


def renamed(before: str, after: str) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        content[after] = content.pop(before)

    return lie


def other_kind(content: RecordDict) -> None:
    """A sum where parameters were asked for, and the other way round; with a weight that looks good in both."""
    arrays = wire.arrays_of(next(iter(content.array_records.values())))
    if "sum" in content.array_records:
        metrics = MetricRecord({wire.CLIENT: LIAR, wire.NUM_EXAMPLES: 3, "weight": 3.0, "train_loss": 1.0})
        told = RecordDict({"arrays": wire.array_record(arrays), "metrics": metrics})
    else:
        names = (wire.CLIENT, "weight", wire.NUM_EXAMPLES, "update-norm", "base-version", "loss.total", "loss.weight")
        told = wire.sum_reply(arrays, {}, [dict.fromkeys(names, 1.0) | {wire.CLIENT: float(LIAR)}], bytes_up=1)
    content.clear()
    content.update(told)


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
    "no bytes of an array": (as_bytes(b""), "cannot be decoded"),
    "half a zip": (as_bytes(b"PK\x03\x04half"), "cannot be decoded"),
    "no header": (as_bytes(b"\x93NUMPY\x01\x00\x04\x00((((" + b"0" * 9), "cannot be decoded"),
    "more bytes than numbers": (as_bytes(b"0" * 100_000), "bytes, at most"),
    "client nan": (metric(wire.CLIENT, math.nan), "client is nan"),
    "client infinite": (metric(wire.CLIENT, math.inf), "client is inf"),
    "another's name": (metric(wire.CLIENT, LIAR + 1), f"in the name of client {LIAR + 1}"),
    "the other kind": (other_kind, "asked for"),
    "far away": (arrays_changed(poked(1e25)), "its update has norm"),
    "a metric of 1e300": (metric("train_loss", 1e300), "train_loss is 1e+300"),
    "a version to come": (metric("base-version", 9.0), "base-version is 9"),
}
STOCK_LIES: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "a metric more": (metric("more", 1.0), "metric 'more' of record 'metrics' is a number and was not expected"),
    "a metric less": (without_metric("train_loss"), "train_loss"),
    "a list of losses": (metric("train_loss", [1.0, 2.0]), "train_loss"),
    "no client": (metric(wire.CLIENT, []), "client is []"),
    "renamed arrays": (renamed("arrays", "others"), "array records ('others',)"),
    "renamed metrics": (renamed("metrics", "others"), "'others'"),
}
SUM_LIES: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "no bytes-up": (without_metric("bytes-up"), "bytes-up is None"),
    "no loss": (without_metric("loss.total"), "loss.total is missing"),
    "no clients": (without_metric(wire.CLIENT), "client is missing"),
}
LOSS_LIES: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "loss below 0": (metric("train_loss", -1.0), "train_loss is -1.0, allowed: a number from 0"),
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
    ("own", "the other kind"),
    ("own", "no header"),
    ("fedavg", "the other kind"),
    ("fedavg", "a metric more"),
    ("fedmedian", "half a zip"),
    ("qfedavg", "loss below 0"),
}
MATRIX = [
    pytest.param(strategy, lie, marks=() if (strategy, lie) in QUICK else pytest.mark.slow)
    for strategy in STRATEGIES
    for lie in [
        *LIES,
        *(SUM_LIES if strategy == "own" else STOCK_LIES),
        *(LOSS_LIES if strategy == "qfedavg" else ()),
    ]
] + [("fedxgbbagging", lie) for lie in TREE_LIES]
ALL_LIES = LIES | TREE_LIES | STOCK_LIES | SUM_LIES | LOSS_LIES


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
    tell, reason = ALL_LIES[lie]

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


@pytest.mark.parametrize("lie", ["nan", "no metrics", "client nan", "the other kind"])
def test_a_refused_sum_is_refused_for_every_client_of_its_unit(
    lie: str, settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, _ = LIES[lie]

    def lying(reply: Message) -> Message:
        tell(reply.content)
        return reply

    with replies_of(3, lying, monkeypatch):
        run = simulate(settings("cohort_size=6", "num_rounds=1", "engine.unit_size=3", "evaluate_clients_every=null"))
    line = told(run)[1]
    assert line["clients"] == {"asked": 6, "answered": 3, "failed": 0, "refused": 3, "late": 0}
    assert [refused["client"] for refused in line["refused"]] == [3, 4, 5]


@pytest.mark.parametrize("strategy", ["own", "fedavg"])
def test_an_update_beyond_the_bound_is_refused_by_the_server_too(
    strategy: str, settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sum what is divided by its weight is held against the bound: that of the liar's 20 to 40 examples."""

    def lying(reply: Message) -> Message:
        arrays_changed(poked(1e5))(reply.content)
        return reply

    bound = (f"strategy={strategy}", *EVERYONE, "client.max_update_norm=50")
    honest = simulate(settings(*bound, name="honest"))
    with replies_of(LIAR, lying, monkeypatch):
        lied = simulate(settings(*bound, name="lied"))
    assert all(line["clients"]["answered"] == 6 for line in told(honest)[1:])
    for line in told(lied)[1:]:
        assert line["clients"]["refused"] == 1 and ", at most 50" in line["refused"][0]["reason"]


REPORT_LIES: dict[str, Callable[[RecordDict], None]] = {
    "a mean of nan": lambda content: content.config_records["statistics"].update({"mean:loss": [math.nan, 1.0]}),
    "another size": lambda content: content.config_records["statistics"].update({"confusion:confusion": [1.0]}),
    "no client": lambda content: content.metric_records["metrics"].update({wire.CLIENT: []}),
    "another's name": lambda content: content.metric_records["metrics"].update({wire.CLIENT: LIAR + 1}),
    "no examples": lambda content: content.metric_records["metrics"].update({wire.NUM_EXAMPLES: 0}),
    "a metric more": lambda content: content.metric_records["metrics"].update({"more": 1.0}),
    "no metrics": lambda content: content.pop("metrics") and None,
}


@pytest.mark.parametrize("lie", REPORT_LIES)
@pytest.mark.parametrize("strategy", ["own", "fedavg"])
def test_a_report_that_lies_does_not_reach_the_mean(
    strategy: str, lie: str, settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a round, nor where version 0 is compared with a random model, nor at the end with the devices' own."""
    ask = UnitGrid.send_and_receive

    def between(self: UnitGrid, messages: Any, **how: Any) -> list[Message]:
        replies = ask(self, messages, **how)
        for reply in replies:
            mine = wire.client_of(reply.metadata.src_node_id) == LIAR
            if mine and reply.has_content() and "statistics" in reply.content.config_records:
                REPORT_LIES[lie](reply.content)
        return replies

    monkeypatch.setattr(UnitGrid, "send_and_receive", between)
    run = simulate(settings("cohort_size=6", f"strategy={strategy}", "num_rounds=1", "client.personal=true"))
    line = told(run)[1]
    assert math.isfinite(line["client_metrics"]["loss"]["max"])
    (refused,) = line["refused_reports"]
    assert refused["client"] == LIAR
    summary = read_json(run / "summary.json")
    assert summary["status"] == "finished" and summary["personal"]["clients"] == 5
