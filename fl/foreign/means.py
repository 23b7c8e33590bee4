"""Flower's weighted mean of arrays, without its copies: the same products added up in the same order, so the same bits.

Flower decodes every array into a copy, makes a second array of its product with the weight, and adds that: for each
client the whole model goes through memory several times. Here an array is read where it lies, and large ones a piece
at a time that stays in the cache, other pieces on other cores meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import flwr.serverapp.strategy.fedavg
import flwr.serverapp.strategy.multikrum
import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

PIECE = 1 << 17
"""Values multiplied and added at a time: with their products they stay in a core's own cache, and calls of NumPy cost
nothing beside.
"""

MOST_THREADS = 8
"""More would wait for memory."""


def installed() -> None:
    """Let the strategies of this process that average arrays do it by ``weighted_arrays``."""
    for module in (flwr.serverapp.strategy.fedavg, flwr.serverapp.strategy.multikrum):
        module.aggregate_arrayrecords = weighted_arrays  # type: ignore[attr-defined]


def weighted_arrays(records: Sequence[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """sum_k w_k x_k / sum_k w_k of each array x, w_k being the number of that name in the k-th metric record.

    Stands in for ``flwr.serverapp.strategy.strategy_utils.aggregate_arrayrecords``, which has the same arguments.
    """
    weights: list[Any] = [next(_of(MetricRecord, record))[weighting_metric_name] for record in records]
    total = sum(weights)
    terms: dict[str, list[tuple[Array, float]]] = {}
    for record, weight in zip(records, weights, strict=True):
        for arrays in _of(ArrayRecord, record):
            for name, array in arrays.items():
                terms.setdefault(name, []).append((array, weight / total))
    return ArrayRecord({name: Array(np.asarray(_sum(some))) for name, some in terms.items()})


def _of(kind: type[Any], record: RecordDict) -> Iterator[Any]:
    """Its records of a kind; RecordDict's own views are dicts, made and checked anew each time."""
    return (one for one in record.values() if isinstance(one, kind))


def _sum(terms: Sequence[tuple[Array, float]]) -> Any:
    """sum_k f_k x_k, added up in the order given."""
    (first, factor), *rest = terms
    into = _values(first) * factor
    if np.size(into) > PIECE and into.flags.c_contiguous and all(_lies_like(into, array) for array, _ in rest):
        flat = into.reshape(-1)
        others = [(_values(array).reshape(-1), into.dtype.type(factor)) for array, factor in rest]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(min(cores, MOST_THREADS)) as threads:
            list(threads.map(partial(_add_piece, flat, others), range(0, flat.size, PIECE)))
        return into
    for array, factor in rest:
        into += _values(array) * factor
    return into


def _add_piece(flat: Any, others: Sequence[tuple[Any, Any]], start: int) -> None:
    piece = flat[start : start + PIECE]
    product = np.empty_like(piece)
    for values, factor in others:
        np.multiply(values[start : start + PIECE], factor, out=product)
        np.add(piece, product, out=piece)


def _where_it_lies(array: Array) -> Any:
    """What an array holds, if it can tell without a copy; nobody writes to it."""
    view = getattr(array, "view", None)
    return view() if view else None


def _values(array: Array) -> Any:
    values = _where_it_lies(array)
    return array.numpy() if values is None else values


def _lies_like(into: Any, array: Array) -> bool:
    """Whether all of it is in memory as ``into`` is: copies of what is not would be there all at once."""
    values = _where_it_lies(array)
    return (
        values is not None
        and values.shape == into.shape
        and values.dtype == into.dtype
        and bool(values.flags.c_contiguous)
    )
