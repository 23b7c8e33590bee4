"""Partitioners: pure functions ``(labels, num_clients, seed, **options) -> Assignment``, one a file.

To add one: write the function and a line in ``PARTITIONERS``, and in ``NEEDS`` what it cannot do without.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fl.data.partition.assignment import Assignment, View
from fl.data.partition.concept_shift import concept_shift
from fl.data.partition.dirichlet import dirichlet
from fl.data.partition.feature_skew import feature_skew
from fl.data.partition.iid import iid
from fl.data.partition.label_skew import label_skew
from fl.data.partition.natural import natural
from fl.data.partition.quantity_skew import quantity_skew
from fl.data.partition.shards import shards
from fl.errors import BadInput
from fl.parameters import Array
from fl.signature import Task

PARTITIONERS: dict[str, Callable[..., Assignment | View]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "label_skew": label_skew,
    "quantity_skew": quantity_skew,
    "natural": natural,
    "feature_skew": feature_skew,
    "concept_shift": concept_shift,
}

_LABELS = ("classification", "regression")
# The tasks that a partitioner can work with; all, where it is not named. A regression target counts as ten labels.
NEEDS: dict[str, tuple[str, ...]] = {
    "dirichlet": _LABELS,
    "shards": _LABELS,
    "label_skew": _LABELS,
    "feature_skew": _LABELS,
    "concept_shift": ("classification",),
}
_QUANTILES = 10


def partition(
    name: str,
    *,
    labels: Array,
    task: Task,
    client: Array | None,
    num_clients: int,
    seed: int,
    options: Mapping[str, Any],
) -> Assignment | View:
    """Run a partitioner by name on ``labels`` (n, ...), with its options checked; nobody is left without examples.

    ``client`` is the natural client of each row, or None; only ``natural`` reads it. Regression targets are replaced by
    the number of their decile for the partitioners that go by label. The option ``base`` is a partitioner's name.
    """
    if name not in PARTITIONERS:
        raise BadInput(key="partition", got=name, allowed=", ".join(PARTITIONERS))
    if task not in NEEDS.get(name, (task,)):
        able = ", ".join(p for p in PARTITIONERS if task in NEEDS.get(p, (task,)))
        raise BadInput(key="partition", got=f"{name} for the task {task}", allowed=able)
    arguments = _arguments(name, options)
    if name == "natural":
        if client is None:
            others = ", ".join(p for p in PARTITIONERS if p != "natural")
            raise BadInput(
                key="partition",
                got="natural, for data that name no client",
                allowed=f"{others}; or say which column names it: dataset.client",
            )
        arguments["client"] = client
    by_label = deciles(labels) if task == "regression" else labels
    assignment = PARTITIONERS[name](by_label, num_clients, seed, **arguments)
    if isinstance(assignment, Assignment) and not assignment.sizes.all():
        empty = int(np.flatnonzero(assignment.sizes == 0)[0])
        raise BadInput(
            key="partition",
            got=f"{name} leaves client {empty} of {num_clients} without examples",
            allowed="at least one example a client: fewer clients, or a milder partition",
        )
    return assignment


def deciles(targets: Array) -> Array:
    """The tenth, 0 to 9, that each target falls into by rank, so that numbers can be partitioned like labels.

    >>> deciles(np.array([5.0, 1.0, 3.0, 3.0])).tolist()
    [7, 0, 2, 2]
    """
    ranks = np.searchsorted(np.sort(targets), targets, side="left")
    return ranks * _QUANTILES // len(targets)


def _arguments(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as keyword arguments: unknown ones refused, None left to the default, ``base`` looked up."""
    parameters = inspect.signature(PARTITIONERS[name]).parameters
    known = [p for p in parameters if parameters[p].kind is inspect.Parameter.KEYWORD_ONLY and p != "client"]
    for option in options:
        if option not in known:
            allowed = ", ".join(known) or f"no options for {name}"
            raise BadInput(key=f"partition.{option}", got=options[option], allowed=allowed)
    arguments = {k: v for k, v in options.items() if v is not None}
    if "base" in arguments:
        bases = [p for p in PARTITIONERS if p not in ("natural", "feature_skew", "concept_shift")]
        if arguments["base"] not in bases:
            raise BadInput(key="partition.base", got=arguments["base"], allowed=", ".join(bases))
        arguments["base"] = PARTITIONERS[arguments["base"]]
    return arguments
