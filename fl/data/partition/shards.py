"""The pathological split of McMahan et al., Communication-efficient learning of deep networks, 2017."""

from __future__ import annotations

import numpy as np

from fl.data.partition.assignment import Assignment, enough_rows, from_parts
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def shards(labels: Array, num_clients: int, seed: int, *, shards_per_client: int = 2) -> Assignment:
    """Sort by label, cut into ``num_clients * shards_per_client`` equal shards, deal each client ``shards_per_client``.

    Within a label the order is random. A shard has one label, but for those (at most classes - 1 of all) in which one
    label ends and the next begins; so most clients have two labels and a few have a third.
    """
    if shards_per_client < 1:
        raise BadInput(key="partition.shards_per_client", got=shards_per_client, allowed="a whole number from 1")
    enough_rows(len(labels), num_clients, each=shards_per_client)
    draw = generator(seed, purpose="partition/shards")
    shuffled = draw.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(order, num_clients * shards_per_client)
    hands = draw.permutation(len(pieces)).reshape(num_clients, shards_per_client)
    return from_parts([np.concatenate([pieces[p] for p in hand]) for hand in hands])
