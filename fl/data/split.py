"""Which examples go where within a client, and which rows the server keeps before clients get any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

# A natural client that gives rows to the server keeps these many: one a part.
_KEEP = 3

KINDS = ("ratio", "stratified", "time", "group")
"""How a client's examples are divided."""
BY = ("time", "group")
"""Those that divide by a column."""

PARTS = ("train", "validation", "test")
"""What the numbers 0, 1 and 2 mean, where rows of a table are divided."""


def split_sizes(num_examples: Array, *, validation_fraction: float, test_fraction: float) -> Array:
    """Sizes (num_clients, 3) of the train, validation and test parts of clients with ``num_examples`` each.

    Fractions are rounded to the nearest whole example, halves up. A part whose fraction is above 0 gets at least one
    example where the client has them, in the order train, test, validation: one example is for training, two give a
    test part, three a validation part. The training part is never empty.

    >>> split_sizes(np.array([1, 2, 3, 100]), validation_fraction=0.1, test_fraction=0.1).tolist()
    [[1, 0, 0], [1, 0, 1], [1, 1, 1], [80, 10, 10]]
    """
    for key, fraction in (
        ("dataset.validation_fraction", validation_fraction),
        ("dataset.test_fraction", test_fraction),
    ):
        if not 0 <= fraction < 1:
            raise BadInput(key=key, got=fraction, allowed="0 or more, below 1")
    if validation_fraction + test_fraction >= 1:
        raise BadInput(
            key="dataset.validation_fraction",
            got=f"{validation_fraction} and dataset.test_fraction {test_fraction}",
            allowed="together below 1, so that something is left to train on",
        )
    n = np.asarray(num_examples, dtype=np.int64)
    if (n < 1).any():
        client = int(np.flatnonzero(n < 1)[0])
        raise BadInput(key="partition", got=f"no examples for client {client}", allowed="at least one a client")
    test = np.minimum(_part(n, test_fraction), n - 1)
    validation = np.minimum(_part(n, validation_fraction), n - 1 - test)
    return np.stack([n - validation - test, validation, test], axis=1)


def shuffled(rows: Array, seed: int, client: int) -> Array:
    """A client's rows in the order in which its parts are cut: by its own address, whatever others hold."""
    return generator(seed, purpose="split", client=client).permutation(rows)


def set_apart(
    num_rows: int,
    fraction: float,
    client: Array | None,
    seed: int,
    *,
    purpose: str,
    spared: Array | None = None,
    strata: Array | None = None,
) -> Array:
    """A mask of ``round(fraction * num_rows)`` random rows for the server; of the rows that are not ``spared``, a mask.

    Of each of the ``strata`` (num_rows,), if they are given, the same share, to the nearest row.

    Where rows have natural clients, each client keeps three at least (all it has, if fewer); so fewer rows may be taken
    than asked for, and nobody vanishes.
    """
    draw = generator(seed, purpose=purpose)
    order = draw.permutation(num_rows)
    if client is not None:
        by_client = order[np.argsort(client[order], kind="stable")]
        starts = np.searchsorted(client[by_client], client[by_client], side="left")
        free = np.zeros(num_rows, bool)
        free[by_client] = np.arange(num_rows) - starts >= _KEEP
        order = order[free[order]]
    mask = np.zeros(num_rows, bool)
    if spared is not None:
        order, num_rows = order[~spared[order]], num_rows - int(spared.sum())
    if strata is not None:
        order = order[_spread(strata[order])]
    mask[order[: int(fraction * num_rows + 0.5)]] = True
    return mask


def _spread(strata: Array) -> Array:
    """An order of rows, of which any first few have of each stratum about the share that all have."""
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    by_stratum = np.argsort(stratum, kind="stable")
    rank = np.empty(len(strata), np.int64)
    rank[by_stratum] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.argsort((rank + 0.5) / sizes[stratum], kind="stable")


def _part(n: Array, fraction: float) -> Array:
    return np.maximum(np.floor(n * fraction + 0.5).astype(np.int64), 1) if fraction > 0 else np.zeros_like(n)


@dataclass(frozen=True)
class Division:
    """How a client's examples are divided: ``kind`` is one of KINDS, the fractions are those of ``split_sizes``."""

    kind: str
    validation_fraction: float
    test_fraction: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(key="dataset.split", got=self.kind, allowed=", ".join(KINDS))

    def sizes(self, num_examples: Array) -> Array:
        """Sizes of the parts where only how many there are counts; see ``split_sizes``."""
        return split_sizes(num_examples, validation_fraction=self.validation_fraction, test_fraction=self.test_fraction)

    def divide(
        self, rows: Array, *, labels: Array, column: Array | None, seed: int, client: int, known: Array | None = None
    ) -> tuple[Array, Array]:
        """A client's ``rows`` in the order of its parts, and the sizes (3,) of these.

        labels, column   of every row of the data; ``column`` is what divides by time or group
        known            the part of every row, where that is settled for all clients together

        The order within a part is the client's own, as of ``shuffled``, whatever the kind.
        """
        own = shuffled(rows, seed, client)
        fractions = {"validation_fraction": self.validation_fraction, "test_fraction": self.test_fraction}
        if self.kind == "ratio" or not len(own):
            return own, self.sizes(np.array([len(own)]))[0]
        if known is not None:
            part = known[own]
            if part.all():
                got = f"client {client} with nothing to train on, of groups that several clients have"
                raise BadInput(key="dataset.split_by", got=got, allowed="a column whose groups are each of one client")
        elif self.kind == "stratified":
            part = stratified(labels[own], **fractions, seed=seed)
        elif column is None:
            raise BadInput(key="dataset.split_by", got=None, allowed=f"a column, for dataset.split={self.kind}")
        elif self.kind == "time":
            part = by_time(column[own], **fractions)
        else:
            part = by_group(column[own], **fractions, seed=seed)
        return own[np.argsort(part, kind="stable")], np.bincount(part, minlength=len(PARTS))


def by_ratio(num_rows: int, *, validation_fraction: float, test_fraction: float, seed: int) -> Array:
    """The part (n,) of each row, drawn by ``seed``; sizes as of ``split_sizes``."""
    order = generator(seed, purpose="split/ratio").permutation(num_rows)
    return _in_order(order, validation_fraction, test_fraction)


def stratified(labels: Array, *, validation_fraction: float, test_fraction: float, seed: int) -> Array:
    """The part (n,) of each row: the rows of each label (n,) divided for themselves, so that shares stay.

    Sizes are as of ``split_sizes``, a label: one that is rare is still in every part, if it has three rows.
    """
    part = np.zeros(len(labels), np.int64)
    draw = generator(seed, purpose="split/stratified")
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        part[draw.permutation(rows)] = np.sort(_in_order(np.arange(len(rows)), validation_fraction, test_fraction))
    return part


def by_time(times: Array, *, validation_fraction: float, test_fraction: float) -> Array:
    """The part (n,) of each row: training, then validation, then test, in the order of ``times`` (n,).

    Rows of one time are in one part, the earlier of two: no training row is as late as a validation row, and so on.
    A part may so become empty; the training part never is.
    """
    order = np.argsort(times, kind="stable")
    part = _in_order(order, validation_fraction, test_fraction)
    _, moment = np.unique(times, return_inverse=True)
    earliest = np.full(moment.max(initial=0) + 1, len(PARTS))
    np.minimum.at(earliest, moment, part)
    return np.asarray(earliest[moment])


def by_group(groups: Array, *, validation_fraction: float, test_fraction: float, seed: int) -> Array:
    """The part (n,) of each row, where no group of ``groups`` (n,) is in two parts: a patient's visits, say.

    Groups go in a drawn order, each to the part that lacks the largest share of the rows that it should have. With
    three groups or more no part with a fraction is empty.
    """
    names, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member, minlength=len(names))
    ((*wanted,),) = split_sizes(
        np.array([len(groups)]), validation_fraction=validation_fraction, test_fraction=test_fraction
    ).tolist()
    part, held = np.zeros(len(names), np.int64), [0, 0, 0]
    for group in generator(seed, purpose="split/group").permutation(len(names)):
        lacks = [(want - have) / want if want else -np.inf for want, have in zip(wanted, held, strict=True)]
        part[group] = int(np.argmax(lacks))
        held[part[group]] += int(sizes[group])
    return np.asarray(part[member])


def _in_order(order: Array, validation_fraction: float, test_fraction: float) -> Array:
    """The part of each row: the first of ``order`` are for training, then validation, then test."""
    sizes = split_sizes(np.array([len(order)]), validation_fraction=validation_fraction, test_fraction=test_fraction)
    part = np.zeros(len(order), np.int64)
    part[order] = np.repeat(np.arange(len(PARTS)), sizes[0])
    return part
