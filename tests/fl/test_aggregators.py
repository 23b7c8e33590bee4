"""The weighted mean: exact where it can be, the same by any cut into units, in the memory of one update."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.aggregators.mean import WeightedSum

LIKE = {
    "w": np.zeros((2, 3), np.float32),
    "wide": np.zeros(2),
    "scalar": np.zeros((), np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "counter": np.array(0),
    "mask": np.zeros(3, bool),
}


def updates(number, seed=0):
    draw = np.random.default_rng(seed)
    return [
        {
            "w": draw.normal(size=(2, 3)).astype(np.float32),
            "wide": draw.normal(size=2),
            "scalar": np.asarray(draw.normal(), np.float32),
            "empty": np.zeros((0, 4), np.float32),
            "counter": np.array(draw.integers(-9, 9)),
            "mask": draw.random(3) < 0.5,
        }
        for _ in range(number)
    ]


def summed(parts, weights):
    total = WeightedSum()
    for part, weight in zip(parts, weights, strict=True):
        total.add(part, weight)
    return total


WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=8)


@given(WEIGHTS, st.integers(0, 10))
def test_it_is_the_weighted_mean_in_the_dtypes_of_the_model(weights, seed):
    parts = updates(len(weights), seed)
    mean = summed(parts, weights).mean(LIKE)
    assert mean.keys() == LIKE.keys()
    for name, like in LIKE.items():
        expected = np.average(np.stack([p[name].astype(np.float64) for p in parts]), axis=0, weights=weights)
        assert isinstance(mean[name], np.ndarray)
        assert (mean[name].dtype, mean[name].shape) == (like.dtype, like.shape)
        rounding = 0.5 + 1e-9 if like.dtype.kind in "ib" else 1e-12 if like.dtype == np.float64 else 1e-5
        assert np.abs(mean[name] - expected).max(initial=0) <= rounding, name


@given(WEIGHTS, st.integers(0, 10), st.data())
def test_units_that_are_merged_in_order_are_all_clients_together(weights, seed, data):
    parts = [{"w": np.round(p["wide"] * 1024), "counter": p["counter"]} for p in updates(len(weights), seed)]
    cut = data.draw(st.integers(0, len(parts)))
    whole = summed(parts, weights)
    merged = WeightedSum()
    for unit in (slice(0, cut), slice(cut, None)):
        one = summed(parts[unit], weights[unit])
        if one.weight:
            merged.merge(one.arrays, one.weight)
    assert merged.weight == whole.weight
    assert all(np.array_equal(merged.arrays[name], whole.arrays[name]) for name in whole.arrays)


def test_equal_updates_have_themselves_as_mean():
    (part,) = updates(1)
    mean = summed([part] * 7, [3, 1, 4, 1, 5, 9, 2]).mean(LIKE)
    assert all(np.allclose(mean[name], part[name], rtol=1e-6) for name in LIKE)


def test_integers_are_summed_unrounded_and_the_mean_rounded_once():
    parts = [{"n": np.array(value, np.int64)} for value in (1, 1, 2)]
    total = summed(parts, [0.5, 0.5, 0.5])
    assert total.arrays["n"] == 2.0
    assert total.mean(parts[0])["n"] == 1


def test_counters_beyond_float32_are_summed_exactly():
    parts = [{"n": np.array(2**40 + i)} for i in (0, 2)]
    assert summed(parts, [1.0, 1.0]).mean(parts[0])["n"] == 2**40 + 1


def test_booleans_go_with_the_majority():
    parts = [{"m": np.array(value)} for value in ([True, True], [True, False], [False, False])]
    assert summed(parts, [1.0, 1.0, 1.0]).mean(parts[0])["m"].tolist() == [True, False]


def test_sums_stay_in_the_dtype_of_the_arrays():
    assert {n: a.dtype.name for n, a in summed(updates(3), [1, 2, 3]).arrays.items()} == {
        "w": "float32",
        "wide": "float64",
        "scalar": "float32",
        "empty": "float32",
        "counter": "float64",
        "mask": "float64",
    }


def test_nothing_that_is_handed_in_is_changed():
    parts = updates(3)
    before = [{name: value.copy() for name, value in part.items()} for part in parts]
    total = summed(parts, [1.0, 1.0, 1.0])
    other = WeightedSum()
    other.merge(total.arrays, total.weight)
    other.merge(total.arrays, total.weight)
    other.mean(LIKE)
    assert all(np.array_equal(p[n], b[n]) for p, b in zip(parts, before, strict=True) for n in LIKE)
    again = summed(parts, [1.0, 1.0, 1.0])
    assert all(np.array_equal(total.arrays[n], again.arrays[n]) for n in LIKE)


def test_the_mean_of_nothing_is_not_a_mean():
    with pytest.raises(ValueError, match="mean of nothing"):
        WeightedSum().mean(LIKE)


def test_an_algorithm_without_extra_arrays_sums_none():
    total = WeightedSum()
    total.add({}, 1.0)
    assert total.mean({}) == {}


def test_memory_is_that_of_one_update_however_many_are_added():
    update = {"w": np.ones(250_000, np.float32)}
    total = WeightedSum()
    total.add(update, 1.0)
    tracemalloc.start()
    try:
        for _ in range(50):
            total.add(update, 2.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * update["w"].nbytes
    assert total.mean(update)["w"][0] == 1.0
