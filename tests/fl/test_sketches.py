"""Sketches against exact values, on skewed data: within what each states, and the same however the values are dealt."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import numpy as np
import pytest

from fl.sketches import Distinct, HeavyHitters, Rows, hashed

ZIPF = np.minimum(np.random.default_rng(5).zipf(1.3, 60_000), 1e9).astype(np.float64)


def dealt(values, parts=23):
    return [values[i::parts] for i in range(parts)]


def merged(sketches):
    return reduce(lambda a, b: a.merge(b), sketches)


@pytest.mark.parametrize("num_values", [0, 1, 20, 1_000, 10_000, 200_000])
def test_distinct_values_are_counted_within_a_few_per_cent(num_values):
    values = np.repeat(np.random.default_rng(num_values).normal(size=num_values), 2)
    found = Distinct.of(values).value
    assert found == pytest.approx(num_values, rel=4 * 1.04 / 64, abs=0.5)


def test_distinct_values_of_skewed_data_do_not_depend_on_who_holds_them():
    whole = Distinct.of(ZIPF)
    parts = [Distinct.of(part) for part in dealt(ZIPF)]
    assert merged(parts) == whole == merged(parts[::-1])
    assert whole.value == pytest.approx(len(np.unique(ZIPF)), rel=0.05)


def test_missing_values_are_no_value_and_there_is_one_zero():
    assert Distinct.of(np.array([np.nan, np.inf])).value == 0
    assert Distinct.of(np.array([0.0, -0.0])) == Distinct.of(np.array([0.0]))
    assert Distinct.of(np.array([1.0]), salt=1) != Distinct.of(np.array([1.0]), salt=2)
    assert hashed(np.array([np.nan]), 3) == hashed(-np.array([np.nan]), 3)


@pytest.mark.parametrize("capacity", [8, 64])
def test_heavy_hitters_are_right_within_what_they_say_they_lost(capacity):
    exact = Counter(ZIPF.tolist())
    found = merged(HeavyHitters.of(part, capacity) for part in dealt(ZIPF))
    assert len(found.items) <= capacity
    assert 0 < found.lost <= len(ZIPF) / (capacity + 1)
    for value, count in found.items:
        assert count <= exact[value] <= count + found.lost
    for value in set(exact) - set(found.values):
        assert exact[value] <= found.lost
    assert found.top[0][0] == 1.0


def test_few_values_are_counted_exactly():
    values = np.array([3.0, 1.0, 1.0, np.nan, 2.0, 1.0])
    assert HeavyHitters.of(values, 3).top == [(1.0, 3), (2.0, 1), (3.0, 1)]
    assert HeavyHitters.of(values, 3).lost == 0


def test_a_value_that_is_rare_at_a_client_is_not_told():
    one, other = np.array([7.0] * 9 + [1.0, 1.0]), np.array([7.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = HeavyHitters.of(one, 8, at_least=5).merge(HeavyHitters.of(other, 8, at_least=5))
    assert found.items == [(1.0, 5), (7.0, 9)]
    assert found.lost == 3


def test_shared_rows_are_exact_for_small_sets_and_a_share_for_large_ones():
    random = np.random.default_rng(2)
    rows = random.normal(size=(5000, 4))
    small, other = Rows.of(rows[:100], 256, salt=9), Rows.of(rows[75:200], 256, salt=9)
    assert small.shared(other) == other.shared(small) == 0.25
    large, half = Rows.of(rows[:4000], 512, salt=9), Rows.of(rows[2000:], 512, salt=9)
    assert large.shared(large) == 1.0
    assert large.shared(half) == pytest.approx(2000 / 3000, abs=0.1)
    assert large.shared(Rows.of(random.normal(size=(4000, 4)), 512, salt=9)) == 0
    assert merged(Rows.of(part, 512, salt=9) for part in dealt(rows[:4000])) == large
    assert small.shared(Rows.of(rows[:100], 256, salt=8)) == 0, "hashes of another salt tell nothing"
