"""A fixed number of classes a client: "#C = k" of Q. Li et al., Federated learning on non-IID data silos, 2022."""

from __future__ import annotations

import numpy as np

from fl.data.partition.assignment import Assignment, enough_rows, from_owners
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def label_skew(labels: Array, num_clients: int, seed: int, *, classes_per_client: int = 2) -> Assignment:
    """Each client gets ``classes_per_client`` classes; each class is cut equally among the clients that have it.

    Classes are dealt so that their numbers of owners differ by one at most, so no example is left over. A client has
    fewer classes only where a class has fewer examples than owners.
    """
    classes, y = np.unique(labels, return_inverse=True)
    if not 1 <= classes_per_client <= len(classes):
        allowed = f"1 to {len(classes)}, the number of classes"
        raise BadInput(key="partition.classes_per_client", got=classes_per_client, allowed=allowed)
    enough_rows(len(labels), num_clients)
    if num_clients * classes_per_client < len(classes):
        allowed = f"at least {-(-len(classes) // num_clients)} for {num_clients} clients, or nobody has some class"
        raise BadInput(key="partition.classes_per_client", got=classes_per_client, allowed=allowed)
    draw = generator(seed, purpose="partition/label_skew")
    num_owners = np.zeros(len(classes), np.int64)
    members: list[list[int]] = [[] for _ in classes]
    for client in draw.permutation(num_clients):
        # The least dealt classes first, ties at random.
        hand = np.lexsort((draw.random(len(classes)), num_owners))[:classes_per_client]
        num_owners[hand] += 1
        for c in hand:
            members[c].append(int(client))
    owners = np.empty(len(labels), np.int64)
    for c, having in enumerate(members):
        rows = draw.permutation(np.flatnonzero(y == c))
        owners[rows] = np.asarray(having)[np.arange(len(rows)) * len(having) // len(rows)]
    return from_owners(owners, num_clients)
