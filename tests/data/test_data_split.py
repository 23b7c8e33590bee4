"""Parts of a client, and rows set apart for the server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.data.split import by_group, by_ratio, by_time, set_apart, shuffled, split_sizes, stratified
from fl.errors import BadInput

fractions = st.floats(0, 0.49)


@given(n=st.lists(st.integers(1, 10**6), min_size=1, max_size=20), validation=fractions, test=fractions)
def test_parts_add_up_train_is_never_empty_and_small_clients_are_served(n, validation, test):
    sizes = split_sizes(np.array(n), validation_fraction=validation, test_fraction=test)
    assert np.array_equal(sizes.sum(axis=1), n)
    assert (sizes[:, 0] >= 1).all()
    assert (sizes >= 0).all()
    for count, (_, v, t) in zip(n, sizes, strict=True):
        if test and count >= 2:
            assert t >= 1
        if validation and count >= 3 and count - 1 - t > 0:
            assert v >= 1
        assert (v == 0) if validation == 0 else abs(v - count * validation) <= 1
        assert (t == 0) if test == 0 else abs(t - count * test) <= 1


@pytest.mark.parametrize(
    "validation, test, key",
    [
        (-0.1, 0, "validation_fraction"),
        (0, 1, "test_fraction"),
        (0.5, 0.5, "validation_fraction"),
        (0, float("nan"), "test"),
    ],
)
def test_fractions_that_leave_nothing_are_refused(validation, test, key):
    with pytest.raises(BadInput, match=rf"dataset\.{key}"):
        split_sizes(np.array([10]), validation_fraction=validation, test_fraction=test)


def test_an_empty_client_is_named():
    with pytest.raises(BadInput, match="no examples for client 2"):
        split_sizes(np.array([3, 2, 0, 1]), validation_fraction=0.1, test_fraction=0.1)


def test_the_shuffle_is_a_clients_own():
    rows = np.arange(50)
    assert np.array_equal(shuffled(rows, 1, 4), shuffled(rows, 1, 4))
    assert not np.array_equal(shuffled(rows, 1, 4), shuffled(rows, 1, 5))
    assert not np.array_equal(shuffled(rows, 1, 4), shuffled(rows, 2, 4))


@given(
    client=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
def test_rows_set_apart_leave_three_to_each_client(client, fraction, seed):
    ids = np.array(client)
    mask = set_apart(len(ids), fraction, ids, seed, purpose="public")
    assert mask.sum() <= int(fraction * len(ids) + 0.5)
    for c in np.unique(ids):
        mine = ids == c
        assert (mine & ~mask).sum() >= min(3, mine.sum())
    assert set_apart(len(ids), fraction, None, seed, purpose="public").sum() == int(fraction * len(ids) + 0.5)


DIVISIONS = {
    "ratio": lambda values, seed, **f: by_ratio(len(values), seed=seed, **f),
    "stratified": lambda values, seed, **f: stratified(values, seed=seed, **f),
    "time": lambda values, seed, **f: by_time(values, **f),
    "group": lambda values, seed, **f: by_group(values, seed=seed, **f),
}
columns = st.lists(st.integers(0, 9), min_size=1, max_size=120).map(np.array)


@pytest.mark.parametrize("kind", DIVISIONS)
@given(values=columns, validation=fractions, test=fractions, seed=st.integers(0, 99))
def test_every_row_is_in_one_part_by_seed_and_something_is_trained_on(kind, values, validation, test, seed):
    given_, shares = values.copy(), {"validation_fraction": validation, "test_fraction": test}
    part = DIVISIONS[kind](values, seed, **shares)
    assert part.shape == values.shape and set(part.tolist()) <= {0, 1, 2} and (part == 0).any()
    assert np.array_equal(part, DIVISIONS[kind](values, seed, **shares))
    assert np.array_equal(values, given_)
    assert (validation or not (part == 1).any()) and (test or not (part == 2).any())


@given(values=columns, validation=fractions, test=fractions, seed=st.integers(0, 99))
def test_a_ratio_is_kept_and_the_seed_matters(values, validation, test, seed):
    shares = {"validation_fraction": validation, "test_fraction": test}
    sizes = np.bincount(by_ratio(len(values), seed=seed, **shares), minlength=3)
    assert np.array_equal(sizes, split_sizes(np.array([len(values)]), **shares)[0])
    one, other = (by_ratio(500, seed=s, validation_fraction=0.1, test_fraction=0.1) for s in (seed, seed + 1))
    assert not np.array_equal(one, other)


@given(values=columns, validation=fractions, test=fractions, seed=st.integers(0, 99))
def test_every_label_keeps_its_share(values, validation, test, seed):
    shares = {"validation_fraction": validation, "test_fraction": test}
    part = stratified(values, seed=seed, **shares)
    for label in np.unique(values):
        mine = part[values == label]
        assert np.array_equal(np.bincount(mine, minlength=3), split_sizes(np.array([len(mine)]), **shares)[0])


@given(values=columns, validation=fractions, test=fractions)
def test_what_is_trained_on_is_earlier_than_what_is_tested_on(values, validation, test):
    part = by_time(values, validation_fraction=validation, test_fraction=test)
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if (part == earlier).any() and (part == later).any():
            assert values[part == earlier].max() < values[part == later].min()


def test_times_without_ties_are_cut_where_the_fractions_say():
    times = np.random.default_rng(0).permutation(100)
    part = by_time(times, validation_fraction=0.1, test_fraction=0.2)
    assert np.array_equal(part, np.repeat([0, 1, 2], [70, 10, 20])[times])


@given(values=columns, validation=fractions, test=fractions, seed=st.integers(0, 99))
def test_no_group_is_in_two_parts(values, validation, test, seed):
    part = by_group(values, validation_fraction=validation, test_fraction=test, seed=seed)
    for group in np.unique(values):
        assert len(set(part[values == group])) == 1


def test_groups_come_near_the_ratio_and_are_drawn():
    groups = np.random.default_rng(0).integers(0, 300, 6_000)
    one, other = (by_group(groups, validation_fraction=0.1, test_fraction=0.2, seed=s) for s in (0, 1))
    assert np.bincount(one) / len(one) == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    assert not np.array_equal(one, other)
    assert set(by_group(np.array([5, 5, 5, 5, 7, 9]), validation_fraction=0.1, test_fraction=0.1, seed=3)) == {0, 1, 2}
