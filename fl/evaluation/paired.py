"""Two models on the same examples: is one worse than the other, or was it chance?

    McNemar   of the examples that one model got right and the other wrong, b are this model's and c the other's; if
              both are equally good, b is Binomial(b + c, 1/2). Exact, from the tail of that (McNemar 1947)
    bootstrap the interval of the mean difference of a number an example (loss, absolute error), see intervals.py; and
              the chance of a difference so large if there were none: with t = mean / (deviation / sqrt n), the share
              of resamples whose t about the mean that was found is as large (bootstrap-t, Hall & Wilson 1991). The
              share of resampled means below 0 would call a skewed difference of few examples worse too often

A paired test sees what two intervals side by side do not: what is hard for one is mostly hard for the other too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl.evaluation.intervals import Figure, Interval, intervals, resampled
from fl.parameters import Array


@dataclass(frozen=True)
class McNemar:
    """``won`` examples only this model gets right, ``lost`` only the other one.

    p is two-sided; ``p_worse`` is the chance of so many lost or more if this model were as good as the other.
    """

    won: int
    lost: int
    p: float
    p_worse: float


def mcnemar(right: Array, other_right: Array) -> McNemar:
    """The exact test, from whether each example was answered right (n,) by either model.

    >>> round(mcnemar(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 0])).p, 12)
    0.25
    """
    right, other_right = np.asarray(right, dtype=bool), np.asarray(other_right, dtype=bool)
    won, lost = int((right & ~other_right).sum()), int((~right & other_right).sum())
    fewer = min(won, lost)
    p = min(1.0, 2 * _tail(won + lost, fewer))
    return McNemar(won, lost, p, _tail(won + lost, won))


def difference(values: Array, other: Array, *, seed: int, resamples: int = 1000, confidence: float = 0.95) -> Interval:
    """The mean of ``values - other`` (n,), and its interval."""
    figure = Figure.mean(np.asarray(values, dtype=np.float64) - np.asarray(other, dtype=np.float64))
    return intervals({"": figure}, seed=seed, resamples=resamples, confidence=confidence)[""]


def bootstrap_p_worse(worse_by: Array, *, seed: int, resamples: int = 1000) -> float:
    """The chance that a model as good as the other would be worse by so much on average, or more; never exactly 0.

    ``worse_by`` (n,) is how much worse each example came out.
    """
    worse_by = np.asarray(worse_by, dtype=np.float64)
    n, mean, deviation = len(worse_by), float(worse_by.mean()), float(worse_by.std())
    if deviation <= 1e-12 * abs(mean):  # no example differs from another: there is nothing to resample
        return 1.0 if mean <= 0 else 1 / (resamples + 1)
    found, apart, as_large = mean / deviation, worse_by - mean, 0
    for weights in resampled(n, resamples, seed=seed):
        means, squares = weights @ apart / n, weights @ apart**2 / n
        deviations = np.sqrt(np.maximum(squares - means**2, (1e-12 * deviation) ** 2))
        as_large += int(np.sum(means / deviations >= found))
    return (as_large + 1) / (resamples + 1)


def _tail(trials: int, most: int) -> float:
    """The chance of at most ``most`` heads in ``trials`` throws of a fair coin."""
    if most >= trials:
        return 1.0
    k = np.arange(most + 1)
    ways = [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k]
    return float(min(1.0, np.exp(np.array(ways) - trials * math.log(2)).sum()))
