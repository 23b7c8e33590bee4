"""A metric over clients: the figures against other ways to compute them, and who is compared with whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.evaluation.distribution import distribution, gini, groups, jain, spread, worst_mean

VALUES = st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=1, max_size=40)


@given(VALUES)
def test_the_gini_coefficient_is_the_mean_difference_of_all_pairs(values):
    x = np.asarray(values)
    pairs = np.abs(x[:, None] - x[None, :]).sum()
    expected = pairs / (2 * len(x) ** 2 * x.mean()) if x.mean() else 0.0
    assert gini(values) == pytest.approx(expected, abs=1e-9)
    assert 0 <= gini(values) <= 1 - 1 / len(x) + 1e-9


@given(VALUES, st.floats(0.1, 10))
def test_jains_index_is_of_the_spread_alone(values, factor):
    x = np.asarray(values)
    if x.any():
        assert jain(values) == pytest.approx(1 / (1 + (x.std() / x.mean()) ** 2))
        assert jain([v * factor for v in values]) == pytest.approx(jain(values))
    assert 1 / len(x) - 1e-9 <= jain(values) <= 1 + 1e-9


@pytest.mark.parametrize("clients, worst", [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (70, 7), (100, 10), (101, 11)])
def test_the_worst_tenth_is_whole_clients_rounded_up(clients, worst):
    values = [float(v) for v in np.random.default_rng(0).permutation(clients)]
    assert worst_mean(values) == pytest.approx(np.mean(range(worst)))
    assert worst_mean(values, lower_is_better=True) == pytest.approx(np.mean(range(clients - worst, clients)))


def test_deciles_are_numpys_and_nothing_is_told_of_no_number():
    values = list(np.random.default_rng(1).random(37))
    found = distribution(values)
    assert found.deciles == pytest.approx(np.percentile(values, range(0, 101, 10)))
    assert (found.deciles[0], found.deciles[-1], found.clients) == (min(values), max(values), 37)
    assert distribution([-1.0, 2.0]).gini is None and distribution([-1.0, 2.0]).jain is None
    for wrong in ([], [float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            distribution(wrong)


ROWS = [
    {"client": 0, "seen": True, "global": {"accuracy": 0.5, "loss": 2.0}, "local": {"accuracy": 0.7, "loss": 3.0}},
    {"client": 1, "seen": True, "global": {"accuracy": 0.9, "loss": 1.0}, "local": {"accuracy": 0.9, "loss": 0.5}},
    {"client": 2, "seen": False, "global": {"accuracy": 0.6, "loss": 1.5}},
    {"client": 3, "seen": False, "global": {"accuracy": 0.8, "loss": 1.5}, "local": {"accuracy": 0.1, "loss": 4.0}},
]


def test_models_are_compared_where_a_client_knows_both_and_a_lower_loss_is_better():
    found = spread(ROWS, models=("global", "local"), against="global")
    assert list(found) == ["all", "seen", "unseen"]
    everyone = found["all"]["accuracy"]
    assert (everyone["global"]["clients"], everyone["local"]["clients"]) == (4, 3)
    assert "share_better" not in everyone["global"]
    assert everyone["local"]["share_better"] == everyone["local"]["share_worse"] == pytest.approx(1 / 3)
    loss = found["seen"]["loss"]
    assert loss["local"]["share_better"] == loss["local"]["share_worse"] == 0.5
    assert loss["global"]["worst"] == 2.0 and found["seen"]["accuracy"]["global"]["worst"] == 0.5
    assert found["unseen"]["accuracy"]["local"]["mean"] == 0.1


def test_where_nobody_is_unseen_there_is_one_group():
    assert list(groups(ROWS[:2])) == ["all"]
    assert list(spread(ROWS[:2], models=("global",), against="global")) == ["all"]
