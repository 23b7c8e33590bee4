"""Which examples go where within a client, and which rows the server keeps before clients get any."""

from __future__ import annotations

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

# A natural client that gives rows to the server keeps these many: one a part.
_KEEP = 3


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


def set_apart(num_rows: int, fraction: float, client: Array | None, seed: int, *, purpose: str) -> Array:
    """A mask of ``round(fraction * num_rows)`` random rows for the server.

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
    mask[order[: int(fraction * num_rows + 0.5)]] = True
    return mask


def _part(n: Array, fraction: float) -> Array:
    return np.maximum(np.floor(n * fraction + 0.5).astype(np.int64), 1) if fraction > 0 else np.zeros_like(n)
