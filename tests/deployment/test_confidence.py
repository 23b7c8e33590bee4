"""Inference that stays valid however often one looks: against scipy, and by simulation."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from fl.deployment.confidence import Difference, Sample, boundary, bounds, planned_information


@pytest.mark.parametrize("count, total", [(1, 1.0), (10, 0.0), (40, 13.0), (500, 3.5), (2000, 1990.0)])
def test_bounds_are_where_the_mixture_reaches_its_level(count, total):
    """The mixture by numerical integration over the prior, not by its closed form; the root by scipy."""
    alpha = 0.05
    peak = total / count
    top = (total * math.log(peak) if total else 0) + ((count - total) * math.log(1 - peak) if total < count else 0)

    def log_likelihood(q):
        return special.xlogy(total, q) + special.xlog1py(count - total, -q) - top

    # q = sin(t)^2 takes the prior's poles away: its density becomes 2/pi over [0, pi/2]
    mixed, _ = integrate.quad(
        lambda t: np.exp(log_likelihood(np.sin(t) ** 2)) * 2 / np.pi,
        0,
        np.pi / 2,
        points=[math.asin(math.sqrt(peak))],
        limit=500,
    )
    low, high = bounds(count, total, alpha=alpha)
    for bound, side in ((low, 1e-12), (high, 1 - 1e-12)):
        if 0 < bound < 1:
            inside = min(max(peak, 1e-12), 1 - 1e-12)
            other = optimize.brentq(
                lambda p: math.log(mixed) - log_likelihood(p) - math.log(1 / alpha), side, inside, xtol=1e-14
            )
            assert bound == pytest.approx(other, rel=1e-6, abs=1e-9)
    assert (low == 0) == (total == 0) and (high == 1) == (total == count)


def missed(draw, mean: float, *, alpha: float, runs: int = 400, most: int = 400) -> float:
    """How often the bounds, looked at after each observation, ever leave the mean out."""
    count = 0
    for _ in range(runs):
        total = 0.0
        for n, x in enumerate(draw(most), start=1):
            total += x
            # The set in which the mean has to be, without looking for its ends: what ``bounds`` inverts.
            low_likelihood = total * math.log(mean) + (n - total) * math.log1p(-mean)
            mixture = math.lgamma(0.5 + total) + math.lgamma(0.5 + n - total) - math.lgamma(1 + n) - math.log(math.pi)
            if mixture - low_likelihood >= math.log(1 / alpha):
                low, high = bounds(n, total, alpha=alpha)
                assert not low + 1e-9 < mean < high - 1e-9
                count += 1
                break
    return count / runs


@pytest.mark.parametrize(
    "mean, draw",
    [
        (0.02, lambda random, n: random.random(n) < 0.02),
        (0.5, lambda random, n: random.random(n) < 0.5),
        (0.25, lambda random, n: random.beta(0.5, 1.5, n)),  # not Bernoulli: in [0, 1] is enough
    ],
)
def test_bounds_hold_at_all_times_at_once(mean, draw):
    random = np.random.default_rng(2)
    assert missed(lambda n: map(float, draw(random, n)), mean, alpha=0.05) <= 0.05


def test_the_ratio_is_the_mixture_of_normal_likelihoods():
    first, second = Sample(400, 200.0, 200.0), Sample(300, 171.0, 171.0)
    found = Difference(first, second, tau=0.05)
    deviation = 1 / math.sqrt(found.information)
    wanted, _ = integrate.quad(
        lambda d: stats.norm.pdf(found.value, d, deviation) * stats.norm.pdf(d, 0, 0.05), -1, 1, points=[found.value]
    )
    assert math.exp(found.log_ratio()) == pytest.approx(wanted / stats.norm.pdf(found.value, 0, deviation), rel=1e-7)
    spread = stats.tstd(np.repeat([0, 1], [200, 200])) ** 2 / 400 + stats.tstd(np.repeat([0, 1], [129, 171])) ** 2 / 300
    assert found.information == pytest.approx(1 / spread)


def test_the_interval_is_what_the_test_does_not_reject():
    first, second = Sample(500, 250.0, 250.0), Sample(500, 300.0, 300.0)
    found = Difference(first, second, tau=0.05)
    for alpha in (math.exp(-found.log_ratio()) * (1 + 1e-9), math.exp(-found.log_ratio()) * (1 - 1e-9)):
        low, _ = found.interval(alpha)
        assert (low > 0) == (found.log_ratio() >= -math.log(alpha))


def test_equal_observations_are_no_certainty():
    found = Difference(Sample(50, 50.0, 50.0), Sample(50, 50.0, 50.0), tau=0.05)
    low, high = found.interval(0.05)
    assert low < -0.01 and high > 0.01


@pytest.mark.parametrize("effect, alpha, power", [(0.05, 0.05, 0.9), (0.02, 0.01, 0.8), (0.1, 0.025, 0.95)])
def test_the_plan_has_its_power_at_its_end(effect, alpha, power):
    information = planned_information(effect, alpha=alpha, power=power)
    assert information == pytest.approx(planned_information(1.0, alpha=alpha, power=power) / effect**2)
    at_end = stats.norm.sf(boundary(information * effect**2, alpha) - effect * math.sqrt(information))
    assert at_end == pytest.approx(power + alpha / 2, abs=1e-6)


def test_a_brownian_motion_crosses_the_boundary_as_seldom_as_promised():
    """4,000 paths without drift, looked at 1,000 times on a grid of information that spans five decades."""
    random = np.random.default_rng(7)
    information = np.geomspace(1, 1e5, 1000)
    steps = np.sqrt(np.diff(information, prepend=0)) * random.standard_normal((4000, 1000))
    crossed = np.abs(np.cumsum(steps, axis=1)) / np.sqrt(information) >= [
        boundary(0.05**2 * i, 0.05) for i in information
    ]
    rate = crossed.any(axis=1).mean()
    assert 0.005 < rate <= 0.05
