"""Calibration: does what a model is sure of come true as often as it says?

    reliability   in each bin of [0, 1]: how many, how sure on average, how often it was so
    ECE           sum over bins of (share of examples) * |how sure - how often|        (Naeini et al. 2015)
    Brier         mean of sum_c (p_c - [y = c])^2, 0 to 2                              (Brier 1950)

What is asked of several classes is the one that the model answers: its confidence, and whether it was right. Of two
classes it is also the probability of the second. Bins have equal width; a value on an edge belongs to the lower one, as
in scikit-learn's calibration_curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl.evaluation.intervals import Figure
from fl.parameters import Array

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """By bin, from 0 to 1; ``sure`` and ``came_true`` are NaN where nothing fell into it."""

    counts: Array
    sure: Array
    came_true: Array

    @property
    def error(self) -> float:
        """The expected calibration error."""
        filled = self.counts > 0
        apart = np.abs(self.sure[filled] - self.came_true[filled])
        return float(np.sum(self.counts[filled] * apart) / np.sum(self.counts))


def bin_of(probability: Array, bins: int = BINS) -> Array:
    """The bin, 0 to ``bins`` - 1, of each probability."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)


def reliability(probability: Array, happened: Array, bins: int = BINS) -> Reliability:
    """``probability`` (n,) that was told for what then ``happened`` (n,), 0 or 1."""
    places = bin_of(probability, bins)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        sure, came_true = (np.bincount(places, values, minlength=bins) / counts for values in (probability, happened))
    return Reliability(counts, sure, came_true)


def calibration_error(confidence: Array, right: Array, bins: int = BINS) -> Figure:
    """ECE as a figure with an interval: in each bin the mean of (how sure - how it was) over all examples."""
    apart = np.zeros((len(confidence), bins))
    apart[np.arange(len(confidence)), bin_of(confidence, bins)] = confidence - right
    return Figure(apart, lambda means: np.abs(means).sum(axis=-1))


def brier(probabilities: Array, y: Array) -> Array:
    """The Brier score of each example, (n,), from probabilities (n, classes)."""
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(y)), y] = 1
    return np.asarray(np.square(probabilities - truth).sum(axis=-1))
