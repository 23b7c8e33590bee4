"""Parts of a client, and rows set apart for the server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.data.split import set_apart, shuffled, split_sizes
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
