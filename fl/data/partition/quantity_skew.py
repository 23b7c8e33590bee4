"""The same distribution for all, but very different amounts: Q. Li et al., 2022."""

from __future__ import annotations

import numpy as np

from fl.data.partition.assignment import Assignment, enough_rows
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def quantity_skew(labels: Array, num_clients: int, seed: int, *, alpha: float = 0.5, min_size: int = 10) -> Assignment:
    """Sizes are ``min_size`` each plus shares of the rest drawn from Dir(alpha): small ``alpha``, a few giants."""
    if not 0 < alpha < np.inf:
        raise BadInput(key="partition.alpha", got=alpha, allowed="a number above 0")
    if min_size < 1:
        raise BadInput(key="partition.min_size", got=min_size, allowed="a whole number from 1")
    enough_rows(len(labels), num_clients, each=min_size)
    draw = generator(seed, purpose="partition/quantity_skew")
    order = draw.permutation(len(labels))
    shares = draw.dirichlet(np.full(num_clients, alpha))
    if not np.isfinite(shares).all() or shares.sum() <= 0:  # alpha so small that every gamma draw is 0
        shares = np.zeros(num_clients)
        shares[draw.integers(num_clients)] = 1.0
    rest = len(labels) - num_clients * min_size
    offsets = np.zeros(num_clients + 1, np.int64)
    offsets[1:] = np.rint(np.cumsum(shares) * rest).astype(np.int64) + min_size * np.arange(1, num_clients + 1)
    offsets[-1] = len(labels)
    return Assignment(order, offsets)
