"""Every client a random sample of the whole."""

from __future__ import annotations

import numpy as np

from fl.data.partition.assignment import Assignment, View, enough_rows
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def iid(labels: Array, num_clients: int, seed: int, *, examples_per_client: int = 60) -> Assignment | View:
    """Shuffle and cut into equal parts (sizes differ by one at most).

    With more clients than examples, each client is an overlapping view of ``examples_per_client`` of them.
    """
    if examples_per_client < 1:
        raise BadInput(key="partition.examples_per_client", got=examples_per_client, allowed="a whole number from 1")
    if num_clients > len(labels):
        return View(len(labels), min(examples_per_client, len(labels)), num_clients, seed)
    return disjoint(labels, num_clients, seed)


def disjoint(labels: Array, num_clients: int, seed: int) -> Assignment:
    """``iid`` that refuses more clients than examples: the base of the skewed ones."""
    enough_rows(len(labels), num_clients)
    order = generator(seed, purpose="partition/iid").permutation(len(labels))
    offsets = np.arange(num_clients + 1, dtype=np.int64) * len(labels) // num_clients
    return Assignment(order, offsets)
