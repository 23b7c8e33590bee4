"""The boundary: what is declared passes, anything else is refused with the client, the array and the reason."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from fl.errors import RefusedUpdate
from fl.messages import (
    MAX_NAME,
    MAX_NORM,
    MAX_NUM_EXAMPLES,
    MAX_STATISTIC_VALUES,
    MAX_STATISTICS,
    Boundary,
    EvaluateTask,
    EvaluationReport,
    TrainTask,
    Update,
    check_report,
)
from fl.metrics import Confusion, Counts, Histogram, Mean, Sums
from fl.moments import CoMoments, Moments
from fl.sketches import Distinct, HeavyHitters, Rows

W, COUNTER = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32), np.array(1)
MODEL = {"w": np.zeros((2, 2), np.float32), "bn.count": np.array(0)}
C = {"w": np.zeros((2, 2), np.float32)}
BOUNDARY = Boundary(delta=MODEL, extra=C)
UPDATE = Update(
    client=17,
    round=3,
    base_version=2,
    delta={"w": W, "bn.count": COUNTER},
    num_examples=60,
    extra={"w": W},
    statistics={"loss": Mean(1.5, 60.0)},
    seconds=0.25,
)
REPORT = EvaluationReport(client=17, round=3, num_examples=6, statistics={"loss": Mean(1.5, 6.0)})


def refusal(update=None, *, boundary=BOUNDARY, **changes):
    with pytest.raises(RefusedUpdate) as raised:
        boundary.release(update or replace(UPDATE, **changes))
    assert raised.value.client == 17
    return raised.value.what, raised.value.why


def test_what_is_declared_passes_unchanged():
    assert BOUNDARY.release(UPDATE) is UPDATE
    assert Boundary(delta=MODEL).release(replace(UPDATE, extra={})).extra == {}
    assert check_report(REPORT) is REPORT
    assert check_report(replace(REPORT, num_examples=0, statistics={})).num_examples == 0
    everything = {
        "loss": Mean(np.float32(1.5), 60),
        "histogram": Histogram((0.0, 1.0, 2.0), (1, np.int64(2))),
        "confusion": Confusion(((1, 2), (3, 4))),
        "nothing counted": Mean(0.0, 0.0),
    }
    assert BOUNDARY.release(replace(UPDATE, statistics=everything)).statistics is everything


@pytest.mark.parametrize("what", ["delta", "extra"])
@pytest.mark.parametrize(
    "change, why",
    [
        ({"w": None}, "array 'w' is missing"),
        ({"examples": np.zeros(3)}, "array 'examples' is not among those expected"),
        ({"w": np.zeros((2, 3), np.float32)}, "array 'w' has shape (2, 3), expected (2, 2)"),
        ({"w": np.zeros(4, np.float32)}, "array 'w' has shape (4,), expected (2, 2)"),
        ({"w": np.zeros((2, 2))}, "array 'w' has dtype float64, expected float32"),
        ({"w": np.array([[0, np.nan], [0, 0]], np.float32)}, "array 'w' holds a NaN or an infinity"),
        ({"w": np.array([[0, -np.inf], [0, 0]], np.float32)}, "array 'w' holds a NaN or an infinity"),
        ({"w": np.full((2, 2), 1e18, np.float32)}, "norm 2e+18 is above 1e+18"),
    ],
)
def test_arrays_that_are_not_declared_are_refused(what, change, why):
    arrays = {name: value for name, value in (getattr(UPDATE, what) | change).items() if value is not None}
    assert refusal(**{what: arrays}) == (what, why)


def test_an_algorithm_that_declares_no_extra_arrays_sends_none():
    assert refusal(boundary=Boundary(delta=MODEL)) == ("extra", "array 'w' is not among those expected")


def test_a_counter_of_another_dtype_is_refused():
    delta = {"w": W, "bn.count": np.array(1, np.int32)}
    assert refusal(delta=delta) == ("delta", "array 'bn.count' has dtype int32, expected int64")


def test_the_norm_of_an_update_may_be_limited():
    assert Boundary(delta=MODEL, extra=C, max_norm=5.0).release(UPDATE)
    assert refusal(boundary=Boundary(delta=MODEL, extra=C, max_norm=4.9)) == ("delta", "norm 5 is above 4.9")


def test_ten_million_updates_at_every_limit_do_not_overflow_a_sum_in_float32():
    assert np.finfo(np.float32).max > 1e7 * MAX_NORM * MAX_NUM_EXAMPLES


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, True, "60", None, MAX_NUM_EXAMPLES + 1])
def test_a_weight_is_a_whole_number_above_0(value):
    what, why = refusal(num_examples=value)
    assert what == "num_examples"
    assert why == f"{value!r} is not a whole number from 1 to {MAX_NUM_EXAMPLES}"


@pytest.mark.parametrize("value", [-1, 4, 2.0])
def test_an_update_starts_from_a_version_there_was(value):
    what, why = refusal(base_version=value)
    assert what == "base_version"
    assert why == f"{value!r} is not a whole number from 0 to 3"


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "soon"])
def test_seconds_are_a_time(value):
    assert refusal(seconds=value) == ("seconds", f"{value!r} is not a number from 0")


MANY = MAX_STATISTIC_VALUES
BAD = "it has the wrong shape, or holds a NaN, an infinity or what is no count"


@pytest.mark.parametrize(
    "statistic, why",
    [
        (Mean(math.nan, 1.0), BAD),
        (Mean(1.0, math.inf), BAD),
        (Mean(1.0, -1.0), BAD),
        (Mean("private text", 1.0), BAD),
        (Mean(10**400, 1.0), BAD),
        (Histogram((0.0, math.nan), (1,)), BAD),
        (Histogram((0.0, 1.0), (-1,)), BAD),
        (Histogram((0.0, 1.0), (0.5,)), BAD),
        (Histogram((0.0, 1.0), (2**5000,)), BAD),
        (Histogram((0.0, 1.0), (1, 2)), BAD),
        (Histogram(tuple(map(float, range(MANY))), (1,) * (MANY - 1)), f"{2 * MANY - 1} numbers, at most {MANY}"),
        (Confusion(((1, -1), (0, 0))), BAD),
        (Confusion(((1, 2),)), BAD),
        (Confusion(((1,), (2,))), BAD),
        (Confusion(((MAX_NUM_EXAMPLES + 1,),)), BAD),
        (Confusion(((1,) * 200,) * 200), f"40000 numbers, at most {MANY}"),
        (0.5, "a float is not a statistic"),
        (W, "a ndarray is not a statistic"),
        ([1.0] * 60, "a list is not a statistic"),
    ],
)
def test_a_statistic_that_is_not_one_is_refused_by_name(statistic, why):
    statistics = {"loss": Mean(1.0, 1.0), "smuggled": statistic}
    assert refusal(statistics=statistics) == ("smuggled", why)
    with pytest.raises(RefusedUpdate, match="client 17: smuggled refused: ") as raised:
        check_report(replace(REPORT, statistics=statistics))
    assert raised.value.why == why


def test_statistics_are_few_and_their_names_short():
    def many(number):
        return {str(i): Mean(1.0, 1.0) for i in range(number)}

    assert BOUNDARY.release(replace(UPDATE, statistics=many(MAX_STATISTICS)))
    assert refusal(statistics=many(MAX_STATISTICS + 1)) == ("statistics", "33 of them, at most 32")
    assert BOUNDARY.release(replace(UPDATE, statistics={"n" * MAX_NAME: Mean(1.0, 1.0)}))
    what, why = refusal(statistics={"a private letter " * 1000: Mean(1.0, 1.0)})
    assert (what, why) == ("statistics", "a name is longer than 64 letters")


@pytest.mark.parametrize("value", [-1, 0.5, True, MAX_NUM_EXAMPLES + 1])
def test_a_report_counts_whole_examples(value):
    with pytest.raises(RefusedUpdate, match=r"client 17: num_examples refused: .* is not a whole number from 0"):
        check_report(replace(REPORT, num_examples=value))


def test_what_a_refusal_says_can_be_read_by_a_user():
    with pytest.raises(RefusedUpdate) as raised:
        BOUNDARY.release(replace(UPDATE, delta={**UPDATE.delta, "w": W * np.float32(np.nan)}))
    assert str(raised.value) == "client 17: delta refused: array 'w' holds a NaN or an infinity"


@pytest.mark.parametrize(
    "record",
    [UPDATE, REPORT, BOUNDARY, TrainTask(1, 0, MODEL), EvaluateTask(1, 1, MODEL)],
    ids=lambda r: type(r).__name__,
)
def test_records_are_frozen(record):
    for field in fields(record):
        with pytest.raises(FrozenInstanceError):
            setattr(record, field.name, None)


@pytest.mark.parametrize(
    "statistic",
    [
        Counts((1, -1)),
        Counts((1.5,)),
        Sums((1.0, math.nan)),
        Moments(1, 0, 2, 0.0, 0.0, 0.0, 0.0),
        Moments(1, 0, 1, math.inf, 0.0, 0.0, 0.0),
        Moments(1, 0, 1, 0.0, -1.0, 0.0, 0.0),
        Moments(1, 0, 1, 0.0, 0.0, 1.0, 0.0),
        CoMoments((1, 1), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        CoMoments((1,), (0.0,), (0.0,), (math.nan,)),
        Distinct((65,)),
        HeavyHitters((1.0, 2.0), (3, 4), capacity=1),
        HeavyHitters((1.0,), (3,), capacity=8, lost=-1),
        Rows((2**52,), capacity=4),
        Rows((1, 2), capacity=1),
    ],
    ids=repr,
)
def test_a_statistic_that_cannot_be_one_is_refused(statistic):
    what, why = refusal(statistics={"it": statistic})
    assert (what, why) == ("it", "it has the wrong shape, or holds a NaN, an infinity or what is no count")
