"""Gaussian noise on examples, in units that suit them."""

from __future__ import annotations

import numpy as np

from fl.parameters import Array


def add_noise(x: Array, deviation: float, draw: np.random.Generator) -> Array:
    """``x`` (n, ...) plus noise, in the dtype of ``x``; missing values stay missing.

    ``deviation`` is in units of the full range for uint8 images, else of each column's own deviation in ``x``.
    """
    drawn = draw.standard_normal(x.shape)
    if x.dtype == np.uint8:
        return np.asarray(np.clip(np.rint(x + 255 * deviation * drawn), 0, 255).astype(np.uint8))
    _, spread = mean_and_spread(x)
    return np.asarray((x + deviation * spread * drawn).astype(x.dtype))


def mean_and_spread(x: Array) -> tuple[Array, Array]:
    """Mean and deviation of each column of ``x`` (n, ...), of its known values."""
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0).sum(axis=0) / count
    return mean, np.sqrt(np.where(known, np.square(x - mean), 0).sum(axis=0) / count)
