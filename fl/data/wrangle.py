"""Missing values and scales of tables, fitted without any client showing a row.

Every number here is a sum over clients, in client order, of what one client computes from its own training part:

    missing          how many values are missing, a column
    median           256 counts a column, eight times: each time of the next eight bits of the values in float64's own
                     order. That finds the lower median exactly, with edges that are fixed before any data are seen
    mean, deviation  the sum of the filled values; then the sum of squared distances to the merged mean

Counts and sums add up, so they can go through secure aggregation. No validation, test or server example is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce

import numpy as np

from fl.data.arrange import Arranged
from fl.data.dataset import Dataset, Examples
from fl.data.ordered import BITS, DIGITS, from_ordered, ordered
from fl.parameters import Array
from fl.signature import Signature


def wrangle_table(
    dataset: Dataset, arranged: Arranged, public: Examples, test: Examples
) -> tuple[Signature, Arranged, Examples, Examples]:
    """The data's signature with what was fitted, and the data: changed only with ``dataset.missing="client"``.

    federated   NaN stays; the signature gets merged medians, and an indicator for each column that misses values in
                some training part: table models fill and flag. All columns get a median if any value is missing
                anywhere (one bit), so that a test row with a gap can be scored
    client      each client fills with the medians of its own training part, where that knows none with those of the
                public part, and appends the indicator columns; the server's examples are filled with public medians

    What is no table of floats comes back as it is.
    """
    signature = dataset.signature
    if not dataset.is_table or arranged.x.dtype.kind != "f":
        return signature, arranged, public, test
    training = arranged.training(arranged.x)
    fill = np.zeros(arranged.x.shape[1])
    if any(bool(np.isnan(x).any()) for x in (arranged.x, public.x, test.x)):
        indicators = [int(c) for c in np.flatnonzero(_sum(missing, arranged.trained(arranged.x)))]
        if dataset.missing == "client":
            fallback = medians([public.x])
            spans = zip(training, arranged.starts, arranged.parts.sum(axis=1), strict=True)
            filled = [fill_client(arranged.x[a : a + n], train, indicators, fallback) for train, a, n in spans]
            arranged = replace(arranged, x=np.concatenate(filled))
            public, test = (Examples(fill_client(e.x, public.x, indicators, fallback), e.y) for e in (public, test))
            names = signature.feature_names
            names = (*names, *(f"{names[c]} missing" for c in indicators)) if names else ()
            signature = replace(signature, input_shape=arranged.x.shape[1:], feature_names=names)
            fill = np.zeros(arranged.x.shape[1])
        else:
            fill = medians(arranged.trained(arranged.x))
            signature = replace(signature, medians=_floats(fill), indicators=tuple(indicators))
    if dataset.standardize:
        mean, std = moments(arranged.trained(arranged.x), fill)
        signature = replace(signature, feature_mean=_floats(mean), feature_std=_floats(std))
    return signature, arranged, public, test


def fit_target(signature: Signature, parts: Sequence[Array]) -> Signature:
    """The signature with mean and deviation of a regression target; ``parts``: each client's own (n_c,)."""
    mean, std = moments([y[:, None] for y in parts], np.zeros(1))
    return replace(signature, target_mean=float(mean[0]), target_std=float(std[0]))


def missing(x: Array) -> Array:
    """What one client counts: missing values (columns,)."""
    return np.asarray(np.isnan(x).sum(axis=0))


def medians(parts: Sequence[Array]) -> Array:
    """The lower median of each column (columns,) over the clients together; 0 where nothing is known.

    >>> medians([np.array([[1.0], [5.0]]), np.array([[2.0], [np.nan], [9.0]])])
    array([2.])
    """
    keys = [ordered(x) for x in parts]
    known = [~np.isnan(x) for x in parts]
    total = reduce(np.add, (k.sum(axis=0) for k in known))
    rank = np.maximum(total - 1, 0) // 2
    prefix = np.zeros(parts[0].shape[1], np.uint64)
    for shift in range(64 - BITS, -1, -BITS):
        pairs = zip(keys, known, strict=True)
        counts = reduce(np.add, (_digit_counts(key, k, prefix, np.uint64(shift)) for key, k in pairs))
        upto = counts.cumsum(axis=1)
        digit = np.minimum((upto <= rank[:, None]).sum(axis=1), DIGITS - 1)
        rank = rank - np.where(digit > 0, np.take_along_axis(upto, np.maximum(digit - 1, 0)[:, None], axis=1)[:, 0], 0)
        prefix = (prefix << np.uint64(BITS)) | digit.astype(np.uint64)
    return np.where(total > 0, from_ordered(prefix), 0.0)


def moments(parts: Sequence[Array], fill: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (columns,) of all clients' values, missing ones filled; 1 for a constant."""
    num_examples = sum(len(x) for x in parts)
    mean = _sum(partial(_total, fill=fill), parts) / num_examples
    variance = _sum(partial(_squares, fill=fill, mean=mean), parts) / num_examples
    std = np.sqrt(variance)
    # Below what rounding alone makes of a constant column, there is nothing to divide by.
    return mean, np.where(std > 1e-7 * np.maximum(np.abs(mean), 1e-30), std, 1.0)


def fill_client(rows: Array, train: Array, indicators: Sequence[int], fallback: Array) -> Array:
    """A client's rows with its own training medians for missing values, and a column 0/1 an indicator behind them.

    ``fallback`` (columns,) stands in where a client's training part knows no value of a column: public medians.
    """
    own = np.where(np.isnan(train).all(axis=0), fallback, medians([train]))
    flags = np.isnan(rows)[:, list(indicators)].astype(rows.dtype)
    return np.concatenate([np.where(np.isnan(rows), own.astype(rows.dtype), rows), flags], axis=1)


def _sum(statistic: Callable[[Array], Array], parts: Sequence[Array]) -> Array:
    return np.asarray(reduce(np.add, (statistic(x) for x in parts)))


def _total(x: Array, fill: Array) -> Array:
    return np.asarray(np.where(np.isnan(x), fill, x).sum(axis=0, dtype=np.float64))


def _squares(x: Array, fill: Array, mean: Array) -> Array:
    return np.asarray(np.square(np.where(np.isnan(x), fill, x) - mean).sum(axis=0, dtype=np.float64))


def _digit_counts(keys: Array, known: Array, prefix: Array, shift: np.uint64) -> Array:
    """What one client counts: (columns, 256) values by their next eight bits, of those that start like ``prefix``."""
    rest = keys >> shift
    columns = keys.shape[1]
    bins = (rest & np.uint64(DIGITS - 1)).astype(np.int64) + DIGITS * np.arange(columns)
    counted = known & ((rest >> np.uint64(BITS)) == prefix)
    return np.bincount(bins[counted], minlength=columns * DIGITS).reshape(columns, DIGITS)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
