"""Client by client: a version on each client's own test part, from what clients answered, merged statistics each.

The mean over all their examples has an interval by the bootstrap over clients, not over examples: it says how far the
figure would move with other clients, which is more, since the examples of one client are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl.evaluation.intervals import Figure, intervals
from fl.metrics import quantiles
from fl.parameters import Array

FIRST = ("accuracy", "r2")
"""By which the client that is served worst is found: the first that there is."""


def by_client(
    rows: Sequence[Mapping[str, Any]], *, asked: int, seed: int, resamples: int, confidence: float
) -> dict[str, Any]:
    """The evidence ``clients``: how many, quantiles over them by metric, their pooled figures, and who is served worst.

    rows    a client each: client, num_examples, and ``global``: its metrics by name
    asked   clients that were asked; those without a test example have no row
    """
    if not rows:
        return {"absent": "no client has a test part: dataset.test_fraction"}
    names = list(dict.fromkeys(name for row in rows for name in row["global"]))
    told = {name: [row["global"][name] for row in rows if name in row["global"]] for name in names}
    first = next((name for name in FIRST if name in told), None)
    pooled = {name: _pooled(rows, name) for name in ("accuracy", "loss", "mae") if len(told.get(name, ())) > 1}
    every = intervals(pooled, seed=seed, resamples=resamples, confidence=confidence)
    found: dict[str, Any] = {
        "asked": asked,
        "count": len(rows),
        "examples": sum(row["num_examples"] for row in rows),
        "metrics": {name: quantiles(values) for name, values in told.items()},
        "pooled": {name: vars(one) for name, one in every.items()},
    }
    if first is not None:
        worst = min((row for row in rows if first in row["global"]), key=lambda row: float(row["global"][first]))
        found["worst"] = {
            "client": worst["client"],
            "metric": first,
            "value": worst["global"][first],
            "examples": worst["num_examples"],
        }
    return found


def _pooled(rows: Sequence[Mapping[str, Any]], name: str) -> Figure:
    """The mean over all examples: sum of n v by sum of n, over clients with n examples and the mean v."""
    there = [(row["num_examples"], row["global"][name]) for row in rows if name in row["global"]]
    sums = np.array([(n * v, n) for n, v in there], dtype=np.float64)

    def of(means: Array) -> Array:
        return np.asarray(means[..., 0] / means[..., 1])

    return Figure(sums, of)
