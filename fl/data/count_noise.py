"""How far noise on counts may reach, at a stated probability: what is said beside every private number.

Each client adds two-sided geometric noise to each count, P(k) proportional to a^|k| with a = exp(-epsilon): the
discrete form of Laplace noise (A. Ghosh et al., "Universally Utility-Maximizing Privacy Mechanisms", 2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PROBABILITY = 0.95


@dataclass(frozen=True)
class NoisyCounts:
    """Of one column: ``counts`` between edges, each a sum over ``num_clients``, which spent ``epsilon`` on it."""

    counts: tuple[float, ...]
    num_clients: int
    epsilon: float

    def count_error(self, failure: float = 1 - PROBABILITY) -> float:
        """But for a chance of ``failure``, every count is within this of the exact one."""
        return noise_bound(self.num_clients, self.epsilon, failure / len(self.counts))

    def rank_error(self, failure: float = 1 - PROBABILITY) -> float:
        """The same of how many values lie below an edge, for every edge, the last one's total included."""
        terms = self.num_clients * len(self.counts)
        return noise_bound(terms, self.epsilon, failure / len(self.counts))


def noise_bound(terms: int, epsilon: float, failure: float) -> float:
    """t with P(|sum of ``terms`` noises| > t) <= ``failure``: the Chernoff bound, at the best of many exponents s.

        P(S >= t) <= exp(-s t) M(s)^terms     M(s) = (1 - a)^2 / ((1 - a e^s) (1 - a e^-s)),  0 < s < epsilon

    >>> round(noise_bound(1, 1.0, 0.05), 2) >= 3
    True
    """
    s = epsilon * np.linspace(0.001, 0.999, 999)
    a = math.exp(-epsilon)
    log_moment = 2 * math.log1p(-a) - np.log1p(-np.exp(s - epsilon)) - np.log1p(-np.exp(-s - epsilon))
    return float(((terms * log_moment + math.log(2 / failure)) / s).min())
