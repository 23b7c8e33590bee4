"""Classes of a training part made equal, by its own client, which tells nobody how many of each it has.

oversample    of every class but the largest, rows are drawn again until it has as many
undersample   of every class but the smallest, as many rows are drawn as that has; the others wait for another round
weights       a row's loss is multiplied by n / (classes x rows of its class), which is 1 on average
"""

from __future__ import annotations

import numpy as np

from fl.parameters import Array

BALANCES = ("oversample", "undersample", "weights")


def balanced_rows(y: Array, how: str, draw: np.random.Generator) -> Array:
    """The numbers of the rows to train on, of classes ``y`` (n,), for "oversample" or "undersample".

    >>> balanced_rows(np.array([0, 0, 0, 1]), "oversample", np.random.default_rng(0)).tolist()
    [0, 1, 2, 3, 3, 3]
    """
    rows = [np.flatnonzero(y == label) for label in np.unique(y)]
    sizes = [len(some) for some in rows]
    if how == "undersample":
        return np.sort(np.concatenate([draw.choice(some, min(sizes), replace=False) for some in rows]))
    again = [draw.choice(some, max(sizes) - len(some)) for some in rows]
    return np.concatenate([np.arange(len(y)), *again])


def class_weights(y: Array) -> Array:
    """The weight (n,) of each row, by its class.

    >>> class_weights(np.array([0, 0, 0, 1])).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0]
    """
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray(len(y) / (len(counts) * counts[place]))
