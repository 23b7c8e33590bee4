"""Bootstrap intervals: against numbers by hand and by SciPy, and how often they cover, in simulations."""

import numpy as np
import pytest

from fl.errors import BadInput
from fl.evaluation.intervals import Figure, intervals, resampled
from fl.evaluation.paired import bootstrap_p_worse, difference, mcnemar

RNG = np.random.default_rng


def test_a_resample_draws_as_many_as_there_are():
    weights = np.concatenate(list(resampled(7, 50, seed=1)))
    assert weights.shape == (50, 7) and (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.5)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_interval_is_scipy_s(method):
    bootstrap = pytest.importorskip("scipy.stats").bootstrap
    values = RNG(3).exponential(size=60)
    root = Figure(np.square(values)[:, None], lambda means: np.sqrt(means[..., 0]))
    mine = intervals({"rmse": root}, seed=1, resamples=9000, method=method)["rmse"]
    theirs = bootstrap(
        (values,), lambda v, axis: np.sqrt(np.mean(np.square(v), axis=axis)),
        n_resamples=9000, method="BCa" if method == "bca" else method, rng=RNG(0),
    ).confidence_interval  # fmt: skip
    assert mine.value == pytest.approx(np.sqrt(np.mean(values**2)))
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_every_figure_gets_its_own_interval_whatever_stands_beside_it():
    rows = RNG(1).normal(size=(40, 2))
    alone = intervals({"b": Figure.mean(rows[:, 1])}, seed=5)["b"]
    both = intervals({"a": Figure.mean(rows[:, 0]), "b": Figure.mean(rows[:, 1])}, seed=5)
    assert both["b"] == alone and both["a"].value == pytest.approx(rows[:, 0].mean())
    assert alone.low < alone.value < alone.high


def test_what_cannot_be_resampled_has_no_width_or_no_interval():
    same = intervals({"": Figure.mean(np.ones(9))}, seed=1)[""]
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
    nothing = intervals({"": Figure(np.ones((9, 1)), lambda means: means[..., 0] * np.nan)}, seed=1)[""]
    assert np.isnan([nothing.low, nothing.high]).all()


@pytest.mark.parametrize(
    "given, words",
    [({"confidence": 95}, "a share above 0"), ({"method": "t"}, "bca or percentile")],
)
def test_what_cannot_be_asked_is_refused(given, words):
    with pytest.raises(BadInput, match=words):
        intervals({"": Figure.mean(np.arange(5.0))}, seed=1, **given)
    with pytest.raises(BadInput, match="at least 2"):
        intervals({"": Figure.mean(np.ones(1))}, seed=1)


TRIALS = 1500


def right(random):
    return Figure.mean((random.random(400) < 0.8).astype(float))


def absolute(random):
    return Figure.mean(np.abs(random.normal(size=200)))


def root(random):
    return Figure(np.square(random.normal(size=200))[:, None], lambda means: np.sqrt(means[..., 0]))


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    "draw, truth", [(right, 0.8), (absolute, np.sqrt(2 / np.pi)), (root, 1.0)], ids=["accuracy", "mae", "rmse"]
)
def test_intervals_cover_at_the_stated_rate(draw, truth, confidence):
    """Three standard errors of the trials, and the one percent that a bootstrap of so few examples may lack."""
    random, hits = RNG(1), 0
    for number in range(TRIALS):
        one = intervals({"": draw(random)}, seed=number, confidence=confidence, resamples=500)[""]
        hits += one.low <= truth <= one.high
    tolerance = 3 * np.sqrt(confidence * (1 - confidence) / TRIALS) + 0.01
    assert hits / TRIALS == pytest.approx(confidence, abs=tolerance)


@pytest.mark.slow
def test_the_interval_of_a_paired_difference_covers_at_the_stated_rate():
    random, hits = RNG(2), 0
    for number in range(TRIALS):
        hard, noise = random.normal(size=100), random.normal(size=(2, 100))
        one = difference(hard + noise[0] + 0.1, hard + noise[1], seed=number, resamples=500)
        hits += one.low <= 0.1 <= one.high
    assert hits / TRIALS == pytest.approx(0.95, abs=0.027)


# Two models on the same examples


def test_mcnemar_is_the_exact_binomial_test():
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for won, lost in ((0, 0), (3, 0), (9, 2), (40, 61), (500, 420)):
        mine = np.array([1] * won + [0] * lost + [1] * 5)
        other = np.array([0] * won + [1] * lost + [1] * 5)
        found = mcnemar(mine, other)
        assert (found.won, found.lost) == (won, lost)
        if won + lost:
            assert found.p == pytest.approx(binomtest(won, won + lost).pvalue)
            assert found.p_worse == pytest.approx(binomtest(won, won + lost, alternative="less").pvalue)
        else:
            assert found.p == found.p_worse == 1.0


def rejected(times: int, worse_by: float) -> float:
    """How often a model that is right less often by ``worse_by`` is called worse, at 5 %."""
    random, called = RNG(3), 0
    for _ in range(times):
        hard = random.random(300)
        mine, other = random.random((2, 300)) < 0.9 - 0.4 * hard - [[worse_by], [0]]
        called += mcnemar(mine, other).p_worse < 0.05
    return called / times


def test_the_paired_test_s_false_positive_rate_is_right():
    """An exact test of whole numbers stays below its level, not far below; 4 standard errors of 1500 trials."""
    rate = rejected(1500, worse_by=0.0)
    assert 0.02 < rate < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1500)
    assert rejected(200, worse_by=0.15) > 0.9  # and it sees what is there


def symmetric(random, n):
    return random.normal(size=n)


def few_much_worse(random, n):
    return random.exponential(size=n) - 1


def few_much_better(random, n):
    return 1 - random.exponential(size=n)


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("draw", [symmetric, few_much_worse, few_much_better])
def test_the_bootstrap_s_false_positive_rate_is_right(draw, n):
    """At 5 %, with 3 standard errors of 1500 trials and what few and skewed examples still cost."""
    random, called, seen = RNG(4), 0, 0
    for number in range(1500):
        worse_by = draw(random, n)
        called += bootstrap_p_worse(worse_by, seed=number, resamples=400) < 0.05
        if number < 100:
            seen += bootstrap_p_worse(worse_by + 1.0, seed=number, resamples=400) < 0.05
    assert called / 1500 == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 1500) + 0.6 / n)
    assert seen > 90  # and it sees what is there


def test_the_bootstrap_of_what_does_not_vary_and_of_what_is_plain():
    assert bootstrap_p_worse(np.zeros(9), seed=1) == bootstrap_p_worse(-np.ones(9), seed=1) == 1.0
    assert bootstrap_p_worse(np.ones(9), seed=1) == pytest.approx(1 / 1001)
    values = RNG(1).normal(size=100)
    assert bootstrap_p_worse(values + 1, seed=1) < 0.01 and bootstrap_p_worse(values - 1, seed=1) > 0.99
    # Near the t-test where examples are many and their differences symmetric.
    ttest = pytest.importorskip("scipy.stats").ttest_1samp(values + 0.1, 0.0, alternative="greater").pvalue
    assert bootstrap_p_worse(values + 0.1, seed=1, resamples=8000) == pytest.approx(ttest, abs=0.02)
