"""How far noise on counts may reach, at a stated probability: what is said beside every private number.

Each client adds two-sided geometric noise to each count, P(k) proportional to a^|k| with a = exp(-epsilon): the
discrete form of Laplace noise (A. Ghosh et al., "Universally Utility-Maximizing Privacy Mechanisms", 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl.parameters import Array

PROBABILITY = 0.95


@dataclass(frozen=True)
class NoisyMoments:
    """Mean and deviation read off noisy counts, and how far each may be from that of the values themselves."""

    mean: float
    mean_error: float
    deviation: float
    deviation_error: float


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

    def moments(self, edges: Sequence[float], failure: float = 1 - PROBABILITY) -> NoisyMoments:
        """Mean and deviation, each within its error but for a chance of ``failure`` for both together.

        With ``edges`` (bins + 1,) of equally wide bins with middles c, noisy counts n and their sum N, for v = c - the
        centre and for v = c^2 about it:

            sum(n v) / N - exact = sum(noise (v - exact)) / N

        Of that, sum(noise (v - centre of v)) and sum(noise) have a bound each, which gives the error once N is larger
        than the latter. A value is within half a bin of its middle, and so are mean and deviation of all: that is
        added. The values are meant as they are counted, those beyond the ends being at them.
        """
        n, c = np.array(self.counts), (np.array(edges[:-1]) + np.array(edges[1:])) / 2
        width, centre, reach = edges[1] - edges[0], (c[0] + c[-1]) / 2, (c[-1] - c[0]) / 2
        total, total_error = float(n.sum()), self._error(np.ones(len(n)), failure / 3)
        if total <= total_error:
            nothing_known = reach + width / 2
            return NoisyMoments(float(centre), nothing_known, float(reach / 2), nothing_known / 2 + width / 2)

        def share(v: Array) -> tuple[float, float]:
            """sum(n v) / N, and its error."""
            middle, found = (v.min() + v.max()) / 2, float((n * v).sum()) / total
            error = self._error(v - middle, failure / 3) + abs(found - middle) * total_error
            return found, error / (total - total_error)

        off, off_error = share(c - centre)
        square, square_error = share((c - centre) ** 2)
        error = square_error + off_error * (2 * abs(off) + off_error)
        variance = square - off**2
        low, high = (min(max(0.0, bound), reach**2) for bound in (variance - error, variance + error))
        deviation = math.sqrt(min(max(low, variance), high))
        return NoisyMoments(
            mean=float(centre + min(max(-reach, off), reach)),
            mean_error=min(off_error, 2 * reach) + width / 2,
            deviation=deviation,
            deviation_error=max(deviation - math.sqrt(low), math.sqrt(high) - deviation) + width / 2,
        )

    def _error(self, weights: Array, failure: float) -> float:
        return weighted_bound(weights, self.num_clients, self.epsilon, failure)


def noise_bound(terms: int, epsilon: float, failure: float) -> float:
    """t with P(|sum of ``terms`` noises| > t) <= ``failure``.

    >>> round(noise_bound(1, 1.0, 0.05), 2) >= 3
    True
    """
    return weighted_bound(np.ones(1), terms, epsilon, failure)


def weighted_bound(weights: Array, terms: int, epsilon: float, failure: float) -> float:
    """t with P(|sum of w noise| > t) <= ``failure``, each of the ``weights`` (k,) having ``terms`` noises: the Chernoff
    bound, at the best of many exponents s.

        P(S >= t) <= exp(-s t) prod over w of M(s w)^terms
        M(s) = (1 - a)^2 / ((1 - a e^s) (1 - a e^-s)),  0 < s < epsilon
    """
    largest = float(np.abs(weights).max())
    if not largest:
        return 0.0
    s = epsilon * np.linspace(0.001, 0.999, 999)
    a, x = math.exp(-epsilon), np.outer(s, np.abs(weights) / largest)
    log_moment = 2 * math.log1p(-a) - np.log1p(-np.exp(x - epsilon)) - np.log1p(-np.exp(-x - epsilon))
    return largest * float(((terms * log_moment.sum(axis=1) + math.log(2 / failure)) / s).min())
