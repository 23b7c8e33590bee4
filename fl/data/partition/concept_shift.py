"""The same inputs mean something else to some clients: their labels are swapped or permuted (A. Ghosh et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from fl.data.partition.assignment import Assignment, View
from fl.data.partition.iid import disjoint
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def concept_shift(
    labels: Array,
    num_clients: int,
    seed: int,
    *,
    base: Callable[[Array, int, int], Assignment | View] = disjoint,
    fraction: float = 0.5,
    kind: str = "swap",
    num_concepts: int = 1,
) -> Assignment:
    """Split by ``base``; then ``round(fraction * num_clients)`` random clients see other labels, in all their parts.

    swap      two classes change places
    permute   every class becomes another one

    The shifted clients share ``num_concepts`` such changes in turn, so that they form groups. The server's test set
    keeps the original labels.
    """
    if not 0 <= fraction <= 1:
        raise BadInput(key="partition.fraction", got=fraction, allowed="0 to 1")
    if kind not in _KINDS:
        raise BadInput(key="partition.kind", got=kind, allowed=", ".join(_KINDS))
    if num_concepts < 1:
        raise BadInput(key="partition.num_concepts", got=num_concepts, allowed="a whole number from 1")
    num_classes = int(labels.max()) + 1
    if num_classes < 2:
        raise BadInput(key="partition", got="concept_shift", allowed="data of two or more classes")
    assignment = base(labels, num_clients, seed)
    if isinstance(assignment, View):
        raise BadInput(
            key="num_clients", got=num_clients, allowed=f"at most {len(labels)}, the number of training examples"
        )
    draw = generator(seed, purpose="partition/concept_shift")
    shifted = draw.permutation(num_clients)[: round(fraction * num_clients)]
    concepts = np.stack([_KINDS[kind](num_classes, draw) for _ in range(num_concepts)])
    concept_of = {int(c): i % num_concepts for i, c in enumerate(np.sort(shifted))}
    return replace(assignment, transform=partial(relabel, concepts=concepts, concept_of=concept_of))


def relabel(x: Array, y: Array, client: int, *, concepts: Array, concept_of: dict[int, int]) -> tuple[Array, Array]:
    """The labels as this client sees them: row ``concept_of[client]`` of ``concepts`` maps each class to another."""
    return (x, concepts[concept_of[client]][y]) if client in concept_of else (x, y)


def swap(num_classes: int, draw: np.random.Generator) -> Array:
    """A map of classes that exchanges two."""
    one, other = draw.choice(num_classes, size=2, replace=False)
    mapping = np.arange(num_classes)
    mapping[[one, other]] = other, one
    return mapping


def permute(num_classes: int, draw: np.random.Generator) -> Array:
    """A map of classes that leaves none where it was: a random cycle through all."""
    cycle = draw.permutation(num_classes)
    mapping = np.empty(num_classes, np.int64)
    mapping[cycle] = np.roll(cycle, -1)
    return mapping


_KINDS: dict[str, Callable[[int, np.random.Generator], Array]] = {"swap": swap, "permute": permute}
