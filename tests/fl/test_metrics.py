"""Statistics merge into what one pass over all examples would have given."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.metrics import QUANTILES, Confusion, Counts, Histogram, Mean, Sums, merge, quantiles, values

EDGES = (-2.0, 0.0, 0.5, 3.0)
CLASSES = 4
EXAMPLES = st.lists(
    st.tuples(st.integers(-1000, 1000), st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), max_size=30
)


def statistics(examples):
    """All three kinds over (value in 1/8, target, prediction); sums of eighths are exact."""
    numbers = np.array([value / 8 for value, _, _ in examples])
    targets, predictions = (np.array([e[i] for e in examples], np.int64) for i in (1, 2))
    return {
        "mean": Mean(float(numbers.sum()), float(len(numbers))),
        "histogram": Histogram.of(numbers, EDGES),
        "confusion": Confusion.of(targets, predictions, CLASSES),
    }


@given(st.lists(EXAMPLES, min_size=1, max_size=5))
def test_merging_parts_is_one_pass_over_all(parts):
    assert merge(map(statistics, parts)) == statistics([example for part in parts for example in part])


@given(EXAMPLES, EXAMPLES, EXAMPLES, st.sampled_from(["mean", "histogram", "confusion"]))
def test_merging_is_associative_and_commutative(a, b, c, name):
    x, y, z = (statistics(part)[name] for part in (a, b, c))
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(y) == y.merge(x)


@given(EXAMPLES)
def test_counts_are_those_of_a_plain_loop(examples):
    found = statistics(examples)
    confusion = [[0] * CLASSES for _ in range(CLASSES)]
    bins = [0, 0, 0]
    for value, target, prediction in examples:
        confusion[target][prediction] += 1
        bins[sum(value / 8 >= edge for edge in EDGES[1:-1])] += 1
    assert found["confusion"].counts == tuple(map(tuple, confusion))
    assert found["histogram"].counts == tuple(bins)
    assert found["histogram"].edges == EDGES


def test_what_lies_outside_a_histogram_goes_to_its_ends():
    assert Histogram.of(np.array([[-1e9, -2.0], [3.0, math.inf]]), EDGES).counts == (2, 0, 2)


def test_a_nan_is_not_counted():
    assert Histogram.of(np.array([math.nan, 0.1]), EDGES).counts == (0, 1, 0)


def test_histograms_of_other_edges_and_tables_of_other_classes_do_not_merge():
    with pytest.raises(ValueError, match="different edges"):
        Histogram((0.0, 1.0), (1,)).merge(Histogram((0.0, 2.0), (1,)))
    with pytest.raises(ValueError, match="shorter"):
        Confusion(((1, 0), (0, 1))).merge(Confusion(((1,),)))


def test_a_mean_travels_as_total_and_weight_never_as_a_mean():
    small, large = Mean(total=1.0, weight=1.0), Mean(total=0.0, weight=99.0)
    assert small.merge(large).value == 0.01
    assert math.isnan(Mean(0.0, 0.0).value)


def test_a_name_that_only_some_have_is_merged_over_those():
    found = merge([{"loss": Mean(2.0, 1.0)}, {"loss": Mean(4.0, 1.0), "gain": Mean(1.0, 1.0)}, {}])
    assert found == {"loss": Mean(6.0, 2.0), "gain": Mean(1.0, 1.0)}
    assert merge([]) == {}


def test_merging_changes_none_of_its_parts():
    parts = [{"loss": Mean(2.0, 1.0)}, {"loss": Mean(4.0, 1.0)}]
    merge(parts)
    assert parts == [{"loss": Mean(2.0, 1.0)}, {"loss": Mean(4.0, 1.0)}]
    with pytest.raises(FrozenInstanceError):
        parts[0]["loss"].total = 3.0


def test_plain_values_are_the_means_that_counted_something():
    found = {"loss": Mean(3.0, 2.0), "none": Mean(0.0, 0.0), "confusion": Confusion(((1,),))}
    assert values(found) == {"loss": 1.5}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_quantiles_are_ordered_bounded_and_blind_to_order(numbers, random):
    found = quantiles(numbers)
    assert list(found) == list(QUANTILES) == ["min", "p10", "median", "p90", "max"]
    assert found["min"] == min(numbers) and found["max"] == max(numbers)
    assert list(found.values()) == sorted(found.values())
    shuffled = list(numbers)
    random.shuffle(shuffled)
    assert quantiles(shuffled) == found


def test_quantiles_lie_between_numbers_by_linear_interpolation():
    assert quantiles(list(range(11)))["p90"] == 9.0
    assert quantiles([0.0, 1.0]) == {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
    assert quantiles([]) == {}


def test_counts_and_sums_add_up_place_by_place():
    assert merge([{"n": Counts((1, 2))}, {"n": Counts((3, 0))}]) == {"n": Counts((4, 2))}
    assert merge([{"n": Sums((1.5, -2.0))}, {"n": Sums((-3.0, 0.5))}]) == {"n": Sums((-1.5, -1.5))}
    with pytest.raises(ValueError, match="counts of different things"):
        Counts((1,)).merge(Counts((1, 2)))
