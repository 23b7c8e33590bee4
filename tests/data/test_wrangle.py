"""Federated medians and moments equal those of the pooled training rows, and of nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.wrangle import fill_client, fit_target, medians, moments
from fl.seeds import generator
from fl.signature import Signature

numbers = st.floats(allow_nan=True, allow_infinity=False, width=64)


@given(parts=st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_medians_are_the_exact_lower_medians_of_all_rows(parts):
    arrays = [np.array(p) for p in parts]
    pooled = np.concatenate(arrays)
    found = medians(arrays)
    for column in range(2):
        known = np.sort(pooled[~np.isnan(pooled[:, column]), column])
        expected = known[(len(known) - 1) // 2] if len(known) else 0.0
        assert found[column] == expected


def test_medians_of_float32_are_values_of_the_data():
    x = generator(0, purpose="x").normal(size=(501, 3)).astype(np.float32)
    assert np.array_equal(medians([x[:100], x[100:]]), np.median(x.astype(np.float64), axis=0))


def test_moments_are_those_of_the_filled_rows():
    x = generator(0, purpose="x").normal(size=(300, 3)) * [1, 50, 0] + [1e4, 0, 7]
    x[::7, 1] = np.nan
    fill = np.array([0, 3.0, 0])
    mean, std = moments([x[:10], x[10:200], x[200:]], fill)
    filled = np.where(np.isnan(x), fill, x)
    assert mean == pytest.approx(filled.mean(axis=0), rel=1e-12)
    assert std[:2] == pytest.approx(filled.std(axis=0)[:2], rel=1e-9)
    assert std[2] == 1


def test_target_moments():
    signature = Signature(task="regression", input_shape=(1,), input_dtype="float32", num_outputs=1)
    fitted = fit_target(signature, [np.array([1.0, 2.0]), np.array([6.0])])
    assert fitted.target_mean == 3
    assert fitted.target_std == pytest.approx(np.std([1, 2, 6]))


def test_a_client_fills_with_its_own_medians_and_flags():
    train = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan], [2.0, np.nan]])
    rows = np.array([[np.nan, 5.0], [9.0, np.nan]])
    filled = fill_client(rows, train, [0, 1], np.array([100.0, 200.0]))
    assert filled.tolist() == [[2, 5, 1, 0], [9, 200, 0, 1]]
