"""Flower's records through buffers and back: the same values, nothing shared, nothing encoded twice."""

from __future__ import annotations

import copy
import pickle

import flwr.app
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl.foreign.records import Array, _records_of, copy_of, decode, encode, npy_of

ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex64, np.dtype(">f4")]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
)


def content(*arrays):
    return RecordDict(
        {
            "arrays": ArrayRecord(list(arrays)),
            "config": ConfigRecord({"a": 1, "b": [1.5], "c": b"\x00", "d": "x", "e": True}),
            "metrics": MetricRecord({"n": 3, "l": [1.0, 2.0]}),
        }
    )


@given(st.lists(ARRAYS, max_size=3))
def test_records_come_back_as_they_were(arrays):
    before = content(*arrays)
    after = copy_of(before)
    assert after == before and before == after
    assert [type(record) for record in after.values()] == [type(record) for record in before.values()]
    for array, value in zip(after["arrays"].values(), arrays, strict=True):
        assert isinstance(array, flwr.app.Array) and array.data == flwr.app.Array(value).data
        got = array.numpy()
        assert got.dtype == value.dtype and got.shape == value.shape and got.flags.writeable
        np.testing.assert_array_equal(got, value)


def test_what_one_receiver_changes_no_other_sees():
    head, buffers = encode(content(np.arange(3.0)))
    one, other = decode(head, buffers), decode(head, buffers)
    one["arrays"].to_numpy_ndarrays(keep_input=False)
    one["config"].clear()
    other["arrays"]["0"].numpy()[:] = 9
    assert not one["arrays"] and len(other["config"]) == 5
    assert other["arrays"]["0"].numpy().tolist() == [0.0, 1.0, 2.0]


def test_passing_on_encodes_nothing():
    head, buffers = encode(content(np.arange(3.0)))
    received = decode(head, buffers)
    assert npy_of(received["arrays"]["0"]) is buffers[0]
    assert encode(received)[1][0] is buffers[0]


def test_column_major_arrays_and_what_is_no_npy():
    value = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    (array,) = copy_of(content(value))["arrays"].values()
    assert array.view() is None
    np.testing.assert_array_equal(array.numpy(), value)
    own = Array("float32", (2,), "my.encoding", b"anything")
    with pytest.raises(TypeError):
        own.numpy()
    assert own.data == b"anything"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda array: pickle.loads(pickle.dumps(array))])
def test_arrays_are_copied_and_pickled_as_flowers_are(again):
    (array,) = copy_of(content(np.arange(3.0)))["arrays"].values()
    assert again(array) == array and type(again(array)).__qualname__ == "Array"


@pytest.mark.parametrize("name, kind", [("array_records", ArrayRecord), ("metric_records", MetricRecord)])
def test_records_of_one_kind_are_those_that_flower_gives(name, kind):
    records = content(np.arange(3.0))
    ours, theirs = _records_of(kind)(records), getattr(records, name)
    assert type(ours) is type(theirs) and ours == theirs
    ours["new"] = kind()
    assert "new" in records, "what is put there is put into the whole"
    with pytest.raises(TypeError):
        ours["other"] = ConfigRecord()
    del ours["new"]
    assert "new" not in records
