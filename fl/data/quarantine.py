"""Clients whose data broke a rule: a file that names them, and the data without them.

    {"dealing": hash, "clients": {"3": ["age: range: ..."]}}

A client that is to train all the same is taken out of the file by hand. The hash is of the data and of how they are
dealt to clients: client 3 of another partition is somebody else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fl.data.dataset import Dataset, fingerprint
from fl.data.partition.assignment import Assignment, View, from_parts
from fl.data.validate import Violation
from fl.errors import BadInput
from fl.files import write_bytes

KEY = "dataset.quarantine"


def dealing(
    dataset: Dataset,
    *,
    partition: str,
    partition_options: Mapping[str, Any],
    num_clients: int | None,
    seed: int,
    server_fractions: Iterable[float],
    split: str = "ratio",
) -> str:
    """A hash of who holds what. Natural clients are who they are, whatever the server sets apart for itself."""
    how: list[Any] = [] if partition == "natural" else [dict(partition_options), num_clients, seed, *server_fractions]
    how += [split] if how and split != "ratio" else []
    text = json.dumps([fingerprint(dataset), partition, how], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_quarantine(
    path: Path, violations: Iterable[Violation], *, dealing: str, besides: Mapping[int, Sequence[str]] | None = None
) -> list[int]:
    """Write the clients that broke a rule, with what they broke; returns them. A file of nobody is written too.

    ``besides``: clients that were left out before, with their reasons (see ``reasons``); they stay so.
    """
    clients: dict[int, list[str]] = {client: list(why) for client, why in (besides or {}).items()}
    for violation in violations:
        if violation.client is not None:
            about = f"{violation.column or 'rows'}: {violation.rule}: {violation.found}, allowed: {violation.allowed}"
            clients.setdefault(violation.client, []).append(about)
    named = {str(client): reasons for client, reasons in sorted(clients.items())}
    text = json.dumps({"dealing": dealing, "clients": named}, indent=2)
    write_bytes(path, f"{text}\n".encode(), site="report")
    return sorted(clients)


def read_quarantine(path: Path, *, dealing: str) -> list[int]:
    """The clients that are to be left out. BadInput where there is no such file, or it is of other data."""
    return sorted(reasons(path, dealing=dealing))


def reasons(path: Path, *, dealing: str) -> dict[int, list[str]]:
    """The same clients, each with what it broke."""
    allowed = "a file that fl data validate wrote for the same data, partition and seed"
    if not path.is_file():
        raise BadInput(key=KEY, got=f"{path}, which is no file", allowed=allowed)
    try:
        found = json.loads(path.read_text())
        of = found["dealing"]
        clients = {int(client): [str(reason) for reason in why] for client, why in found["clients"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(key=KEY, got=f"{path}, which is not as it was written", allowed=allowed) from error
    if of != dealing:
        raise BadInput(key=KEY, got=f"{path}, which is of other data or clients", allowed=allowed)
    return clients


def without_natural(dataset: Dataset, clients: Iterable[int]) -> Dataset:
    """The data set without the rows of some natural clients; the others are numbered anew, in order."""
    if dataset.client is None:
        return dataset
    gone = np.fromiter(clients, np.int64)
    everybody = np.arange(int(dataset.client.max()) + 1)
    left = everybody[~np.isin(everybody, gone)]
    _somebody(len(left))
    rows = np.flatnonzero(~np.isin(dataset.client, gone))
    names = tuple(dataset.client_names[c] for c in left) if dataset.client_names else ()
    return replace(
        dataset,
        x=dataset.x[rows],
        y=dataset.y[rows],
        client=np.searchsorted(left, dataset.client[rows]).astype(np.int64),
        client_names=names,
        order=None if dataset.order is None else dataset.order[rows],
    )


def without_clients(assignment: Assignment | View, clients: Iterable[int]) -> Assignment | View:
    """The assignment without some clients; the others are numbered anew, in order."""
    gone = set(clients)
    if not gone:
        return assignment
    if isinstance(assignment, View):
        raise BadInput(key=KEY, got="clients that share their rows", allowed="a partition of disjoint clients")
    if assignment.transform is not None:
        raise BadInput(key=KEY, got="clients whose data the partition changes", allowed="another partition")
    left = [client for client in range(assignment.num_clients) if client not in gone]
    _somebody(len(left))
    return from_parts([assignment.rows(client) for client in left])


def _somebody(num_left: int) -> None:
    if not num_left:
        raise BadInput(key=KEY, got="every client", allowed="somebody left to train with")
