"""Label skew of any strength: each class is shared out in proportions drawn from a Dirichlet distribution.

    p_k ~ Dir(alpha, ..., alpha) over the clients, for every class k

M. Yurochkin et al., Bayesian nonparametric federated learning of neural networks, 2019; the minimum size as in Q. Li
et al., Federated learning on non-IID data silos, 2022.
"""

from __future__ import annotations

import heapq

import numpy as np

from fl.data.partition.assignment import Assignment, enough_rows, from_owners
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

_TRIES = 10


def dirichlet(labels: Array, num_clients: int, seed: int, *, alpha: float = 0.5, min_size: int = 10) -> Assignment:
    """Small ``alpha``: few classes a client; large: nearly iid. Every client gets ``min_size`` examples or more.

    Drawn again up to ten times until nobody has fewer; if all fail, the draw that came closest is repaired: random
    examples move from whoever has most to those who lack. So it always ends.
    """
    if not 0 < alpha < np.inf:
        raise BadInput(key="partition.alpha", got=alpha, allowed="a number above 0")
    if min_size < 1:
        raise BadInput(key="partition.min_size", got=min_size, allowed="a whole number from 1")
    enough_rows(len(labels), num_clients, each=min_size)
    best: Array | None = None
    best_missing = len(labels) + 1
    for attempt in range(_TRIES):
        owners = _draw(labels, num_clients, alpha, generator(seed, purpose="partition/dirichlet", round=attempt))
        missing = int(np.maximum(min_size - np.bincount(owners, minlength=num_clients), 0).sum())
        if missing < best_missing:
            best, best_missing = owners, missing
        if missing == 0:
            break
    assert best is not None
    if best_missing:
        _repair(best, num_clients, min_size, generator(seed, purpose="partition/dirichlet-repair"))
    return from_owners(best, num_clients)


def _draw(labels: Array, num_clients: int, alpha: float, draw: np.random.Generator) -> Array:
    owners = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        shares = draw.dirichlet(np.full(num_clients, alpha))
        if not np.isfinite(shares).all() or shares.sum() <= 0:  # alpha so small that every gamma draw is 0
            shares = np.zeros(num_clients)
            shares[draw.integers(num_clients)] = 1.0
        cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        owners[rows] = np.searchsorted(cuts, np.arange(len(rows)), side="right")
    return owners


def _repair(owners: Array, num_clients: int, min_size: int, draw: np.random.Generator) -> None:
    """Move examples, in place, one at a time from the largest client to the smaller ones until none lacks any."""
    holdings = [list(draw.permutation(np.flatnonzero(owners == c))) for c in range(num_clients)]
    largest = [(-len(rows), c) for c, rows in enumerate(holdings)]
    heapq.heapify(largest)
    for client in range(num_clients):
        for _ in range(min_size - len(holdings[client])):
            _, donor = heapq.heappop(largest)
            owners[holdings[donor].pop()] = client
            heapq.heappush(largest, (-len(holdings[donor]), donor))
