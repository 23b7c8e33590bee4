"""Inference that stays valid however often one looks, and whenever one stops.

Bounds of one mean, for observations in [0, 1] (``bounds``): they hold at every sample size. With s the sum of n
observations and q mixed over Beta(a, b),
    M_n(p) = B(a + s, b + n - s) / (B(a, b) p^s (1 - p)^(n - s))
is a martingale of mean 1 where the observations are Bernoulli(p), and at most one where they lie in [0, 1] with the
conditional mean p, since log(x u + (1 - x) v) >= x log u + (1 - x) log v. By Ville's inequality M_n(p) reaches 1/alpha
for any n with probability alpha at most, so that {p: M_n(p) < 1/alpha} covers the mean at all n at once with 1 - alpha.
    Robbins, Statistical methods related to the law of the iterated logarithm, 1970;
    Howard, Ramdas, McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, 2021

Difference of two means (``Difference``): the mixture sequential probability ratio test. With D the difference of the
means, V = s1^2 / n1 + s2^2 / n2 its variance, I = 1 / V the information and delta mixed over Normal(0, tau^2),
    Lambda = (1 + tau^2 I)^(-1/2) exp(tau^2 (D I)^2 / (2 (1 + tau^2 I)))
exceeds 1/alpha at any time with probability alpha at most where there is no difference. This is asymptotic: D I is
taken for a Brownian motion in the time I, with the variances that were observed, hence only from some observations on.
Observations are independent, one a user.
    Johari, Koomen, Pekelis, Walsh, Always valid inference: continuous monitoring of A/B tests, 2022;
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Time-uniform central limit theory and asymptotic confidence sequences,
    2024, whose sequence is ``Difference.interval``
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

BETA = 0.5
"""a = b of the mixture: Jeffreys' prior, narrow also where the mean is near 0 or 1, as that of errors is."""


def log_beta(a: float, b: float) -> float:
    """log B(a, b)."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def bounds(count: int, total: float, *, alpha: float) -> tuple[float, float]:
    """Between what the mean of ``count`` observations in [0, 1] of sum ``total`` lies, with 1 - ``alpha``, at any time.

    >>> low, high = bounds(1000, 20, alpha=0.05)
    >>> round(low, 4), round(high, 4)
    (0.0078, 0.0406)
    """
    if count == 0:
        return 0.0, 1.0
    ones = min(max(total, 0.0), float(count))
    zeros = count - ones
    level = log_beta(BETA + ones, BETA + zeros) - log_beta(BETA, BETA) + math.log(alpha)
    return _low(ones, zeros, level), 1 - _low(zeros, ones, level)


def _low(ones: float, zeros: float, level: float) -> float:
    """The p below the mean at which ones log p + zeros log(1 - p) = ``level``, by Newton's method.

    The likelihood is concave in p and the start lies outside, so that every step stays outside: the bound is never too
    tight, wherever the steps end.
    """
    if not ones:
        return 0.0
    p = math.exp(level / ones)
    for _ in range(100):
        missing = level - ones * math.log(p) - zeros * math.log1p(-p)
        step = missing / (ones / p - zeros / (1 - p))
        if step <= 1e-13 * p:
            break
        p += step
    return p


@dataclass(frozen=True)
class Sample:
    """Observations of one mean: how many, their sum, the sum of their squares."""

    count: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """The unbiased estimate; at least 1/n, so that n equal observations do not pass for certainty."""
        n = self.count
        return max((self.squares - n * self.mean**2) / (n - 1), 1 / n) if n > 1 else 1.0


@dataclass(frozen=True)
class Difference:
    """How much ``second``'s mean exceeds ``first``'s; ``tau`` is the size of effect that the test looks for most."""

    first: Sample
    second: Sample
    tau: float

    @property
    def value(self) -> float:
        """The difference of the means."""
        return self.second.mean - self.first.mean

    @property
    def information(self) -> float:
        """1 / variance of the difference."""
        if not self.first.count or not self.second.count:
            return 0.0
        return 1 / (self.first.variance / self.first.count + self.second.variance / self.second.count)

    def log_ratio(self) -> float:
        """log Lambda: evidence against "no difference"; at least log(1/alpha) rejects it."""
        mixed = self.tau**2 * self.information
        return -0.5 * math.log1p(mixed) + mixed * self.information * self.value**2 / (2 * (1 + mixed))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Between what the true difference lies, with 1 - ``alpha``, at any time."""
        if not self.information:
            return -1.0, 1.0
        mixed = self.tau**2 * self.information
        radius = boundary(mixed, alpha) / math.sqrt(self.information)
        return self.value - radius, self.value + radius


def boundary(mixed: float, alpha: float) -> float:
    """How many standard errors a difference has to have to be one, at tau^2 I = ``mixed``."""
    return math.sqrt((1 + 1 / mixed) * math.log((1 + mixed) / alpha**2))


def planned_information(effect: float, *, alpha: float, power: float) -> float:
    """The information at which ``effect`` is found with ``power``, tau being ``effect``.

    Counted as if one looked at the end only, and with alpha/2 to spare for an interval that wrongly excludes the
    effect: by looking on the way, power is higher. Raises ValueError unless power + alpha/2 < 1.
    """
    spare = NormalDist().inv_cdf(power + alpha / 2)
    low, high = 1e-3, 1.0
    while math.sqrt(high) - boundary(high, alpha) < spare:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if math.sqrt(middle) - boundary(middle, alpha) >= spare else (middle, high)
    return high / effect**2
