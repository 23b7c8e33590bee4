"""Whether a challenger does harm: seen soon, seldom claimed where there is none, excluded before it is called fine."""

import numpy as np
import pytest

from fl.deployment import checked_options
from fl.deployment.health import Harm, figures_of, harms, judged, quantile, watched, watching
from fl.releases import CHALLENGER, CHAMPION, LATENCY_EDGES, Evidence, Figures

OPTIONS = checked_options("canary", {}, challengers=1)
NAMES = (CHAMPION, CHALLENGER)


def counted(random, number: int, *, errors: float = 0.02, seconds: float = 0.02, right: float = 0.8) -> Figures:
    latencies = seconds * np.exp(0.5 * random.standard_normal(number))
    bins = np.bincount(np.searchsorted(LATENCY_EDGES, latencies, side="right"), minlength=62)
    reward = float(random.binomial(number, right))
    return Figures(
        requests=number,
        errors=int(random.binomial(number, errors)),
        latency_counts=tuple(bins.tolist()),
        rewards=number,
        reward_sum=reward,
        reward_squares=reward,
    )


def verdicts(seed: int, *, looks: int, share: float = 0.1, **challenger: float) -> list[str]:
    """The verdict after each look at 500 requests, up to the first that is "worse"."""
    random, state, found = np.random.default_rng([3, seed]), watching(OPTIONS), []
    for now in range(looks):
        ours, theirs = round(500 * (1 - share)), round(500 * share)
        evidence = {CHAMPION: counted(random, ours), CHALLENGER: counted(random, theirs, **challenger)}
        state = watched(state, Evidence(evidence, now, now + 1), NAMES)
        found.append(judged(harms(state, CHALLENGER, OPTIONS))[0])
        if found[-1] == "worse":
            break
    return found


def test_a_challenger_like_the_champion_is_seldom_called_worse_however_often_one_looks():
    assert sum("worse" in verdicts(seed, looks=100) for seed in range(60)) <= 3
    assert verdicts(1, looks=300)[-1] == "fine"


@pytest.mark.parametrize("harm", [{"errors": 0.1}, {"seconds": 0.06}, {"right": 0.65}])
def test_harm_is_found_and_never_called_fine_before(harm):
    for seed in range(10):
        found = verdicts(seed, looks=400, **harm)
        assert found[-1] == "worse" and "fine" not in found


def test_the_requests_that_say_what_is_slow_are_not_judged_by_it():
    random = np.random.default_rng(1)
    state = watched(watching(OPTIONS), Evidence({CHAMPION: counted(random, 100)}, 0, 1), NAMES)
    assert state["slow_bin"] is not None and figures_of(state, CHAMPION) == Figures()
    assert harms(watching(OPTIONS), CHALLENGER, OPTIONS) == []
    given = watching({**OPTIONS, "slow_seconds": 0.5})
    assert LATENCY_EDGES[given["slow_bin"] - 1] <= 0.5 < LATENCY_EDGES[given["slow_bin"]]


@pytest.mark.parametrize(
    "low, high, verdict",
    [(-0.1, 0.04, "fine"), (0.01, 0.04, "fine"), (0.01, 0.06, "worse"), (-0.01, 0.06, "unclear")],
)
def test_harm_that_is_certain_and_not_known_to_be_tolerable_is_worse(low, high, verdict):
    assert Harm("errors", low, high, tolerated=0.05).verdict == verdict


def test_a_quantile_is_the_upper_edge_of_its_bin():
    latencies = np.random.default_rng(2).lognormal(-4, 0.7, 5000)
    counts = np.bincount(np.searchsorted(LATENCY_EDGES, latencies, side="right"), minlength=62).tolist()
    for q in (0.5, 0.95, 0.99):
        exact, found = np.quantile(latencies, q), quantile(counts, q)
        assert exact <= found * 1.001 and found <= exact * 10**0.1 * 1.01
    assert quantile([0] * 62, 0.5) is None
