"""Who is asked: distinct clients, equally likely, the same for the same seed and round, in the memory of a cohort."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.cohorts import check_cohort_size, drops_out, everyone, uniform
from fl.errors import BadInput


@given(st.integers(1, 300), st.integers(0, 400), st.integers(0, 50), st.integers(1, 50))
def test_a_cohort_is_distinct_sorted_of_its_size_and_from_those_available(population, size, seed, round):
    clients = range(7, 7 + 3 * population, 3)
    cohort = uniform(round, clients, size, seed)
    assert len(cohort) == min(size, population)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(clients)
    assert all(type(client) is int for client in cohort)
    assert uniform(round, list(clients), size, seed) == cohort


def test_rounds_and_seeds_draw_apart():
    drawn = [tuple(uniform(round, range(1000), 10, seed)) for round in range(20) for seed in range(20)]
    assert len(set(drawn)) == len(drawn)


def test_every_client_is_equally_likely():
    rounds, population, size = 4000, 10, 3
    counts = Counter(client for round in range(rounds) for client in uniform(round, range(population), size, seed=1))
    expected = rounds * size / population
    spread = (rounds * (size / population) * (1 - size / population)) ** 0.5
    assert all(abs(counts[client] - expected) < 4 * spread for client in range(population))


def test_a_population_of_a_billion_costs_no_more_than_its_cohort():
    tracemalloc.start()
    try:
        clients = everyone(1, range(10**9))
        assert len(uniform(1, clients, 100, seed=0)) == 100
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_the_default_size_is_ten_or_all():
    assert check_cohort_size(None, 100) == 10
    assert check_cohort_size(None, 4) == 4
    assert [check_cohort_size(size, 5) for size in (1, 5)] == [1, 5]


@pytest.mark.parametrize("size", [0, -1, 6])
def test_a_cohort_that_cannot_be_is_named(size):
    with pytest.raises(BadInput) as raised:
        check_cohort_size(size, 5)
    assert str(raised.value) == f"cohort_size: got {size}, allowed: 1 to num_clients=5"


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_drop_out_has_its_share_and_is_another_for_every_round_client_and_seed(fraction: float) -> None:
    def gone(round: int, seed: int) -> list[bool]:
        return [drops_out(round, client, fraction=fraction, seed=seed) for client in range(2000)]

    first = gone(1, 0)
    assert first == gone(1, 0)
    assert abs(sum(first) / 2000 - fraction) < 4 * (fraction * (1 - fraction) / 2000) ** 0.5
    for other in (gone(2, 0), gone(1, 1)):
        both = sum(a and b for a, b in zip(first, other, strict=True)) / 2000
        assert abs(both - fraction**2) < 0.03, "as often together as by chance"


def test_nobody_drops_out_of_a_run_without_it() -> None:
    assert not any(drops_out(round, client, fraction=0.0, seed=1) for round in range(5) for client in range(50))
