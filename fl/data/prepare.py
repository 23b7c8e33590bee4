"""From a data set to what a run reads: a store for the devices, a centre for the server, a picture for people.

    all training rows -> held-out test (unless the data bring one) -> public part -> partitions -> parts of each client

Every step takes rows away from the next, so no row is in two places. Same data, options and seed: same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl.data import partition as partitioning
from fl.data.arrange import Arranged, arrange, leave_out, server_rows
from fl.data.centre import PICTURE, write_centre
from fl.data.dataset import Dataset, fingerprint
from fl.data.describe import partition_facts
from fl.data.folds import LEFT_OUT, Fold, clients_left_out, public_rows
from fl.data.partition.assignment import Assignment, View
from fl.data.picture import draw_partition, shown_clients
from fl.data.quarantine import dealing, read_quarantine, without_clients, without_natural
from fl.data.split import BY, KINDS, Division
from fl.data.store import open_store, write_store, write_view_store
from fl.data.wrangle import fit_target, wrangle_table
from fl.errors import BadInput
from fl.parameters import Array
from fl.signature import Signature, Task

# What is counted and drawn: how many kinds of label, and the kind of each target.
_LABELS: Mapping[Task, Callable[[Array, int], tuple[int, Array]]] = {
    "classification": lambda y, num_outputs: (num_outputs, y),
    "regression": lambda y, _: (10, partitioning.deciles(y)),
    "next_token": lambda y, _: (1, np.zeros(len(y), np.int64)),
}


@dataclass(frozen=True)
class Prepared:
    """What was written. ``sizes`` are min, median and max of the examples a client; ``facts`` are the centre's;
    ``dealing`` is the hash of who holds what, by which a quarantine knows its data.
    """

    signature: Signature
    num_clients: int
    fingerprint: str
    sizes: Mapping[str, float]
    facts: Mapping[str, Any]
    picture: Path
    centre_dir: Path
    devices_dir: Path
    dealing: str


def prepare(
    dataset: Dataset,
    *,
    partition: str,
    partition_options: Mapping[str, Any],
    num_clients: int | None,
    seed: int,
    public_fraction: float,
    held_out_fraction: float,
    validation_fraction: float,
    test_fraction: float,
    centre_dir: Path,
    devices_dir: Path,
    split: str = "ratio",
    max_server_test: int | None = None,
    quarantine: Path | None = None,
    fold: Fold | None = None,
    never_trained: Callable[[int], tuple[int, ...]] = lambda num_clients: (),
) -> Prepared:
    """Partition ``dataset`` and write everything; see the module.

    num_clients        None only for ``natural``, which takes it from the data
    public_fraction    of the training rows, for seeding version 0; 0: no public part
    held_out_fraction  of the training rows, for the server's test set, where the data bring none
    validation_fraction, test_fraction   of each client's examples; see ``split_sizes``
    split              how they and the server's rows are chosen, one of ``split.KINDS``; time and group go by
                       ``dataset.order``
    max_server_test    a seeded sample of at most so many of the server's test examples, or None for all
    never_trained      given the number of clients, those that never train: nothing is fitted on theirs, and of
                       natural clients the server gets no row either
    quarantine         a file of clients that are left out, rows and all; the others are numbered anew
    fold               what cross-validation leaves out; see fl/data/folds.py

    The fingerprint is of the data and of every choice here, and the same in the store and in the centre.
    Raises BadInput, by key, before anything is written.
    """
    _check(dataset, num_clients, public_fraction, held_out_fraction, max_server_test)
    division = Division(split, validation_fraction, test_fraction)
    division.sizes(np.ones(1))
    _check_division(split, dataset, fold)
    fractions = [public_fraction, held_out_fraction, validation_fraction, test_fraction]
    choices = {
        "data": fingerprint(dataset),
        "server": [*fractions, max_server_test],
        "table": [dataset.standardize, dataset.missing],
        **({} if split == "ratio" else {"split": split}),
    }
    of = dealing(
        dataset,
        partition=partition,
        partition_options=partition_options,
        num_clients=num_clients,
        seed=seed,
        server_fractions=fractions[:2],
        split=split,
    )
    gone = [] if quarantine is None else read_quarantine(quarantine, dealing=of)
    whole = len(dataset)
    if gone and partition == "natural":
        # Before the server takes any row: nothing of theirs is in its part either.
        dataset, num_clients = without_natural(dataset, gone), None
    num_gone = whole - len(dataset)
    natural = partition == "natural" and dataset.client is not None
    spared = never_trained(int(dataset.client.max()) + 1) if natural and dataset.client is not None else ()
    apart = server_rows(
        dataset,
        unseen=spared,
        seed=seed,
        public_fraction=public_fraction,
        held_out_fraction=held_out_fraction,
        max_server_test=max_server_test,
        split=split,
    )
    if fold is not None and fold.over == "public":
        stay, left = public_rows(len(apart.public), fold, seed=seed)
        apart = replace(apart, public=apart.public.take(stay), test=apart.public.take(left))
    assignment = _assign(dataset, apart.rows, partition, partition_options, num_clients, seed)
    if split != "ratio" and isinstance(assignment, View):
        allowed = "ratio, or a partition of disjoint clients: these share rows"
        raise BadInput(key="dataset.split", got=split, allowed=allowed)
    if fold is not None and isinstance(assignment, View):
        raise BadInput(
            key="folds.number", got=fold.number, allowed="null where clients share examples, or fewer of them"
        )
    if gone and partition != "natural":
        num_gone = sum(len(assignment.rows(client)) for client in gone) if isinstance(assignment, Assignment) else 0
        assignment = without_clients(assignment, gone)
    away = never_trained(assignment.num_clients)
    if away and isinstance(assignment, View):
        got = "some of the clients, which share their rows"
        raise BadInput(key="unseen_clients", got=got, allowed="null, or a partition of disjoint clients")
    if away and fold is not None and fold.over == "clients":
        got = "some of the clients, with folds.over=clients"
        raise BadInput(key="unseen_clients", got=got, allowed="null: the fold leaves clients out itself")
    arranged = arrange(
        dataset,
        apart.rows,
        assignment,
        seed=seed,
        division=division,
        fold=fold,
        unseen=away,
    )
    unseen = None
    if fold is not None and fold.over == "clients":
        if dataset.missing == "client":
            allowed = "federated: a client that takes no part has no training examples to fill its gaps from"
            raise BadInput(key="dataset.missing", got="client", allowed=allowed)
        arranged, unseen = leave_out(arranged, clients_left_out(assignment.num_clients, fold, seed=seed))
    signature, arranged, public, test = wrangle_table(dataset, arranged, apart.public, apart.test)
    if signature.task == "regression" and dataset.standardize:
        signature = fit_target(signature, arranged.trained(arranged.y))
    num_left = assignment.num_clients if isinstance(assignment, View) else len(arranged.parts)
    choices |= {"partition": [partition, dict(partition_options), assignment.num_clients, seed]}
    choices |= {"quarantine": gone} if gone else {}
    choices |= {"unseen": away} if away else {}
    choices |= {"fold": [fold.number, fold.index, fold.over]} if fold is not None else {}
    identity: dict[str, Any] = {
        "signature": signature,
        "name": dataset.name,
        "fingerprint": hashlib.sha256(json.dumps(choices, sort_keys=True, default=str).encode()).hexdigest(),
    }
    _write_devices(devices_dir, arranged, identity)
    if unseen is not None:
        _write_devices(devices_dir.with_name(LEFT_OUT), unseen, identity)
    centre_dir.mkdir(parents=True, exist_ok=True)
    clients, counts = _labels_a_client(devices_dir, arranged, num_left, signature)
    title = f"{dataset.name}, {partition}"
    _draw(centre_dir / PICTURE, counts, clients, num_left, title, signature)
    facts = {
        "partition": partition,
        "partition_options": {name: str(value) for name, value in partition_options.items()},
        **({} if split == "ratio" else {"split": split}),
        **partition_facts(dataset, arranged, counts),
        **({"quarantined_clients": gone, "quarantined_examples": num_gone} if gone else {}),
        **({"unseen_clients": list(away)} if away else {}),
    }
    write_centre(centre_dir, public=public, test=test, num_clients=num_left, facts=facts, **identity)
    return Prepared(
        signature,
        num_left,
        identity["fingerprint"],
        facts["examples_a_client"],
        facts,
        centre_dir / PICTURE,
        centre_dir,
        devices_dir,
        of,
    )


def _check(
    dataset: Dataset,
    num_clients: int | None,
    public_fraction: float,
    held_out_fraction: float,
    max_server_test: int | None,
) -> None:
    if num_clients is not None and num_clients < 1:
        raise BadInput(key="num_clients", got=num_clients, allowed="a whole number from 1")
    if not 0 <= public_fraction < 1:
        raise BadInput(key="dataset.public_fraction", got=public_fraction, allowed="0 or more, below 1")
    if dataset.x_test is None and not 0 < held_out_fraction < 1 - public_fraction:
        allowed = "above 0 and, with dataset.public_fraction, below 1: these data bring no test set"
        raise BadInput(key="dataset.held_out_fraction", got=held_out_fraction, allowed=allowed)
    if max_server_test is not None and max_server_test < 1:
        raise BadInput(key="dataset.max_server_test", got=max_server_test, allowed="a whole number from 1, or nothing")


def _check_division(split: str, dataset: Dataset, fold: Fold | None) -> None:
    if split == "ratio":
        return
    if split in BY and dataset.order is None:
        raise BadInput(key="dataset.split_by", got="null", allowed=f"a column, for dataset.split={split}")
    if split == "stratified" and dataset.signature.task != "classification":
        allowed = f"{', '.join(kind for kind in KINDS if kind != split)}: a {dataset.signature.task} has no classes"
        raise BadInput(key="dataset.split", got=split, allowed=allowed)
    if fold is not None:
        raise BadInput(key="dataset.split", got=split, allowed="ratio, with folds.number: a fold says what is left out")


def _assign(
    dataset: Dataset, rows: Array, name: str, options: Mapping[str, Any], num_clients: int | None, seed: int
) -> Assignment | View:
    client = None if dataset.client is None else dataset.client[rows]
    if name == "natural" and client is not None:
        found = int(client.max()) + 1
        if num_clients not in (None, found):
            raise BadInput(key="num_clients", got=num_clients, allowed=f"{found}, as in the data, or nothing")
        num_clients = found
    if num_clients is None and name != "natural":
        raise BadInput(key="num_clients", got=None, allowed=f"a whole number from 1 for partition={name}")
    return partitioning.partition(
        name,
        labels=dataset.y[rows],
        task=dataset.signature.task,
        client=client,
        num_clients=num_clients or 0,
        seed=seed,
        options=options,
    )


def _write_devices(folder: Path, arranged: Arranged, identity: Mapping[str, Any]) -> None:
    x, y = arranged.x, arranged.y
    if arranged.view is None or arranged.counts is None:
        write_store(folder, x=x, y=y, parts=arranged.parts, **identity)
    else:
        pools, counts = arranged.parts[0], arranged.counts
        write_view_store(folder, x=x, y=y, pools=pools, counts=counts, view=arranged.view, **identity)


def _labels_a_client(
    devices_dir: Path, arranged: Arranged, num_clients: int, signature: Signature
) -> tuple[Array, Array]:
    """Ids of clients (n,) and how many examples of each label they hold (n, labels).

    All clients; of a view only those that the picture shows. A regression target counts by tenths, tokens as one.
    """
    if arranged.view is None:
        clients, sizes, y = np.arange(num_clients), arranged.parts.sum(axis=1), arranged.y
    else:
        store, clients = open_store(devices_dir), shown_clients(num_clients)
        found = [store.partition(int(c)) for c in clients]
        held = [np.concatenate([p.train.y, p.validation.y, p.test.y]) for p in found]
        sizes, y = np.array([len(labels) for labels in held]), np.concatenate(held)
    bins, labels = _LABELS[signature.task](y, signature.num_outputs)
    flat = np.repeat(np.arange(len(clients)), sizes) * bins + labels
    return clients, np.bincount(flat, minlength=len(clients) * bins).reshape(len(clients), bins)


def _draw(
    path: Path,
    counts: Array,
    clients: Array,
    num_clients: int,
    title: str,
    signature: Signature,
) -> None:
    shown = shown_clients(num_clients)
    classes = signature.task == "classification"
    draw_partition(
        path,
        counts[np.searchsorted(clients, shown)],
        clients=shown,
        num_clients=num_clients,
        title=title,
        class_names=signature.class_names if classes else (),
        legend="label" if classes else "decile of target",
    )
