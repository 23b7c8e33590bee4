"""Every data set that can be named: a dict from name to a function of the options.

To add one: write a function that returns a ``Dataset`` and a line in ``CATALOG``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl.data import function as functions
from fl.data import hub as hubs
from fl.data import npz as archives
from fl.data import shipped, tables
from fl.data import sql as queries
from fl.data import synthetic as drawn
from fl.data.dataset import Dataset
from fl.errors import BadInput
from fl.parameters import Array

MISSING = ("federated", "client")


@dataclass(frozen=True)
class Options:
    """What ``dataset.*`` may say; each data set uses some of it (``Entry.uses`` names the ones others refuse)."""

    path: str | Path | None = None
    label: str | None = None
    client: str | None = None
    features: Sequence[str] | None = None
    subset: str | None = None
    query: str | None = None
    url: str | None = None
    function: str | None = None
    function_arguments: Mapping[str, Any] = field(default_factory=dict)
    task: str = "auto"
    split: str = "ratio"
    split_by: str | None = None
    sequence_length: int = 80
    alpha: float = 1.0
    beta: float = 1.0
    clients: int = 30
    dimension: int = 60
    classes: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """A data set: how to load it, one line about it, and which of the user's own keys it takes."""

    load: Callable[[Options], Dataset]
    summary: str
    uses: frozenset[str] = frozenset()


def _table(options: Options) -> dict[str, Any]:
    """What a table of the user's own takes, besides where it is."""
    keys = ("label", "client", "features", "task", "split", "split_by")
    return {key: getattr(options, key) for key in keys}


_COLUMNS = frozenset({"path", "label", "client", "features"})
# A key that says which data to read is an error where it would be ignored.
_OWN_KEYS = ("path", "label", "client", "features", "subset", "query", "url", "function")

CATALOG: dict[str, Entry] = {
    "mnist": Entry(lambda o: shipped.mnist(), "60,000 handwritten digits, 28 x 28, and 10,000 for the server's test"),
    "fashion_mnist": Entry(
        lambda o: shipped.fashion_mnist(), "10,000 pieces of clothing, 28 x 28, and 2,000 for the test"
    ),
    "shakespeare": Entry(
        lambda o: shipped.shakespeare(sequence_length=o.sequence_length),
        "the next character in the lines of a role; a client is one of 981 roles",
    ),
    "heart_disease": Entry(
        lambda o: shipped.heart_disease(label=o.label, seed=o.seed),
        "920 patients of four hospitals, 13 measurements, some missing; a client is a hospital",
        frozenset({"label"}),
    ),
    "synthetic": Entry(
        lambda o: drawn.synthetic(
            alpha=o.alpha, beta=o.beta, clients=o.clients, dimension=o.dimension, classes=o.classes, seed=o.seed
        ),
        "FedProx's Synthetic(alpha, beta): clients that differ in model and inputs by choice",
    ),
    "npz": Entry(
        lambda o: archives.npz(path=o.path, task=o.task),
        "your own .npz: arrays x, y, and optionally client, x_test, y_test",
        frozenset({"path"}),
    ),
    "csv": Entry(
        lambda o: tables.csv(path=o.path, **_table(o)),
        "your own CSV file: a label column, optionally a client column, numbers",
        _COLUMNS,
    ),
    "parquet": Entry(
        lambda o: tables.parquet(path=o.path, **_table(o)),
        "your own Parquet file, as csv",
        _COLUMNS,
    ),
    "jsonl": Entry(
        lambda o: tables.jsonl(path=o.path, **_table(o)),
        "your own file of JSON lines, as csv",
        _COLUMNS,
    ),
    "sql": Entry(
        lambda o: queries.sql(query=o.query, path=o.path, url=o.url, **_table(o)),
        "your own query: over files or a DuckDB database, or any database with a SQLAlchemy URL",
        _COLUMNS | {"query", "url"},
    ),
    "function": Entry(
        lambda o: functions.function(target=o.function, arguments=o.function_arguments, task=o.task),
        "your own Python function that returns the arrays",
        frozenset({"function"}),
    ),
    "hub": Entry(
        lambda o: hubs.hub(
            path=None if o.path is None else str(o.path),
            label=o.label,
            client=o.client,
            features=o.features,
            subset=o.subset,
            task=o.task,
        ),
        "a data set of the Hugging Face Hub, through flwr-datasets (extra hub)",
        _COLUMNS | {"subset"},
    ),
}


def load(
    name: str,
    *,
    path: str | Path | None = None,
    label: str | None = None,
    client: str | None = None,
    task: str = "auto",
    features: Sequence[str] | None = None,
    subset: str | None = None,
    query: str | None = None,
    url: str | None = None,
    standardize: bool = True,
    missing: str = "federated",
    function: str | None = None,
    function_arguments: Mapping[str, Any] | None = None,
    split: str = "ratio",
    split_by: str | None = None,
    sequence_length: int = 80,
    alpha: float = 1.0,
    beta: float = 1.0,
    clients: int = 30,
    dimension: int = 60,
    classes: int = 10,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name; the keywords are those of ``dataset.*``, and each data set takes some of them.

    path, label, client, features, subset   which file or Hub data set, and which of its columns
    query, url                              for ``sql``
    task                                    "auto", "classification", "regression" or "next_token"
    standardize, missing                    kept in the ``Dataset`` for ``prepare``
    function, function_arguments            for ``function``
    split, split_by                         how rows are divided, and by which column, which becomes ``order``
    sequence_length                         characters a window, for ``shakespeare``
    alpha, beta, clients, dimension, classes   for ``synthetic``

    Raises BadInput, by key, for an unknown name, a key that this data set does not take, and data that cannot be used.
    """
    if name not in CATALOG:
        raise BadInput(key="dataset", got=name, allowed=", ".join(CATALOG))
    if missing not in MISSING:
        raise BadInput(key="dataset.missing", got=missing, allowed=", ".join(MISSING))
    options = Options(
        path=path, label=label, client=client, features=features, subset=subset, query=query, url=url,
        function=function,
        function_arguments=function_arguments or {}, task=task, sequence_length=sequence_length, alpha=alpha, beta=beta,
        clients=clients, dimension=dimension, classes=classes, seed=seed, split=split, split_by=split_by,
    )  # fmt: skip
    entry = CATALOG[name]
    for key in _OWN_KEYS:
        if getattr(options, key) is not None and key not in entry.uses:
            takers = ", ".join(other for other, e in CATALOG.items() if key in e.uses)
            raise BadInput(
                key=f"dataset.{key}", got=getattr(options, key), allowed=f"nothing for {name}; {takers} take it"
            )
    found = replace(entry.load(options), standardize=standardize, missing=missing)
    return found if split_by is None or found.order is not None else replace(found, order=_order(found, split_by))


def _order(dataset: Dataset, split_by: str) -> Array:
    """The ranks of one of a table's own inputs."""
    known = dataset.signature.input_names if dataset.is_table else ()
    if split_by not in known:
        allowed = f"a column of {dataset.name}: {', '.join(known)}" if known else "nothing: these data have no columns"
        raise BadInput(key="dataset.split_by", got=split_by, allowed=allowed)
    values = dataset.x[:, known.index(split_by)]
    if values.dtype.kind == "f" and np.isnan(values).any():
        row = int(np.flatnonzero(np.isnan(values))[0]) + 1
        raise BadInput(
            key="dataset.split_by", got=f"{split_by}, which is missing in row {row}", allowed="a value in every row"
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def known() -> dict[str, str]:
    """Each name and a line about it, for ``--help``."""
    return {name: entry.summary for name, entry in CATALOG.items()}
