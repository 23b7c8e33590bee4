"""The same labels, seen differently: every client's inputs are noisier, or turned further, than the one's before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from fl.data import noise
from fl.data.partition.assignment import Assignment
from fl.data.partition.iid import disjoint
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def feature_skew(
    labels: Array, num_clients: int, seed: int, *, kind: str = "noise", noise: float = 0.5, degrees: float = 45.0
) -> Assignment:
    """An iid split, and a change of the inputs a client, in all its parts.

    noise      client i of n adds Gaussian noise of deviation ``noise * i / (n - 1)``: in units of the full range for
               uint8 images, else of each column's own deviation at that client (Q. Li et al., 2022)
    rotation   client i turns its images by an angle between -``degrees`` and +``degrees``, evenly spaced
    """
    if kind not in _KINDS:
        raise BadInput(key="partition.kind", got=kind, allowed=", ".join(_KINDS))
    if not 0 <= noise < np.inf:
        raise BadInput(key="partition.noise", got=noise, allowed="a number from 0")
    if not 0 <= degrees <= 180:
        raise BadInput(key="partition.degrees", got=degrees, allowed="0 to 180")
    most = noise if kind == "noise" else degrees
    change = partial(_KINDS[kind], num_clients=num_clients, seed=seed, most=most)
    return replace(disjoint(labels, num_clients, seed), transform=change)


def add_noise(x: Array, y: Array, client: int, *, num_clients: int, seed: int, most: float) -> tuple[Array, Array]:
    """``x`` plus the client's noise, in the dtype of ``x``; missing values stay missing."""
    deviation = most * client / max(1, num_clients - 1)
    return noise.add_noise(x, deviation, generator(seed, purpose="partition/feature-noise", client=client)), y


def rotate(x: Array, y: Array, client: int, *, num_clients: int, seed: int, most: float) -> tuple[Array, Array]:
    """Images (n, h, w) or (n, channels, h, w) turned about their centre, bilinear, zeros from outside."""
    if x.ndim < 3:
        raise BadInput(key="partition.kind", got="rotation", allowed="noise: these inputs are not images")
    angle = np.deg2rad(most * (2 * client / (num_clients - 1) - 1)) if num_clients > 1 else 0.0
    height, width = x.shape[-2:]
    row, column = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = row - (height - 1) / 2, column - (width - 1) / 2
    from_row = np.cos(angle) * dy - np.sin(angle) * dx + (height - 1) / 2
    from_column = np.sin(angle) * dy + np.cos(angle) * dx + (width - 1) / 2
    top, left = np.floor(from_row).astype(np.int64), np.floor(from_column).astype(np.int64)
    down, right = from_row - top, from_column - left
    turned = np.zeros(x.shape, np.float64)
    for r, c, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        turned += x[..., np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)] * (weight * inside)
    return (np.rint(turned) if x.dtype == np.uint8 else turned).astype(x.dtype), y


_KINDS: dict[str, Callable[..., tuple[Array, Array]]] = {"noise": add_noise, "rotation": rotate}
