"""The partition that the data came with: a writer, a role, a hospital."""

from __future__ import annotations

from fl.data.partition.assignment import Assignment, from_owners
from fl.errors import BadInput
from fl.parameters import Array


def natural(labels: Array, num_clients: int, seed: int, *, client: Array) -> Assignment:
    """Row i belongs to client ``client[i]``; there are ``num_clients`` of them. ``seed`` changes nothing."""
    found = int(client.max()) + 1 if len(client) else 0
    if found > num_clients:
        raise BadInput(key="num_clients", got=num_clients, allowed=f"{found}, as in the data, or nothing")
    return from_owners(client, num_clients)
