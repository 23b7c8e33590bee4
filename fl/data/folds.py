"""Cross-validation: which examples, or which clients, one of several runs leaves out, and is then measured on.

    examples    each client's own examples in k folds; fold j of every client is its test part, the rest trains
    clients     the clients in k folds; those of fold j take no part, and all their examples are a test part
    public      the server's public examples in k folds; fold j is the server's test set, the rest its public part
    bootstrap   each client trains on as many of its examples as it has, drawn with replacement (Breiman, 1996); those
                that were not drawn, about a third, are its test part

Who is in which fold depends on the seed and the client alone, never on the fold that is asked for: over the k runs
every example is left out once, except that a client's only example always trains. With ``bootstrap`` folds are
independent draws. There is no validation part: all that is not left out trains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

OVER = ("examples", "clients", "public", "bootstrap")
LEFT_OUT = "left_out"
"""The store of clients that take no part, beside the partitions of those that do."""


@dataclass(frozen=True)
class Fold:
    """Fold ``index`` (from 0) of ``number``, over one of OVER."""

    number: int
    index: int
    over: str

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise BadInput(key="folds.over", got=self.over, allowed=", ".join(OVER))
        if self.number < 2:
            raise BadInput(key="folds.number", got=self.number, allowed="a whole number from 2, or null")
        if not 0 <= self.index < self.number:
            raise BadInput(key="folds.index", got=self.index, allowed=f"0 to {self.number - 1}")


def cut(num_rows: int, fold: Fold) -> tuple[Array, Array]:
    """Positions that stay and positions that are left out, of ``num_rows`` that were shuffled already.

    Fold sizes differ by one at the most, larger ones first, as of scikit-learn's KFold.

    >>> [part.tolist() for part in cut(5, Fold(number=2, index=0, over="public"))]
    [[3, 4], [0, 1, 2]]
    """
    parts = np.array_split(np.arange(num_rows), fold.number)
    left = parts[fold.index]
    return np.setdiff1d(np.arange(num_rows), left), left


def client_rows(rows: Array, fold: Fold, *, seed: int, client: int) -> tuple[Array, tuple[int, int, int]]:
    """A client's shuffled ``rows`` in the order of its parts, and the sizes of its train, validation and test part."""
    n = len(rows)
    if fold.over == "bootstrap":
        draw = generator(seed, purpose=f"folds/bootstrap/{fold.index}", client=client)
        drawn = draw.integers(n, size=n)
        out = np.setdiff1d(np.arange(n), drawn)
        return rows[np.concatenate([drawn, out])], (n, 0, len(out))
    if n == 1:
        return rows, (1, 0, 0)
    # Folds are numbered from another one for each client, so that those of small clients are not all the first ones.
    turned = Fold(fold.number, (fold.index + client) % fold.number, fold.over)
    stay, left = cut(n, turned)
    return rows[np.concatenate([stay, left])], (len(stay), 0, len(left))


def clients_left_out(num_clients: int, fold: Fold, *, seed: int) -> list[int]:
    """The clients of the fold, ascending. BadInput for more folds than clients."""
    if fold.number > num_clients:
        allowed = f"at most {num_clients} folds: the clients there are"
        raise BadInput(key="folds.number", got=fold.number, allowed=allowed)
    order = generator(seed, purpose="folds/clients").permutation(num_clients)
    return sorted(int(client) for client in order[cut(num_clients, fold)[1]])


def public_rows(num_rows: int, fold: Fold, *, seed: int) -> tuple[Array, Array]:
    """Positions of public examples that train and that are left out. BadInput where there are fewer than folds."""
    if num_rows < fold.number:
        allowed = (
            f"{num_rows} folds at the most: no example of a client is pooled, and the server has "
            f"{num_rows} public ones (dataset.public_fraction, server=pretrained)"
        )
        raise BadInput(key="folds.number", got=fold.number, allowed=allowed)
    order = generator(seed, purpose="folds/public").permutation(num_rows)
    stay, left = cut(num_rows, fold)
    return np.sort(order[stay]), np.sort(order[left])
