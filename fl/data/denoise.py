"""Noise taken out of a training part, by its own client: rows that are labelled wrongly, or specks in images.

neighbours   Wilson's editing: a row that its three nearest neighbours would classify otherwise is not trained on
             (D. L. Wilson, "Asymptotic Properties of Nearest Neighbor Rules Using Edited Data", 1972)
median       a pixel becomes the median of the 3 x 3 around it (T. S. Huang et al., "A Fast Two-Dimensional Median
             Filtering Algorithm", 1979)
"""

from __future__ import annotations

import numpy as np

from fl.data.noise import mean_and_spread
from fl.parameters import Array

DENOISERS = ("neighbours", "median")

NEIGHBOURS = 3

IMAGES_AT_ONCE = 256


def edited(x: Array, y: Array) -> Array:
    """The numbers of the rows (n, ...) that Wilson's editing keeps, ascending.

    Distances are Euclidean, with each column in units of its own deviation among the rows, and a missing value at the
    mean. Of rows equally near the first counts; a class that is as frequent among the neighbours as any keeps the row.
    Costs n^2 distances.
    """
    if len(x) <= NEIGHBOURS:
        return np.arange(len(x))
    flat = x.reshape(len(x), -1).astype(np.float64)
    mean, spread = mean_and_spread(flat)
    flat = np.where(np.isfinite(flat), (flat - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    kept = np.ones(len(x), bool)
    for i, row in enumerate(flat):
        # No BLAS: the same bits whatever threads there are.
        distance = np.square(flat - row).sum(axis=1)
        distance[i] = np.inf
        votes = y[np.argsort(distance, kind="stable")[:NEIGHBOURS]]
        _, counts = np.unique(votes, return_counts=True)
        kept[i] = (votes == y[i]).sum() >= counts.max()
    return np.flatnonzero(kept)


def median_filtered(x: Array) -> Array:
    """Images (n, channels, h, w), each pixel the median of the nine around it; beyond an edge it repeats."""
    height, width = x.shape[-2:]
    out = np.empty_like(x)
    for first in range(0, len(x), IMAGES_AT_ONCE):
        some = np.pad(x[first : first + IMAGES_AT_ONCE], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        around = [some[..., r : r + height, c : c + width] for r in range(3) for c in range(3)]
        out[first : first + IMAGES_AT_ONCE] = np.partition(np.stack(around), 4, axis=0)[4]
    return out
