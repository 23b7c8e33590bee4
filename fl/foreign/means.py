"""Flower's weighted mean of arrays, without its copies: the same products added up in the same order, so the same bits.

Flower decodes every array into a copy, makes a second array of its product with the weight, and adds that: for each
client the whole model goes through memory several times. Here an array is read where it lies, a piece at a time that
stays in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flwr.serverapp.strategy.fedavg
import flwr.serverapp.strategy.multikrum
import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

PIECE = 1 << 18
"""Values multiplied and added at a time: their products stay in the cache, and calls of NumPy cost nothing beside."""


def installed() -> None:
    """Let the strategies of this process that average arrays do it by ``weighted_arrays``."""
    for module in (flwr.serverapp.strategy.fedavg, flwr.serverapp.strategy.multikrum):
        module.aggregate_arrayrecords = weighted_arrays  # type: ignore[attr-defined]


def weighted_arrays(records: Sequence[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """sum_k w_k x_k / sum_k w_k of each array x, w_k being the number of that name in the k-th metric record.

    Stands in for ``flwr.serverapp.strategy.strategy_utils.aggregate_arrayrecords``, which has the same arguments.
    """
    weights: list[Any] = [next(iter(record.metric_records.values()))[weighting_metric_name] for record in records]
    total = sum(weights)
    sums: dict[str, Any] = {}
    for record, weight in zip(records, weights, strict=True):
        factor = weight / total
        for arrays in record.array_records.values():
            for name, array in arrays.items():
                values = _values(array)
                if name in sums:
                    sums[name] = _add_product(sums[name], values, factor)
                else:
                    sums[name] = values * factor
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in sums.items()})


def _values(array: Array) -> Any:
    """What an array holds: where it lies, if it can tell; nobody writes to it."""
    view = getattr(array, "view", None)
    values = view() if view else None
    return array.numpy() if values is None else values


def _add_product(into: Any, values: Any, factor: float) -> Any:
    """``into += values * factor``, in pieces where that is the same."""
    small = into.ndim == 0 or into.size <= PIECE
    if small or into.shape != values.shape or into.dtype != values.dtype or not _are_flat(into, values):
        into += values * factor
        return into
    flat, given, factor = into.reshape(-1), values.reshape(-1), into.dtype.type(factor)
    product = np.empty(min(flat.size, PIECE), dtype=into.dtype)
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        np.multiply(given[start : start + PIECE], factor, out=product[: piece.size])
        np.add(piece, product[: piece.size], out=piece)
    return into


def _are_flat(*arrays: Any) -> bool:
    return all(array.flags.c_contiguous for array in arrays)
