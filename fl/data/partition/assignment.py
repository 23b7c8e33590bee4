"""Who holds which examples: what every partitioner returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

# (x, y, client) -> (x, y): what a client's sensor or concept makes of its examples; same shapes and dtypes.
Transform: TypeAlias = Callable[[Array, Array, int], tuple[Array, Array]]


@dataclass(frozen=True)
class Assignment:
    """Disjoint partitions: client c holds rows ``order[offsets[c]:offsets[c + 1]]``.

    order     row numbers, each at most once (int64)
    offsets   num_clients + 1 ascending positions in ``order`` (int64), the first 0
    transform applied to a client's examples when the store is written, or None
    """

    order: Array
    offsets: Array
    transform: Transform | None = None

    @property
    def num_clients(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Array:
        """Examples a client."""
        return np.diff(self.offsets)

    def rows(self, client: int) -> Array:
        """The row numbers of one client."""
        return self.order[self.offsets[client] : self.offsets[client + 1]]


@dataclass(frozen=True)
class View:
    """Overlapping partitions, drawn when they are read: nothing is stored a client, so a million of them cost nothing.

    Each client is a seeded draw, without replacement, of ``examples_per_client`` of ``num_examples`` rows.
    """

    num_examples: int
    examples_per_client: int
    num_clients: int
    seed: int

    @property
    def transform(self) -> None:
        return None


def draw(seed: int, client: int, pool: str, size: int, count: int) -> Array:
    """``count`` different positions in 0 .. size-1 for one client, by its address: about 20 microseconds."""
    return generator(seed, purpose=f"view/{pool}", client=client).choice(size, size=count, replace=False)


def from_owners(owners: Array, num_clients: int) -> Assignment:
    """The assignment in which row i belongs to client ``owners[i]``; a client's rows stay in ascending order."""
    offsets = np.zeros(num_clients + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=num_clients), out=offsets[1:])
    return Assignment(np.argsort(owners, kind="stable").astype(np.int64), offsets)


def from_parts(parts: list[Array]) -> Assignment:
    """The assignment in which client c holds ``parts[c]``."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return Assignment(np.concatenate(parts).astype(np.int64), offsets)


def enough_rows(num_examples: int, num_clients: int, *, each: int = 1) -> None:
    """Refuse more clients than the examples can be shared out to, ``each`` of them at least."""
    if num_clients < 1:
        raise BadInput(key="num_clients", got=num_clients, allowed="a whole number from 1")
    if num_clients * each > num_examples:
        allowed = f"at most {num_examples // each} clients for {num_examples} training examples"
        if each > 1:
            allowed += f" at {each} or more each"
        raise BadInput(
            key="num_clients", got=num_clients, allowed=f"{allowed} (partition=iid may have more: views that overlap)"
        )
