"""The guard alone: who may answer for whom, what may be in a reply, and that every message is settled once."""

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import flwr.app
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, QFedAvg

from clients.flower_internals import begin_run, identify
from fl import wire
from fl.messages import MAX_NORM, EvaluationReport, TrainTask, Update
from fl.metrics import Confusion, Histogram, Mean
from fl.parameters import Parameters, num_bytes
from server.guard import Declared, guarded, sound_reports
from server.replies import tally
from server.stock import needs_of

MODEL: Parameters = {"w": np.array([[1.0, 2.0]], np.float32), "b": np.zeros(3, np.float32), "n": np.array(7)}
REAL = (2**61 + 11, 2**60 + 7, 2**62 + 5)
"""Handles as a SuperLink draws them."""

Content = dict[str, Any]


@pytest.fixture(autouse=True)
def run() -> None:
    begin_run("guarded")


def asked(nodes: Sequence[int], *, summed: bool = False, kind: str = "train", **config: Any) -> list[Message]:
    """Messages that were sent to ``nodes``."""
    content = wire.train_content(wire.array_record(MODEL), {}, round=3, version=2)
    if not summed:
        content = RecordDict(
            {"arrays": wire.array_record(MODEL), "config": ConfigRecord({"server-round": 3, **config})}
        )
    messages = [Message(content, node, kind) for node in nodes]
    for message in messages:
        identify(message)
    return messages


def simulated(*clients: int, **more: Any) -> list[Message]:
    return asked([wire.node_of(client) for client in clients], **more)


def moved(by: float = 0.5) -> Parameters:
    return {"w": np.full((1, 2), by, np.float32), "b": np.zeros(3, np.float32), "n": np.array(1)}


def update(client: int, **more: Any) -> Update:
    values: dict[str, Any] = {"delta": moved(), "num_examples": 4, "statistics": {"loss": Mean(2.0, 4.0)}, **more}
    return Update(client=client, round=3, base_version=2, **values)


def parameters(client: int, **more: Any) -> RecordDict:
    """What a device answers where its own parameters were asked for."""
    return wire.parameters_reply(update(client, **more), TrainTask(round=3, version=2, parameters=MODEL))


def total(*clients: int, delta: Parameters | None = None, weight: float = 4.0) -> RecordDict:
    """What a unit answers where a sum was asked for."""
    delta = moved() if delta is None else delta
    factor = weight * len(clients)
    arrays = {n: (v * np.float32(factor) if v.dtype == np.float32 else v * factor) for n, v in delta.items()}
    rows = [wire.update_row(update(client, delta=delta), weight) for client in clients]
    return wire.sum_reply(arrays, {}, rows, num_bytes(MODEL) * len(clients))


def sent(content: RecordDict) -> RecordDict:
    """As it is once it has crossed a network: Flower's own arrays over bytes."""
    return recorddict_from_proto(recorddict_to_proto(content))


def replies(messages: Sequence[Message], contents: Sequence[RecordDict | Error]) -> list[Message]:
    return [Message(content, reply_to=message) for message, content in zip(messages, contents, strict=True)]  # type: ignore[call-overload]


def reasons(kept: Sequence[Message]) -> list[str]:
    return [str(reply.error.reason) if reply.has_error() else "" for reply in kept]


def counts(messages: Sequence[Message], kept: Sequence[Message]) -> dict[str, int]:
    found = tally(messages, kept, version=2).counts
    assert found["late"] >= 0
    assert found["asked"] == sum(found[name] for name in ("answered", "failed", "refused", "late"))
    return found


# --- whose a reply is -------------------------------------------------------------------------------------------


def test_what_honest_devices_send_passes_and_comes_out_by_client() -> None:
    for way in (lambda content: content, sent):
        messages = simulated(0, 1, 2)
        found = replies(messages, [way(parameters(client)) for client in (0, 1, 2)])
        assert guarded(messages, found[::-1], Declared(MODEL, version=2)) == found
        messages = simulated(0, 1, 2, summed=True)
        found = [*replies(messages[:1], [way(total(0, 2))]), *replies(messages[1:2], [Error(wire.FAILED, "no power")])]
        kept = guarded(messages, found[::-1], Declared(MODEL, version=2))
        assert kept == found and counts(messages, kept)["answered"] == 2


def test_a_client_answers_once_and_nobody_answers_for_another() -> None:
    messages, (stranger,) = simulated(0, 1), simulated(7)
    first, again, other = replies([messages[0], messages[0], stranger], [parameters(0), parameters(0), parameters(7)])
    (last,) = replies(messages[1:], [parameters(1)])
    kept = guarded(messages, [first, again, other, last], Declared(MODEL))
    assert kept == [first, last] and counts(messages, kept)["answered"] == 2


def test_a_further_reply_to_a_settled_message_is_not_counted() -> None:
    messages = simulated(0, 1)
    bad = parameters(0, delta={**moved(), "b": np.full(3, np.nan, np.float32)})
    found = replies([messages[0]] * 4, [bad, parameters(0), bad, Error(wire.FAILED, "and so on")])
    kept = guarded(messages, found, Declared(MODEL))
    assert counts(messages, kept) == {"asked": 2, "answered": 0, "failed": 0, "refused": 1, "late": 1}


def test_a_node_that_answers_in_anothers_place_changes_nothing_for_that_one() -> None:
    messages = simulated(0, 1)
    (own,) = replies(messages[1:], [parameters(1)])
    (taken,) = replies(simulated(0), [parameters(1)])
    taken.metadata.__dict__["_reply_to_message_id"] = messages[1].metadata.message_id
    assert guarded(messages, [taken, own], Declared(MODEL)) == [own]
    (only,) = guarded(messages, [taken], Declared(MODEL))
    assert "client 1: refused by the server: node 2 answered in its place" in str(only.error.reason)


def test_a_lost_message_that_the_superlink_reports_is_a_failure_of_the_client_that_was_asked() -> None:
    messages = simulated(0, 5)
    (lost,) = replies(messages[1:], [Error(wire.UNAVAILABLE, "the node is gone")])
    lost.metadata.__dict__["_src_node_id"] = 1
    kept = guarded(messages, [lost], Declared(MODEL))
    found = tally(messages, kept, version=2)
    assert found.failed == [{"client": 5, "reason": "the node is gone"}] and found.counts["late"] == 1


def test_a_refused_sum_is_refused_for_each_of_its_clients() -> None:
    messages = simulated(0, 1, 2, 3, 4, 5, summed=True)
    bad = total(0, 1, 3)
    bad["sum"] = wire.array_record({**wire.arrays_of(bad.array_records["sum"]), "b": np.full(3, np.inf, np.float32)})
    found = [*replies(messages[:1], [bad]), *replies(messages[2:3], [Error(wire.FAILED, "no power")])]
    kept = guarded(messages, found, Declared(MODEL))
    assert counts(messages, kept) == {"asked": 6, "answered": 0, "failed": 1, "refused": 3, "late": 2}
    assert [item["client"] for item in tally(messages, kept, version=2).refused] == [0, 1, 3]
    assert all("holds a NaN or an infinity" in reason for reason in reasons(kept) if "refused" in reason)


@pytest.mark.parametrize("without", ["metrics", "rows", "client"])
def test_a_sum_that_does_not_say_whose_it_is_is_refused_for_its_unit(without: str) -> None:
    messages = simulated(0, 1, 2, 3, 4, 5, summed=True)
    bad = total(0, 1, 2)
    if without == "metrics":
        del bad["clients"]
    elif without == "rows":
        bad["clients"] = MetricRecord({"bytes-up": 0})
    else:
        bad.metric_records["clients"][wire.CLIENT] = [0.0, 1.0, math.nan]
    kept = guarded(messages, replies(messages[::3], [bad, total(3, 4, 5)]), Declared(MODEL))
    assert counts(messages, kept) == {"asked": 6, "answered": 3, "failed": 0, "refused": 3, "late": 0}


def test_a_sum_answers_for_nobody_who_answered_or_was_not_asked() -> None:
    messages = simulated(0, 1, 2, summed=True)
    for claims, reason in (
        ((0, 1), "who was not asked or answered otherwise"),
        ((0, 9), "who was not asked or answered otherwise"),
        ((1,), "in the name of client 1"),
        ((0, 0), "twice"),
    ):
        kept = guarded(messages, replies(messages, [total(*claims), total(1), total(2)]), Declared(MODEL))
        assert counts(messages, kept) == {"asked": 3, "answered": 2, "failed": 0, "refused": 1, "late": 0}
        assert reason in reasons(kept)[0], claims


def test_two_sums_that_answer_for_one_client_are_both_refused() -> None:
    messages = simulated(0, 1, 2, summed=True)
    kept = guarded(messages, replies([messages[0], messages[2]], [total(0, 1), total(2, 1)]), Declared(MODEL))
    assert counts(messages, kept)["refused"] == 3 and "another answers for client 1 too" in reasons(kept)[0]


def test_a_simulated_client_has_no_other_name() -> None:
    messages = simulated(0, 1)
    kept = guarded(messages, replies(messages, [parameters(0), parameters(0)]), Declared(MODEL))
    assert ["in the name of client 0" in reason for reason in reasons(kept)] == [False, True]


NO_CLIENTS: list[Any] = [[], [1], math.nan, math.inf, -1, 0.5, 2**40]


@pytest.mark.parametrize("client", NO_CLIENTS)
@pytest.mark.parametrize("nodes", [(2, 3), REAL[:2]])
def test_what_is_no_client_is_refused_in_training_and_in_reports(client: Any, nodes: tuple[int, ...]) -> None:
    bad, report = parameters(0), wire.report_reply(EvaluationReport(0, 3, 5, {"loss": Mean(1.0, 5.0)}))
    bad.metric_records["metrics"][wire.CLIENT] = report.metric_records["metrics"][wire.CLIENT] = client
    messages = asked(nodes)
    kept = guarded(messages, replies(messages, [bad, parameters(1)]), Declared(MODEL))
    assert counts(messages, kept) == {"asked": 2, "answered": 1, "failed": 0, "refused": 1, "late": 0}
    good = wire.report_reply(EvaluationReport(1, 3, 5, {"loss": Mean(1.0, 5.0)}))
    for averaged in (True, False):
        sound, unsound = sound_reports(messages, replies(messages, [report, good]), averaged=averaged)
        assert [wire.sender(reply) for reply in sound] == [1] and len(unsound) == 1


def test_real_nodes_say_which_client_they_are_and_stay_that_one() -> None:
    known: dict[int, int] = {}
    messages = asked(REAL)
    kept = guarded(messages, replies(messages, [parameters(c) for c in (2, 0, 1)]), Declared(MODEL), known=known)
    assert [wire.sender(reply) for reply in kept] == [0, 1, 2] and known == dict(zip(REAL, (2, 0, 1), strict=True))
    messages = asked(REAL)
    kept = guarded(messages, replies(messages, [parameters(c) for c in (2, 2, 1)]), Declared(MODEL), known=known)
    (why,) = [reason for reason in reasons(kept) if reason]
    assert why == "client 0: refused by the server: it answers as client 2, and was client 0 before"
    messages = asked([5**25, *REAL[:1]])
    kept = guarded(messages, replies(messages, [parameters(2), parameters(2)]), Declared(MODEL), known=known)
    assert [reply.metadata.src_node_id for reply in kept if reply.has_content()] == [REAL[0]], (
        "the one who was it before"
    )


def test_of_two_unknown_nodes_that_claim_one_client_neither_is_believed() -> None:
    for order in (1, -1):
        messages = asked(REAL[:2])
        found = replies(messages, [parameters(4), parameters(4)])[::order]
        kept = guarded(messages, found, Declared(MODEL), known=(known := {}))
        assert counts(messages, kept)["refused"] == 2 and not known


def test_a_real_node_answers_for_one_client() -> None:
    messages = asked(REAL[:2], summed=True)
    kept = guarded(messages, replies(messages, [total(0, 1), total(2)]), Declared(MODEL))
    assert counts(messages, kept) == {"asked": 2, "answered": 1, "failed": 0, "refused": 1, "late": 0}
    assert any("it answers for 2 clients" in reason for reason in reasons(kept))


# --- what is in a reply -----------------------------------------------------------------------------------------


def alone(lie: Callable[[RecordDict], Any], declared: Declared, content: RecordDict, *, summed: bool = False) -> str:
    """Why the reply of client 0 is refused once ``lie`` has changed it; that of client 1 always passes."""
    messages = simulated(0, 1, summed=summed)
    lie(content)
    kept = guarded(messages, replies(messages, [content, total(1) if summed else parameters(1)]), declared)
    expected = {"asked": 2, "answered": 1, "failed": 0, "refused": 1, "late": 0}
    assert counts(messages, kept) == expected and kept[1].has_content()
    return reasons(kept)[0]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("w.npy", b"0" * 100)
    return buffer.getvalue()


def npy(header: str) -> bytes:
    padded = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


GOOD = flwr.app.Array(MODEL["w"]).data
UNDECODABLE = {
    "nothing": b"",
    "cut": GOOD[:-3],
    "no magic": b"x" * 100,
    "half a zip": b"PK\x03\x04" + b"0" * 50,
    "a zip": zipped(),
    "an open bracket": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (((("),
    "brackets": npy("(" * 3000),
    "a pickle": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 2), }") + b"\x80\x04K\x01.",
    "an exabyte": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }"),
    "another shape": flwr.app.Array(np.zeros((2, 1), np.float32)).data,
    "another dtype": flwr.app.Array(np.zeros((1, 2), np.int32)).data,
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_bytes_that_are_no_array_are_a_refusal(name: str) -> None:
    def lie(content: RecordDict) -> None:
        array = flwr.app.Array(dtype="float32", shape=(1, 2), stype="numpy.ndarray", data=UNDECODABLE[name])
        next(iter(content.array_records.values()))["w"] = array

    for summed in (False, True):
        assert "'w'" in alone(lie, Declared(MODEL), total(0) if summed else parameters(0), summed=summed)


def test_bytes_are_not_decoded_before_their_number_is_known() -> None:
    class Bomb(flwr.app.Array):
        def numpy(self) -> Any:
            raise AssertionError("decoded")

    def bomb(shape: tuple[int, ...], size: int) -> Callable[[RecordDict], None]:
        array = Bomb(dtype="float32", shape=shape, stype="numpy.ndarray", data=b"0" * size)
        return lambda content: next(iter(content.array_records.values())).__setitem__("w", array)

    assert "has shape (1, 3)" in alone(bomb((1, 3), 10), Declared(MODEL), parameters(0))
    assert "has 100000 bytes, at most" in alone(bomb((1, 2), 100_000), Declared(MODEL), parameters(0))
    grown = Declared(MODEL, grown=lambda arrays: "no trees")
    messages = simulated(0)
    big = parameters(0)
    bomb((2**27,), 2**27)(big)
    assert "bytes, at most" in reasons(guarded(messages, replies(messages, [big]), grown))[0]


def test_what_came_as_bytes_is_decoded_once_and_in_the_models_order() -> None:
    for content in (sent(parameters(0)), parameters(0)):
        turned = ArrayRecord()
        for name, array in list(content.array_records["arrays"].items())[::-1]:
            turned[name] = array
        content["arrays"] = turned
        messages = simulated(0)
        (kept,) = guarded(messages, replies(messages, [content]), Declared(MODEL))
        arrays = kept.content.array_records["arrays"]
        assert list(arrays) == list(MODEL) and all(isinstance(array, wire.Array) for array in arrays.values())
        assert np.array_equal(arrays["w"].numpy(), [[1.5, 2.5]])


def metric(name: str, value: Any) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        (record,) = content.metric_records.values()
        record[name] = value

    return lie


def without_metric(name: str) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        (record,) = content.metric_records.values()
        del record[name]

    return lie


def renamed(before: str, after: str) -> Callable[[RecordDict], None]:
    def lie(content: RecordDict) -> None:
        content[after] = content.pop(before)

    return lie


BOTH = {
    "nan": (metric("train-seconds", math.nan), "train-seconds is nan"),
    "huge": (metric("train_loss", 1e300), "train_loss is 1e+300"),
    "a list that holds one": (metric("more", [math.inf]), "more is inf"),
    "an essay": (metric("more", [1.0] * 2**20), "beside its arrays"),
    "a config of a megabyte": (lambda c: c.update(more=ConfigRecord({"x": b"0" * 2**20})), "beside its arrays"),
    "another base version": (metric("base-version", 3), "base-version is 3, allowed: 0 to 2"),
}
ONLY_PARAMETERS = {
    "no weight": (without_metric(wire.NUM_EXAMPLES), "num-examples is None, not a number"),
    "a list of weights": (metric(wire.NUM_EXAMPLES, [4]), "num-examples is [4], not a number"),
    "a metric more": (metric("more", 1.0), "metric 'more' of record 'metrics' is a number and was not expected"),
    "a metric less": (without_metric("train-seconds"), "metric 'train-seconds' of record 'metrics' is missing"),
    "a list": (metric("train_loss", [1.0]), "metric 'train_loss' of record 'metrics' is numbers"),
    "renamed arrays": (renamed("arrays", "other"), "array records ('other',), expected ('arrays',)"),
    "renamed metrics": (renamed("metrics", "other"), "metric"),
    "called a sum": (renamed("arrays", "sum"), "a sum, where a client's own parameters were asked for"),
    "called clients": (renamed("metrics", "clients"), "a sum, where a client's own parameters were asked for"),
    "a sum": (lambda c: (c.clear(), c.update(total(0))), "a sum, where a client's own parameters were asked for"),
}
ONLY_SUMS = {
    "no bytes-up": (without_metric("bytes-up"), "bytes-up is None"),
    "bytes-up of more": (metric("bytes-up", 10**9), "bytes-up is 1000000000, allowed: 0 to 28"),
    "bytes-up below 0": (metric("bytes-up", -1), "bytes-up is -1"),
    "no weights": (without_metric("weight"), "weight is missing"),
    "no loss weights": (without_metric("loss.weight"), "loss.weight is missing"),
    "no clients": (without_metric(wire.CLIENT), "client is missing"),
    "more rows in one column": (metric("weight", [4.0, 4.0]), "zip()"),
    "no examples": (metric(wire.NUM_EXAMPLES, [0.0]), "num-examples is 0.0"),
    "a norm below 0": (metric("update-norm", [-1.0]), "update-norm is -1.0"),
    "parameters": (lambda c: (c.clear(), c.update(parameters(0))), "a client's own parameters, where a sum"),
}


@pytest.mark.parametrize("name", [*BOTH, *ONLY_PARAMETERS])
def test_numbers_and_names_of_parameters(name: str) -> None:
    lie, reason = (BOTH | ONLY_PARAMETERS)[name]
    assert reason in alone(lie, Declared(MODEL, version=2), parameters(0))


@pytest.mark.parametrize("name", [*BOTH, *ONLY_SUMS])
def test_numbers_and_names_of_sums(name: str) -> None:
    lie, reason = (BOTH | ONLY_SUMS)[name]
    if name == "another base version":
        lie, reason = metric("base-version", [3.0]), "base-version is 3.0, allowed: 0 to 2"
    assert reason in alone(lie, Declared(MODEL, version=2), total(0), summed=True)


def test_real_nodes_may_answer_in_another_way_if_most_do() -> None:
    def other(client: int) -> RecordDict:
        metrics = MetricRecord({wire.NUM_EXAMPLES: 3, "their-own": 1.0})
        return RecordDict({"a": wire.array_record(MODEL), "numbers": metrics})

    for odd in range(3):
        messages = asked(REAL)
        kept = guarded(
            messages, replies(messages, [parameters(c) if c == odd else other(c) for c in range(3)]), Declared(MODEL)
        )
        assert counts(messages, kept) == {"asked": 3, "answered": 2, "failed": 0, "refused": 1, "late": 0}
        messages = asked(REAL[:2])
        kept = guarded(messages, replies(messages, [other(0), parameters(1)][:: (1, -1)[odd % 2]]), Declared(MODEL))
        assert [wire.sender(reply) for reply in kept if reply.has_content()] == [1], "one of each: ours"


# --- how far an update may go -----------------------------------------------------------------------------------


def test_an_update_may_be_as_long_as_the_bound_and_no_longer() -> None:
    delta = {**moved(), "w": np.array([[3.0, 4.0]], np.float32)}
    declared = Declared(MODEL, max_norm=5.0)
    for summed in (False, True):
        messages = simulated(0, summed=summed)
        good = total(0, delta=delta) if summed else parameters(0, delta=delta)
        assert guarded(messages, replies(messages, [good]), declared)[0].has_content()
        over = {**delta, "w": np.array([[3.0, 4.01]], np.float32)}
        bad = total(0, delta=over) if summed else parameters(0, delta=over)
        if summed:
            bad.metric_records["clients"]["update-norm"] = [5.0]
        assert "its update has norm 5.008, at most 5" in alone(lambda c: None, declared, bad, summed=summed)


def test_a_device_that_may_just_send_its_update_is_not_refused_for_the_rounding_of_another() -> None:
    draw = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e3):
        model = {"w": (draw.normal(size=2000) * 1e4).astype(np.float32)}
        delta = {"w": (draw.normal(size=2000) * scale).astype(np.float32)}
        mine = update(0, delta=delta)
        declared = Declared(model, max_norm=mine.norm)
        messages = simulated(0)
        reply = wire.parameters_reply(mine, TrainTask(round=3, version=2, parameters=model))
        assert guarded(messages, replies(messages, [reply]), declared)[0].has_content()


def test_without_a_bound_what_would_overflow_is_refused() -> None:
    wide = Declared({"w": np.zeros(2)})
    for value in (1e30, 1e160, 1e308):  # the squares of the last do not fit a number
        messages, bad = simulated(0), parameters(0)
        bad["arrays"] = wire.array_record({"w": np.array([value, 0.0])})
        assert "its update has norm" in reasons(guarded(messages, replies(messages, [bad]), wide))[0]
    for summed in (False, True):
        delta = {**moved(), "w": np.array([[1e30, 0.0]], np.float32)}
        bad = total(0, delta=delta) if summed else parameters(0, delta=delta)
        metric("update-norm", [1.0] if summed else 1.0)(bad)
        assert "norm 1e+30, at most 1e+18" in alone(lambda c: None, Declared(MODEL), bad, summed=summed)


def test_a_sum_whose_row_admits_a_longer_update_is_refused() -> None:
    lie = metric("update-norm", [5.5])
    assert "update-norm is 5.5, allowed: 0 to 5" in alone(lie, Declared(MODEL, max_norm=5.0), total(0), summed=True)


def test_a_counter_has_no_part_in_the_norm_and_is_finite() -> None:
    delta = {**moved(), "n": np.array(10**6)}
    messages = simulated(0, summed=True)
    good = replies(messages, [total(0, delta=delta)])
    assert guarded(messages, good, Declared(MODEL, max_norm=5.0))[0].has_content()
    bad = total(0)
    bad["sum"] = wire.array_record({**wire.arrays_of(bad.array_records["sum"]), "n": np.array(np.inf)})
    assert "array 'n' holds" in alone(lambda c: None, Declared(MODEL), bad, summed=True)


@pytest.mark.parametrize("loss", [-1.0, 1e18, 1e300, [1.0], None])
def test_a_loss_that_qfedavg_cannot_compute_with_is_refused(loss: Any) -> None:
    needs = needs_of(QFedAvg(client_learning_rate=0.1, q=2.0))
    lie = without_metric("train_loss") if loss is None else metric("train_loss", loss)
    assert "train_loss is " in alone(lie, Declared(MODEL, needs=needs), parameters(0))


def test_a_reply_that_is_the_global_model_is_refused_where_the_strategy_divides_by_the_difference() -> None:
    strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 1.0, 2)
    still = {name: np.zeros_like(value) for name, value in MODEL.items()}
    needs = needs_of(strategy)
    assert "it is the global model itself" in alone(
        lambda c: None, Declared(MODEL, needs=needs), parameters(0, delta=still)
    )
    messages = simulated(0)
    found = replies(messages, [parameters(0, delta=still)])
    assert guarded(messages, found, Declared(MODEL, needs=needs_of(FedAvg()))) == found


# --- reports ----------------------------------------------------------------------------------------------------


def report(client: int, **statistics: Any) -> RecordDict:
    return wire.report_reply(EvaluationReport(client, 3, 5, {"loss": Mean(1.0, 5.0), **statistics}))


def lying(lie: Callable[[RecordDict], Any], **statistics: Any) -> tuple[list[int], list[str]]:
    """Whose reports are sound when ``lie`` changed that of client 1 of four, and why the others are not."""
    messages = simulated(0, 1, 2, 3)
    contents = [report(client, **statistics) for client in range(4)]
    lie(contents[1])
    sound, unsound = sound_reports(messages, replies(messages, contents), averaged=True)
    return [wire.sender(reply) for reply in sound], [item["reason"] for item in unsound]


def statistic(key: str, numbers: list[float]) -> Callable[[RecordDict], None]:
    return lambda content: content.config_records["statistics"].__setitem__(key, numbers)


REPORT_LIES: dict[str, tuple[Callable[[RecordDict], Any], str]] = {
    "no examples": (metric(wire.NUM_EXAMPLES, 0), "num-examples is 0"),
    "examples below 0": (metric(wire.NUM_EXAMPLES, -5), "num-examples is -5"),
    "a list of examples": (metric(wire.NUM_EXAMPLES, [5]), "num-examples is [5], not a number"),
    "no number of examples": (without_metric(wire.NUM_EXAMPLES), "num-examples is None"),
    "another's name": (metric(wire.CLIENT, 2), "it answers in the name of client 2"),
    "a nan": (metric("loss", math.nan), "loss is nan"),
    "a metric more": (metric("more", 1.0), "more is not in both its metrics and its statistics"),
    "a metric less": (without_metric("loss"), "loss is not in both"),
    "a mean of nan": (statistic("mean:loss", [math.nan, 1.0]), "loss: it has the wrong shape, or holds a NaN"),
    "a mean of too much": (statistic("mean:loss", [1e300, 1.0]), "loss is 1e+300"),
    "a weight of too much": (statistic("mean:loss", [1.0, 1e30]), "the weight of loss is 1e+30"),
    "moments": (statistic("moments:x", [1.0] * 7), "which belongs to no evaluation"),
    "a mean of three": (statistic("mean:loss", [1.0, 1.0, 1.0]), "TypeError"),
    "another confusion": (statistic("confusion:confusion", [1.0]), "statistic 'confusion' is of another kind or size"),
    "other edges": (statistic("histogram:margin", [0.0, 9.0, 1.0]), "statistic 'margin' is of another kind or size"),
    "no comparison": (
        lambda c: (metric("personal_accuracy", 1.0)(c), statistic("mean:personal_accuracy", [1.0, 1.0])(c)),
        "personal_accuracy has no accuracy to be compared with",
    ),
    "a negative square": (
        lambda c: (metric("mse", -1.0)(c), statistic("mean:mse", [-1.0, 1.0])(c)),
        "math domain error",
    ),
    "no metrics": (lambda c: c.pop("metrics"), "0 metric records"),
}


@pytest.mark.parametrize("name", REPORT_LIES)
def test_a_report_that_lies_is_set_aside_with_the_reason(name: str) -> None:
    lie, reason = REPORT_LIES[name]
    table = Confusion(((1, 2), (0, 2)))
    sound, (why,) = lying(lie, confusion=table, margin=Histogram((0.0, 1.0), (5,)))
    assert sound == [0, 2, 3] and reason in why


def test_a_report_laid_out_unlike_most_is_set_aside_only_where_it_would_be_averaged() -> None:
    messages = simulated(0, 1, 2)
    found = replies(messages, [report(0, accuracy=Mean(1.0, 5.0)), report(1), report(2)])
    sound, unsound = sound_reports(messages, found, averaged=True)
    assert sound == found[1:] and "metric 'accuracy' of record 'metrics'" in unsound[0]["reason"]
    assert sound_reports(messages, found, averaged=False) == (found, [])


def test_plain_metrics_will_do_where_they_are_averaged_and_nowhere_else() -> None:
    messages = asked(REAL[:1])
    found = replies(messages, [RecordDict({"numbers": MetricRecord({wire.NUM_EXAMPLES: 3, "loss": 1.0})})])
    assert sound_reports(messages, found, averaged=True)[0] == found
    _, ((unsound),) = sound_reports(messages, found, averaged=False)
    assert unsound["reason"] == "it has no statistics"


def test_a_failed_evaluation_is_neither_sound_nor_refused() -> None:
    messages = simulated(0, 1)
    found = replies(messages, [Error(wire.FAILED, "its test part is empty"), report(1)])
    assert sound_reports(messages, found, averaged=False) == (found[1:], [])


assert MAX_NORM == 1e18, "the reasons above name it"
