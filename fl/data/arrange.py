"""Which rows the server keeps, and the order in which the others lie in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl.data.apart import server_part
from fl.data.dataset import Dataset, Examples
from fl.data.folds import Fold, client_rows
from fl.data.partition.assignment import Assignment, View
from fl.data.split import Division, by_group, shuffled
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
    unseen  clients that are never trained
    view    how overlapping clients draw from the pools, ``counts`` (3,) examples each; None for disjoint partitions
    """

    x: Array
    y: Array
    parts: Array
    unseen: tuple[int, ...] = ()
    view: View | None = None
    counts: Array | None = None

    @property
    def starts(self) -> Array:
        """Where each client (or the pools) begins."""
        sizes = self.parts.sum(axis=1)
        return np.asarray(np.cumsum(sizes) - sizes)

    def trained(self, values: Array) -> list[Array]:
        """The same of those clients that may be trained: whatever is fitted is fitted on these."""
        return [part for client, part in enumerate(self.training(values)) if client not in set(self.unseen)]

    def training(self, values: Array) -> list[Array]:
        """Each client's training part of ``values``; for a view, the one pool that all training parts come from."""
        return [values[start : start + n] for start, n in zip(self.starts, self.parts[:, 0], strict=True)]


def server_rows(
    dataset: Dataset,
    *,
    seed: int,
    public_fraction: float,
    held_out_fraction: float,
    max_server_test: int | None,
    unseen: Sequence[int] = (),
    split: str = "ratio",
) -> ServerRows:
    """Take the held-out test set, if the data bring none, and then the public part, as ``split`` says: see apart.py.

    Natural clients that are ``unseen`` give nothing to either: version 0 is trained on the one, and the best version
    is chosen on the other.
    """
    spared = np.zeros(len(dataset), bool) if dataset.client is None else np.isin(dataset.client, list(unseen))
    everything = Examples(dataset.x, dataset.y)
    rows = np.arange(len(dataset))
    if dataset.x_test is not None and dataset.y_test is not None:
        test = Examples(dataset.x_test, dataset.y_test)
    else:
        held = server_part(dataset, rows, held_out_fraction, split=split, kept="held-out", seed=seed, spared=spared)
        if not held.any():
            allowed = f"enough for one test example of {len(rows)} rows, with three left for each natural client"
            raise BadInput(key="dataset.held_out_fraction", got=held_out_fraction, allowed=allowed)
        test, rows = everything.take(rows[held]), rows[~held]
    if max_server_test is not None and max_server_test < len(test):
        kept = generator(seed, purpose="server-test").choice(len(test), size=max_server_test, replace=False)
        test = test.take(np.sort(kept))
    fraction = min(1.0, public_fraction * (len(dataset) - spared.sum()) / max(1, len(rows) - spared.sum()))
    public = server_part(dataset, rows, fraction, split=split, kept="public", seed=seed, spared=spared[rows])
    return ServerRows(rows[~public], test, everything.take(rows[public]))


def arrange(
    dataset: Dataset,
    rows: Array,
    assignment: Assignment | View,
    *,
    seed: int,
    division: Division,
    fold: Fold | None = None,
    unseen: tuple[int, ...] = (),
) -> Arranged:
    """Copy ``rows`` of the data into the store's order, with what the partition does to them.

    With a ``fold`` over examples or bootstrap, that says what a client's parts are, and ``division`` does not.
    """
    if isinstance(assignment, View):
        order = rows[shuffled(np.arange(len(rows)), seed, -1)]
        pools = division.sizes(np.array([len(rows)]))
        counts = np.minimum(division.sizes(np.array([assignment.examples_per_client])), pools)[0]
        return Arranged(dataset.x[order], dataset.y[order], pools, view=assignment, counts=counts)
    clients = range(assignment.num_clients)
    own = [shuffled(assignment.rows(c), seed, c) for c in clients]
    if fold is not None and fold.over in ("examples", "bootstrap"):
        cuts = [client_rows(one, fold, seed=seed, client=c) for c, one in enumerate(own)]
        own, parts = [one for one, _ in cuts], np.array([sizes for _, sizes in cuts])
    elif fold is not None and fold.over == "clients":
        parts = np.stack([assignment.sizes, 0 * assignment.sizes, 0 * assignment.sizes], axis=1)
    else:
        parts = division.sizes(assignment.sizes)
        if division.kind != "ratio":
            labels, column = dataset.y[rows], None if dataset.order is None else dataset.order[rows]
            known = _shared_groups(assignment, column, division, seed) if division.kind == "group" else None
            divided = [
                division.divide(assignment.rows(c), labels=labels, column=column, seed=seed, client=c, known=known)
                for c in clients
            ]
            own, parts = [one for one, _ in divided], np.array([sizes for _, sizes in divided])
    order = rows[np.concatenate(own)]
    x, y = dataset.x[order], dataset.y[order]
    if assignment.transform is not None:
        for c in clients:
            start = int(parts[:c].sum())  # not the assignment's: a bootstrap has more rows
            place = slice(start, start + int(parts[c].sum()))
            x[place], y[place] = assignment.transform(x[place], y[place], c)
    return Arranged(x, y, parts, unseen)


def _shared_groups(assignment: Assignment, column: Array | None, division: Division, seed: int) -> Array | None:
    """The part of every row where some group is of several clients: they all have it in the same part. Else None."""
    if column is None:
        return None
    held = [np.unique(column[assignment.rows(c)]) for c in range(assignment.num_clients)]
    if len(np.unique(np.concatenate(held))) == sum(map(len, held)):
        return None
    fractions = {"validation_fraction": division.validation_fraction, "test_fraction": division.test_fraction}
    return by_group(column, **fractions, seed=seed)


def leave_out(arranged: Arranged, gone: Sequence[int]) -> tuple[Arranged, Arranged]:
    """The clients that stay, and those of ``gone`` with all their examples as their test part; both numbered anew."""
    sizes, starts = arranged.parts.sum(axis=1), arranged.starts
    out = np.isin(np.arange(len(sizes)), gone)

    def some(clients: Array, parts: Array) -> Arranged:
        rows = np.concatenate([np.arange(starts[c], starts[c] + sizes[c]) for c in clients])
        return Arranged(arranged.x[rows], arranged.y[rows], parts)

    tested = np.stack([0 * sizes, 0 * sizes, sizes], axis=1)[out]
    return some(np.flatnonzero(~out), arranged.parts[~out]), some(np.flatnonzero(out), tested)
