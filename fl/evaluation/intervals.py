"""Bootstrap intervals: how far a figure would move if other examples had been held back.

A figure is a function of means: accuracy is a mean, rmse the root of one, F1 and the calibration error are made of
several. So a resample is a row of weights w (how often each example was drawn, sum n), its figure is
``of(w @ rows / n)``, and the figure without example i, which BCa needs, is ``of((sum - rows[i]) / (n - 1))``.

percentile   the quantiles alpha/2 and 1 - alpha/2 of the resampled figures
bca          the same at levels that are corrected for bias z0 and skewness a (Efron 1987):
                 Phi(z0 + (z0 + z) / (1 - a (z0 + z))),   z = Phi^-1(alpha/2), Phi^-1(1 - alpha/2)
                 z0 = Phi^-1(share of resampled figures below the figure, those equal to it by half)
                 a  = sum (m - t_i)^3 / (6 (sum (m - t_i)^2)^1.5),   t_i without example i, m their mean

Examples are taken to be independent of each other: those of one hospital or writer are not quite. Where all examples
say the same, a resample does too, and the interval has no width: that is no certainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

METHODS = ("bca", "percentile")
CHUNK_VALUES = 2**22
"""Weights in memory at a time."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Figure:
    """``of`` makes a figure of the means of ``rows`` (n, k), over the last axis; NaN where it cannot be had."""

    rows: Array
    of: Callable[[Array], Array]

    @classmethod
    def mean(cls, values: Array) -> Figure:
        """The mean of a number an example, (n,)."""
        return cls(np.asarray(values, dtype=np.float64)[:, None], lambda means: means[..., 0])

    @property
    def value(self) -> float:
        """The figure over all examples."""
        return float(self.of(self.rows.mean(axis=0)))


@dataclass(frozen=True)
class Interval:
    """A figure, and between what it lies at the stated confidence."""

    value: float
    low: float
    high: float


def intervals(
    figures: Mapping[str, Figure],
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
    method: str = "bca",
) -> dict[str, Interval]:
    """The interval of every figure over the same examples, all from the same resamples, by name.

    ``seed`` makes the resamples. Costs resamples * n draws and a matrix product. Raises BadInput for fewer than 2
    examples, a confidence outside (0, 1) or a method that is not there.
    """
    if not figures:
        return {}
    if method not in METHODS:
        raise BadInput(key="method", got=method, allowed=" or ".join(METHODS))
    if not 0 < confidence < 1:
        raise BadInput(key="confidence", got=confidence, allowed="a share above 0 and below 1")
    n = min(len(figure.rows) for figure in figures.values())
    if n < 2:
        raise BadInput(key="examples", got=n, allowed="at least 2: an interval comes from how they differ")
    together = np.concatenate([figure.rows for figure in figures.values()], axis=1).astype(np.float64)
    means = np.concatenate([weights @ together / n for weights in resampled(n, resamples, seed=seed)])
    left_out = (together.sum(axis=0) - together) / (n - 1)
    found, start = {}, 0
    for name, figure in figures.items():
        columns = slice(start, start := start + figure.rows.shape[1])
        again = figure.of(means[:, columns])
        without = figure.of(left_out[:, columns]) if method == "bca" else None
        found[name] = _between(figure.value, again, without, confidence)
    return found


def resampled(n: int, resamples: int, *, seed: int, purpose: str = "evaluation/bootstrap") -> Iterator[Array]:
    """How often each of ``n`` examples is drawn, a row a resample, some rows at a time; every row adds up to n."""
    draw = generator(seed, purpose=purpose)
    step = max(1, CHUNK_VALUES // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = draw.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _between(value: float, again: Array, without: Array | None, confidence: float) -> Interval:
    again = again[np.isfinite(again)]
    if not len(again) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if without is not None and np.ptp(again) > 0:
        levels = _corrected(levels, value, again, without[np.isfinite(without)])
    low, high = np.quantile(again, levels)
    return Interval(value, float(low), float(high))


def _corrected(levels: Array, value: float, again: Array, without: Array) -> Array:
    """The levels of BCa."""
    below = (np.mean(again < value) + np.mean(again <= value)) / 2
    z0 = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(again), 1 - 0.5 / len(again))))
    apart = without.mean() - without
    square = float(np.sum(apart**2))
    a = float(np.sum(apart**3)) / (6 * square**1.5) if square > 0 else 0.0
    z = z0 + np.array([_NORMAL.inv_cdf(float(level)) for level in levels])
    return np.array([_NORMAL.cdf(z0 + one / (1 - a * one)) for one in z])
