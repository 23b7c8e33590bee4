"""What Flower carries: our lazy Array is Flower's own to every reader, and every record comes back as it went."""

from __future__ import annotations

import pickle
from dataclasses import replace

import flwr.app
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given
from hypothesis import strategies as st

from clients.flower_internals import begin_run
from fl import wire
from fl.errors import ClientFailed, RefusedUpdate
from fl.messages import EvaluationReport, OwnTraining, Query, QueryReport, TrainTask, Update
from fl.metrics import Confusion, Counts, Histogram, Mean, Sums
from fl.moments import CoMoments, Moments
from fl.sketches import Distinct, HeavyHitters, Rows

MANY = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6, dtype=np.float32).reshape(2, 3).T,
    np.arange(12.0)[::3],
    np.array(7),
    np.array(1.5, np.float32),
    np.zeros((0, 3), np.float32),
    np.array([True, False]),
    np.arange(3, dtype=">f8"),
    np.zeros(3_000_000, np.float32),
]
ALL = pytest.mark.parametrize("values", MANY, ids=lambda v: f"{v.dtype.str}{list(v.shape)}")
PARAMETERS = {"w": MANY[0], "n": MANY[3]}


@ALL
def test_an_array_is_flowers_own_to_every_reader(values):
    ours, flowers = wire.Array(values), flwr.app.Array(values)
    assert isinstance(ours, flwr.app.Array)
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert ours.data == flowers.data
    assert ours.object_id == flowers.object_id
    assert ours.deflate() == flowers.deflate()
    assert list(ours.children) == list(flowers.children)
    assert ours.numpy().dtype == flowers.numpy().dtype
    assert np.array_equal(ours.numpy(), flowers.numpy())


@ALL
def test_an_array_survives_pickling(values):
    values = values.astype(values.dtype.newbyteorder("="))  # NumPy's own pickles do not keep another byte order
    again = pickle.loads(pickle.dumps(wire.Array(values)))
    assert type(again) is wire.Array
    assert np.array_equal(again.numpy(), values)
    assert again.object_id == flwr.app.Array(values).object_id


def test_nothing_is_encoded_until_somebody_asks():
    values = np.zeros(1000)
    record = wire.array_record({"w": values})
    assert "data" not in vars(record["w"])
    assert wire.arrays_of(record)["w"] is values
    copied = record["w"].numpy()
    copied[0] = 1.0
    assert values[0] == 0.0


def test_records_of_ours_and_of_flowers_are_one_to_flower():
    ours = wire.array_record(PARAMETERS)
    flowers = ArrayRecord({name: flwr.app.Array(value) for name, value in PARAMETERS.items()})
    assert ours.object_id == flowers.object_id
    assert ours.count_bytes() == flowers.count_bytes()
    assert list(ours) == list(PARAMETERS)
    for record in (ours, flowers):
        back = wire.arrays_of(record)
        assert all(np.array_equal(back[name], value) for name, value in PARAMETERS.items())
    assert wire.record_bytes(RecordDict({"a": ours, "b": flowers})) == 2 * (6 * 8 + 8)


def test_a_record_crosses_flowers_own_wire():
    content = wire.train_content(wire.array_record(PARAMETERS), {"c": MANY[1]}, round=3, version=2)
    again = recorddict_from_proto(recorddict_to_proto(content))
    assert type(again["arrays"]["w"]) is flwr.app.Array
    task, kind = wire.read_train_task(again)
    assert (task.round, task.version, kind) == (3, 2, "sum")
    assert np.array_equal(task.parameters["w"], PARAMETERS["w"]) and np.array_equal(task.shared["c"], MANY[1])


def test_flowers_own_mean_takes_our_arrays():
    contents = [
        RecordDict({"arrays": wire.array_record({"w": np.full(2, value)}), "m": MetricRecord({"num-examples": n})})
        for value, n in ((1.0, 1), (4.0, 2))
    ]
    assert wire.arrays_of(aggregate_arrayrecords(contents, "num-examples"))["w"].tolist() == [3.0, 3.0]


def test_codes_are_flowers():
    assert wire.REFUSED == ErrorCode.MOD_FAILED_PRECONDITION
    assert wire.FAILED == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert wire.QUARANTINED not in vars(ErrorCode).values()
    assert wire.UNAVAILABLE == ErrorCode.NODE_UNAVAILABLE


@given(st.integers(0, 10**9))
def test_a_handle_leads_back_to_its_client_and_is_none_of_flowers_own(client):
    assert wire.client_of(wire.node_of(client)) == client
    assert wire.node_of(client) > 1


# --- down -------------------------------------------------------------------------------------------------------


def test_a_training_task_without_shared_arrays():
    content = wire.train_content(wire.array_record(PARAMETERS), {}, round=1, version=0)
    task, _ = wire.read_train_task(content)
    assert "shared" not in content
    assert task.shared == {} and task.parameters["w"] is PARAMETERS["w"]


def test_the_task_of_a_stock_strategy_is_read_too():
    config = ConfigRecord({"server-round": 4, "proximal-mu": 0.5, "lr": 1, "flag": True, "word": "x", "list": [1.0]})
    content = RecordDict({"model": wire.array_record(PARAMETERS), "config": config})
    task, kind = wire.read_train_task(content)
    assert (task.round, task.version, kind) == (4, 3, "parameters")
    assert task.options == {"server-round": 4.0, "proximal-mu": 0.5, "lr": 1.0}
    evaluation = wire.read_evaluate_task(content)
    assert (evaluation.round, evaluation.version, evaluation.personal) == (4, 4, True)


def test_an_evaluation_task_comes_back():
    for personal in (True, False):
        content = wire.evaluate_content(wire.array_record(PARAMETERS), round=5, personal=personal)
        task = wire.read_evaluate_task(recorddict_from_proto(recorddict_to_proto(content)))
        assert (task.round, task.version, task.personal, task.own) == (5, 5, personal, None)
        assert np.array_equal(task.parameters["w"], PARAMETERS["w"])


@pytest.mark.parametrize("own", [OwnTraining("local", 3, 0.25), OwnTraining("personal")])
def test_what_a_client_is_to_train_before_it_measures_comes_back(own):
    content = wire.evaluate_content(wire.array_record(PARAMETERS), round=5, own=own)
    task = wire.read_evaluate_task(recorddict_from_proto(recorddict_to_proto(content)))
    assert task.own == own and not task.personal


# --- up ---------------------------------------------------------------------------------------------------------

UPDATE = Update(
    client=17,
    round=3,
    base_version=1,
    delta={"w": np.full((2, 3), 2.0), "n": np.array(1)},
    num_examples=60,
    statistics={"loss": Mean(90.0, 60.0)},
    seconds=0.25,
)


@pytest.fixture(scope="module")
def answer():
    """From content to the message with which the node of client 3 answers."""
    begin_run("test_wire")

    def answer(content):
        request = Message(RecordDict(), dst_node_id=wire.node_of(3), message_type="train")
        return Message(content, reply_to=request)

    return answer


def test_a_stock_strategy_gets_local_parameters_and_plain_numbers():
    content = wire.parameters_reply(UPDATE, TrainTask(3, 2, PARAMETERS), norm_bit=1)
    arrays = wire.arrays_of(content["arrays"])
    assert np.array_equal(arrays["w"], PARAMETERS["w"] + 2) and arrays["n"] == 8
    assert dict(content["metrics"]) == {
        "client": 17,
        "num-examples": 60,
        "train_loss": 1.5,
        "update-norm": 24**0.5,
        "base-version": 1.0,
        "train-seconds": 0.25,
        "norm_bit": 1,
    }


def test_a_units_reply_is_sums_and_a_column_a_number():
    rows = [wire.update_row(UPDATE, 60.0), wire.update_row(replace(UPDATE, client=18), 1.0)]
    content = wire.sum_reply({"w": MANY[0]}, {"c": MANY[1]}, rows, bytes_up=112)
    again = recorddict_from_proto(recorddict_to_proto(content))
    assert again["clients"]["bytes-up"] == 112
    assert again["clients"]["client"] == [17.0, 18.0]
    assert again["clients"]["weight"] == [60.0, 1.0]
    assert again["clients"]["loss.total"] == [90.0, 90.0] and again["clients"]["loss.weight"] == [60.0, 60.0]
    assert np.array_equal(wire.arrays_of(again["sum"])["w"], MANY[0])
    assert np.array_equal(wire.arrays_of(again["extra"])["c"], MANY[1])
    assert "extra" not in wire.sum_reply({"w": MANY[0]}, {}, rows, bytes_up=112)
    assert all("delta" not in name and "arrays" not in name for name in again)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**40)
HISTOGRAMS = st.lists(st.tuples(FINITE, COUNTS), max_size=5).map(
    lambda bins: Histogram((*(edge for edge, _ in bins), 1e9), tuple(count for _, count in bins))
)
CONFUSIONS = st.integers(0, 4).flatmap(
    lambda n: st.tuples(*[st.tuples(*[COUNTS] * n)] * n).map(Confusion) if n else st.just(Confusion(()))
)
STATISTICS = st.dictionaries(
    st.text("abc_:.", min_size=1, max_size=6), st.builds(Mean, FINITE, FINITE) | HISTOGRAMS | CONFUSIONS, max_size=5
)


@given(STATISTICS, st.integers(0, 2**40))
def test_a_report_comes_back_with_its_statistics(answer, statistics, num_examples):
    report = EvaluationReport(client=17, round=3, num_examples=num_examples, statistics=statistics)
    content = recorddict_from_proto(recorddict_to_proto(wire.report_reply(report)))
    assert wire.read_report(answer(content), round=3) == report


def over_flowers_wire(content):
    return recorddict_from_proto(recorddict_to_proto(content))


def test_a_query_comes_back():
    query = Query(
        "digits", (0, 13), {"place": (7.0,), "prefix/0": (2**56 - 1, 0)}, part="train", by_client=True, round=9
    )
    assert wire.read_query(over_flowers_wire(wire.query_content(query))) == query


@pytest.mark.parametrize(
    "statistic",
    [
        Counts((0, 2**40)),
        Sums((-1.5, 0.0)),
        Moments(3, 1, 2, 0.1, 0.2, -0.3, 0.4),
        CoMoments((1, 2, 2, 3), (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8), (-0.1, 0.9, 0.9, 0.2)),
        Distinct((0, 53)),
        HeavyHitters((0.5, 1.5), (9, 3), capacity=8, lost=2),
        HeavyHitters((), (), capacity=8),
        Rows((1, 2**52 - 1), capacity=4),
        Rows((), capacity=4),
    ],
    ids=repr,
)
def test_an_answer_to_a_query_comes_back(answer, statistic):
    report = QueryReport((4, 9), 3, 17, {"13": statistic})
    assert wire.read_query_report(answer(over_flowers_wire(wire.query_reply(report))), round=3) == report


def test_the_sender_is_who_says_so_or_else_the_one_behind_the_handle(answer):
    assert wire.sender(answer(RecordDict({"m": MetricRecord({"client": 17})}))) == 17
    assert wire.sender(answer(RecordDict({"m": MetricRecord({"client": [18.0, 19.0]})}))) == 18
    assert wire.sender(answer(RecordDict({"m": MetricRecord({"loss": 1.0})}))) == 3
    assert wire.sender(answer(wire.error_of(ClientFailed(client=3, reason="lost")))) == 3


def test_a_failure_says_why_in_bounded_words():
    refused = wire.error_of(RefusedUpdate(client=1, what="delta", why="array 'w' holds a NaN"))
    assert (refused.code, refused.reason) == (wire.REFUSED, "client 1: delta refused: array 'w' holds a NaN")
    failed = wire.error_of(ClientFailed(client=1, reason="ValueError: " + "x" * 10_000))
    assert failed.code == wire.FAILED
    assert len(failed.reason) == wire.MAX_REASON
