"""Moments merge into what one pass over all values gives, whatever their mean and however they are dealt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.metrics import merge
from fl.moments import CoMoments, Moments

VALUES = st.lists(st.one_of(st.integers(-50, 50).map(lambda n: n / 4), st.just(math.nan)), max_size=20)


def both(parts):
    """The parts' moments merged, and those of all values at once."""
    pooled = np.array([v for part in parts for v in part], np.float64)
    return merge({"it": Moments.of(np.array(part, np.float64))} for part in parts)["it"], pooled


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_merged_moments_are_those_of_all_values(parts):
    found, pooled = both(parts)
    known = pooled[~np.isnan(pooled)]
    assert (found.count, found.missing) == (len(known), len(pooled) - len(known))
    assert found.whole == sum(v.is_integer() for v in known.tolist())
    if len(known):
        assert found.mean == pytest.approx(known.mean(), rel=1e-12, abs=1e-12)
        assert found.variance == pytest.approx(known.var(), rel=1e-12, abs=1e-12)
        assert (found.low, found.high) == (known.min(), known.max())
    else:
        assert math.isnan(found.variance)


def test_a_large_mean_costs_no_digits():
    parts = [[1e9 + 1, 1e9 + 2], [1e9 + 3], [1e9 + 4, 1e9 + 5]]
    found, _ = both(parts)
    assert (found.mean, found.variance, found.deviation) == (1e9 + 3, 2.0, math.sqrt(2.0))


def test_an_infinity_counts_as_missing():
    assert Moments.of(np.array([1.0, math.inf, -math.inf])) == Moments(1, 2, 1, 1.0, 0.0, 1.0, 1.0)


def test_correlations_are_over_the_rows_where_both_are_known():
    random = np.random.default_rng(1)
    x = random.normal(size=(60, 3)) @ random.normal(size=(3, 3)) + [0, 1e3, -5]
    x[::7, 0], x[3::5, 2] = np.nan, np.nan
    parts = [x[:1], x[1:30], x[30:30], x[30:]]
    found = merge({"all": CoMoments.of(part)} for part in parts)["all"]
    for i in range(3):
        for j in range(3):
            rows = ~np.isnan(x[:, i]) & ~np.isnan(x[:, j])
            assert found.count[3 * i + j] == rows.sum()
            assert found.mean[3 * i + j] == pytest.approx(x[rows, i].mean(), rel=1e-12)
            assert found.correlation[i, j] == pytest.approx(np.corrcoef(x[rows, i], x[rows, j])[0, 1], rel=1e-11)


def test_a_constant_column_correlates_with_nothing():
    assert np.isnan(CoMoments.of(np.array([[1.0, 2.0], [1.0, 3.0]])).correlation[0, 1])
    with pytest.raises(ValueError, match="different columns"):
        CoMoments.of(np.ones((2, 2))).merge(CoMoments.of(np.ones((2, 3))))
