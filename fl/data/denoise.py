"""Noise taken out of a training part, by its own client: rows with a wrong label or target, or specks in images.

neighbours   of classes, Wilson's editing: a row that its three nearest neighbours would classify otherwise is not
             trained on (D. L. Wilson, "Asymptotic Properties of Nearest Neighbor Rules Using Edited Data", 1972)
             of numbers, the same idea as M. Kordos and M. Blachnik have it in "Instance Selection with Neural Networks
             for Regression Problems" (2012): a row whose target is far from what its neighbours say. How far is too far
             is Hampel's: more than three deviations, as the median of all distances tells them (F. R. Hampel, "The
             Influence Curve and Its Role in Robust Estimation", 1974), so that what is wrong does not set the measure
median       a pixel becomes the median of the 3 x 3 around it (T. S. Huang et al., "A Fast Two-Dimensional Median
             Filtering Algorithm", 1979)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fl.data.noise import mean_and_spread
from fl.parameters import Array

DENOISERS = ("neighbours", "median")

NEIGHBOURS = 3
NEIGHBOURS_OF_A_NUMBER = 5
MOST_DEVIATIONS = 3.0

IMAGES_AT_ONCE = 256

# What the deviation of normal values is, of the median or the mean of their distances from the centre.
_OF_MEDIAN, _OF_MEAN = 1.4826, 1.2533


def edited(x: Array, y: Array) -> Array:
    """The numbers of the rows (n, ...) of classes ``y`` that Wilson's editing keeps, ascending; see ``_nearest``.

    A class that is as frequent among the neighbours as any keeps the row.
    """
    if len(x) <= NEIGHBOURS:
        return np.arange(len(x))
    kept = np.ones(len(x), bool)
    for i, nearest in enumerate(_nearest(x, NEIGHBOURS)):
        votes = y[nearest]
        _, counts = np.unique(votes, return_counts=True)
        kept[i] = (votes == y[i]).sum() >= counts.max()
    return np.flatnonzero(kept)


def edited_numbers(x: Array, y: Array) -> Array:
    """The same of rows with numbers ``y`` (n,): those whose distance from the median of their neighbours' is usual.

    Fewer than twice as many rows as a row has neighbours say nothing, and are all kept.
    """
    if len(x) < 2 * NEIGHBOURS_OF_A_NUMBER:
        return np.arange(len(x))
    told = np.array([np.median(y[nearest]) for nearest in _nearest(x, NEIGHBOURS_OF_A_NUMBER)])
    off = y.astype(np.float64) - told
    distance = np.abs(off - np.median(off))
    usual = _OF_MEDIAN * np.median(distance) or _OF_MEAN * distance.mean()
    return np.flatnonzero(distance <= MOST_DEVIATIONS * usual)


def _nearest(x: Array, number: int) -> Iterator[Array]:
    """For each row of ``x`` (n, ...) the numbers of its nearest others, the nearest first.

    Distances are Euclidean, with each column in units of its own deviation among the rows, and a missing value at the
    mean. Of rows equally near the first counts. Costs n^2 distances.
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    mean, spread = mean_and_spread(flat)
    flat = np.where(np.isfinite(flat), (flat - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    for i, row in enumerate(flat):
        # No BLAS: the same bits whatever threads there are.
        distance = np.square(flat - row).sum(axis=1)
        distance[i] = np.inf
        yield np.argsort(distance, kind="stable")[:number]


def median_filtered(x: Array) -> Array:
    """Images (n, channels, h, w), each pixel the median of the nine around it; beyond an edge it repeats."""
    height, width = x.shape[-2:]
    out = np.empty_like(x)
    for first in range(0, len(x), IMAGES_AT_ONCE):
        some = np.pad(x[first : first + IMAGES_AT_ONCE], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        around = [some[..., r : r + height, c : c + width] for r in range(3) for c in range(3)]
        out[first : first + IMAGES_AT_ONCE] = np.partition(np.stack(around), 4, axis=0)[4]
    return out
