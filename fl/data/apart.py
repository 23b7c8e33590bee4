"""Which rows the server keeps for itself, by the rule that divides those of the clients (``dataset.split``).

ratio        at random
stratified   at random, each label by its share
time         the latest for its test, the earliest for its public part: no client trains on what is later than the
             server's test, and version 0 saw nothing that is
group        whole groups: none is at the server and at a client, or in both of the server's parts
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fl.data.dataset import Dataset
from fl.data.split import set_apart
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

Kept = Literal["held-out", "public"]


def server_part(
    dataset: Dataset, rows: Array, fraction: float, *, split: str, kept: Kept, seed: int, spared: Array
) -> Array:
    """A mask of about ``fraction`` of ``rows`` (n,), numbers of rows that are not ``spared`` (n,), for the server.

    No natural client is left with nothing. Raises BadInput, naming the client, where a time leaves it nothing.
    """
    client = None if dataset.client is None else dataset.client[rows]
    if split in ("ratio", "stratified") or dataset.order is None:
        strata = dataset.y[rows] if split == "stratified" else None
        return set_apart(len(rows), fraction, client, seed, purpose=kept, spared=spared, strata=strata)
    wanted = int(fraction * (len(rows) - spared.sum()) + 0.5)
    if split == "group":
        return _groups(dataset.order[rows], wanted, client, generator(seed, purpose=f"{kept}/groups"), spared)
    mask = _end(dataset.order[rows], wanted, kept, spared)
    if client is not None:
        _nobody_vanishes(dataset, client, mask, kept)
    return mask


def _end(times: Array, wanted: int, kept: Kept, spared: Array) -> Array:
    """The latest or earliest ``wanted`` rows, or as many fewer as are of the moment at which they would be cut."""
    sign = -1 if kept == "held-out" else 1
    free = np.sort(sign * times[~spared])
    if not 0 < wanted < len(free):
        return np.zeros(len(times), bool)
    return np.asarray((sign * times < free[wanted]) & ~spared)


def _nobody_vanishes(dataset: Dataset, client: Array, mask: Array, kept: Kept) -> None:
    lost = np.setdiff1d(client[mask], client[~mask])
    if len(lost):
        name = f" ({dataset.client_names[lost[0]]})" if dataset.client_names else ""
        key = "dataset.held_out_fraction" if kept == "held-out" else "dataset.public_fraction"
        what = "after the start of the server's test" if kept == "held-out" else "before the end of the public part"
        got = f"client {lost[0]}{name} with all its rows {what}"
        raise BadInput(key=key, got=got, allowed="a smaller share, or the client in dataset.quarantine")


def _groups(groups: Array, wanted: int, client: Array | None, draw: np.random.Generator, spared: Array) -> Array:
    """Groups in a drawn order, each that brings the sum nearer to ``wanted``; if none does, the smallest one."""
    names, member = np.unique(groups, return_inverse=True)
    owner = np.zeros(len(groups), np.int64) if client is None else client
    left = np.bincount(owner)
    order = np.argsort(member, kind="stable")
    held = np.split(order, np.cumsum(np.bincount(member, minlength=len(names)))[:-1])
    mask, have = np.zeros(len(groups), bool), 0

    def can_go(rows: Array) -> bool:
        owners, counts = np.unique(owner[rows], return_counts=True)
        return not spared[rows].any() and bool((left[owners] > counts).all())

    for group in draw.permutation(len(names)):
        if have + len(held[group]) / 2 <= wanted and can_go(held[group]):
            mask[held[group]] = True
            have += len(held[group])
            np.subtract.at(left, owner[held[group]], 1)
    if not have and wanted:
        for rows in sorted(held, key=len):
            if can_go(rows):
                mask[rows] = True
                break
    return mask
