"""Which rows the server keeps, and the order in which the others lie in the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl.data.dataset import Dataset, Examples
from fl.data.partition.assignment import Assignment, View
from fl.data.split import set_apart, shuffled, split_sizes
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


@dataclass(frozen=True)
class ServerRows:
    """The server's ``test`` and ``public`` examples, and the numbers of the ``rows`` left for partitions."""

    rows: Array
    test: Examples
    public: Examples


@dataclass(frozen=True)
class Arranged:
    """Examples in the store's order: by client, or by pool for a view, then train | validation | test.

    parts   sizes (clients, 3); for a view the three pools (1, 3)
    view    how overlapping clients draw from the pools, ``counts`` (3,) examples each; None for disjoint partitions
    """

    x: Array
    y: Array
    parts: Array
    view: View | None = None
    counts: Array | None = None

    @property
    def starts(self) -> Array:
        """Where each client (or the pools) begins."""
        sizes = self.parts.sum(axis=1)
        return np.asarray(np.cumsum(sizes) - sizes)

    def training(self, values: Array) -> list[Array]:
        """Each client's training part of ``values``; for a view, the one pool that all training parts come from."""
        return [values[start : start + n] for start, n in zip(self.starts, self.parts[:, 0], strict=True)]


def server_rows(
    dataset: Dataset, *, seed: int, public_fraction: float, held_out_fraction: float, max_server_test: int | None
) -> ServerRows:
    """Take the held-out test set, if the data bring none, and then the public part, both at random by ``seed``."""
    everything = Examples(dataset.x, dataset.y)
    rows = np.arange(len(dataset))
    if dataset.x_test is not None and dataset.y_test is not None:
        test = Examples(dataset.x_test, dataset.y_test)
    else:
        held = set_apart(len(rows), held_out_fraction, dataset.client, seed, purpose="held-out")
        if not held.any():
            allowed = f"enough for one test example of {len(rows)} rows, with three left for each natural client"
            raise BadInput(key="dataset.held_out_fraction", got=held_out_fraction, allowed=allowed)
        test, rows = everything.take(rows[held]), rows[~held]
    if max_server_test is not None and max_server_test < len(test):
        kept = generator(seed, purpose="server-test").choice(len(test), size=max_server_test, replace=False)
        test = test.take(np.sort(kept))
    client = None if dataset.client is None else dataset.client[rows]
    fraction = min(1.0, public_fraction * len(dataset) / max(1, len(rows)))
    public = set_apart(len(rows), fraction, client, seed, purpose="public")
    return ServerRows(rows[~public], test, everything.take(rows[public]))


def arrange(
    dataset: Dataset,
    rows: Array,
    assignment: Assignment | View,
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> Arranged:
    """Copy ``rows`` of the data into the store's order, with what the partition does to them."""
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    if isinstance(assignment, View):
        order = rows[shuffled(np.arange(len(rows)), seed, -1)]
        pools = split_sizes(np.array([len(rows)]), **fractions)
        counts = np.minimum(split_sizes(np.array([assignment.examples_per_client]), **fractions), pools)[0]
        return Arranged(dataset.x[order], dataset.y[order], pools, assignment, counts)
    clients = range(assignment.num_clients)
    parts = split_sizes(assignment.sizes, **fractions)
    order = rows[np.concatenate([shuffled(assignment.rows(c), seed, c) for c in clients])]
    x, y = dataset.x[order], dataset.y[order]
    if assignment.transform is not None:
        for c in clients:
            place = slice(assignment.offsets[c], assignment.offsets[c + 1])
            x[place], y[place] = assignment.transform(x[place], y[place], c)
    return Arranged(x, y, parts)
