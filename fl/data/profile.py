"""A table's columns described without anybody showing a row: every number comes from query rounds.

    exact            count, missing, min, max, mean, deviation, histogram, correlation (up to rounding); quantiles of
                     float32, and of others after eight digits
    within a bound   distinct values (standard error 1.6 %), frequent values (each says how many it may have missed)

With ``epsilon`` the one question asked is a histogram with noise, between bounds that come from public data; all else
is read off its bins, and what cannot be is left out. ``epsilon`` is spent once, by all columns together. With the
``probability`` that is told, of all columns and all of these at once: every count of a histogram is within
``count_error`` of the exact one and the count of all within ``total_error``; a quantile lies in a bin that reaches to
within ``rank_error`` values of its rank; mean and deviation are within ``mean_error`` and ``deviation_error`` of those
of the values, with one beyond the bounds taken as the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fl.data import analytics
from fl.data.analytics import MOST_PAIRED, Ask
from fl.data.count_noise import PROBABILITY
from fl.data.ordered import PLACES
from fl.errors import BadInput
from fl.moments import Moments
from fl.plain import plain
from fl.sketches import REGISTERS, HeavyHitters

SHARES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
NUM_BINS = 32
MOST_TOP = 10
CAPACITY = 64
DISTINCT_ERROR = 1.04 / math.sqrt(REGISTERS)
FLOAT32_DIGITS = 5


def profile(
    ask: Ask,
    *,
    names: Sequence[str],
    task: str = "classification",
    class_names: Sequence[str] = (),
    float32: bool = True,
    part: str = "all",
    at_least: int = 5,
    epsilon: float | None = None,
    bounds: Mapping[int, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """A profile as plain JSON values: ``columns``, a dict each, and ``correlation``, where there is one.

    names      of all columns, the label's last;  ``class_names`` of its classes, where it has such
    float32    whether the inputs are stored so: five rounds then give exact quantiles, otherwise eight
    part       the part of each client that is described: all, train, validation or test
    at_least   how often a client must have a value to tell it as a frequent one
    epsilon    differential privacy by example, for the whole profile, with ``bounds`` (low, high) for every column
    """
    if at_least < 1:
        raise BadInput(key="at_least", got=at_least, allowed="a whole number from 1")
    numbers = tuple(range(len(names)))
    if epsilon is not None:
        found = _private(ask, numbers, part, epsilon, bounds or {})
    else:
        found = _exact(ask, numbers, part, at_least, FLOAT32_DIGITS if float32 else PLACES)
    columns = [
        {"name": name, "number": c, "role": "label" if c == numbers[-1] else "input", **found["columns"][c]}
        for c, name in zip(numbers, names, strict=True)
    ]
    columns[-1] |= {"task": task, "class_names": list(class_names)}
    about = {
        "part": part,
        "epsilon": epsilon,
        "probability": PROBABILITY if epsilon else None,
        "at_least": None if epsilon else at_least,
    }
    described: dict[str, Any] = plain({**about, "columns": columns, "correlation": found["correlation"]})
    return described


def _exact(ask: Ask, numbers: tuple[int, ...], part: str, at_least: int, digits: int) -> dict[str, Any]:
    moments = analytics.moments(ask, numbers, part=part)
    shares = list(SHARES.values())
    quantiles = analytics.quantiles(ask, numbers, shares, digits=digits, part=part)
    edges = {c: bin_edges(m.low, m.high, whole=m.whole == m.count) for c, m in moments.items()}
    histograms = analytics.histogram(ask, edges, part=part)
    hitters = analytics.heavy_hitters(ask, numbers, capacity=CAPACITY, at_least=at_least, part=part)
    distinct = analytics.distinct(ask, numbers, part=part)
    paired = len(numbers) <= MOST_PAIRED
    columns = {}
    for c in numbers:
        m, h = moments[c], histograms[c]
        columns[c] = {
            **_facts(m),
            "median": quantiles[c][shares.index(0.5)],
            "quantiles": dict(zip(SHARES, quantiles[c], strict=True)),
            **_values(m, hitters[c], distinct[c]),
            "histogram": {"edges": h.edges, "counts": h.counts},
        }
    return {"columns": columns, "correlation": analytics.correlation(ask, numbers, part=part) if paired else None}


def _facts(m: Moments) -> dict[str, Any]:
    known = m.count > 0
    return {
        "count": m.count,
        "whole": m.whole == m.count,
        "missing": m.missing,
        "missing_share": m.missing / max(1, m.count + m.missing),
        "min": m.low if known else None,
        "max": m.high if known else None,
        "mean": m.mean if known else None,
        "deviation": m.deviation,
    }


def _values(m: Moments, hitters: HeavyHitters, distinct: float) -> dict[str, Any]:
    """What is known of single values: how many different ones, which are frequent, and so the type of the column."""
    exact = hitters.lost == 0
    number = len(hitters.values) if exact else round(distinct)
    if m.low == m.high:
        kind = "constant" if m.count else "empty"
    else:
        kind = "binary" if number == 2 else "whole" if m.whole == m.count else "real"
    return {
        "type": kind,
        "distinct": number,
        "distinct_error": 0.0 if exact else DISTINCT_ERROR,
        "top": [{"value": value, "count": count} for value, count in hitters.top[:MOST_TOP]],
        "top_lost": hitters.lost,
    }


def bin_edges(low: float, high: float, *, whole: bool = False) -> tuple[float, ...]:
    """Edges of NUM_BINS equal bins from ``low`` to ``high``; of few whole numbers a bin for each."""
    if whole and high - low < NUM_BINS:
        return tuple(np.arange(low - 0.5, high + 1.0).tolist())
    if low == high:
        reach = max(0.5, abs(low) / 2)
        low, high = low - reach, high + reach
    return tuple(np.linspace(low, high, NUM_BINS + 1).tolist())


def _private(
    ask: Ask, numbers: tuple[int, ...], part: str, epsilon: float, bounds: Mapping[int, tuple[float, float]]
) -> dict[str, Any]:
    if lacking := [c for c in numbers if c not in bounds]:
        raise BadInput(key="bounds", got=f"none for column {lacking[0]}", allowed="low and high for every column")
    edges = {c: bin_edges(*bounds[c]) for c in numbers}
    noisy = analytics.noisy_histogram(ask, edges, epsilon=epsilon, part=part)
    failure = (1 - PROBABILITY) / len(numbers) / 3  # a third each for the counts, the ranks, and the moments
    columns = {}
    for c in numbers:
        middles = (np.array(edges[c][:-1]) + np.array(edges[c][1:])) / 2
        moments = noisy[c].moments(edges[c], failure)
        rank_error = noisy[c].rank_error(failure)
        # Of the counts as they are: those cut off at 0 would add up to too many.
        reached = np.maximum.accumulate(np.cumsum(noisy[c].counts))
        rows = float(np.sum(noisy[c].counts))
        at = {
            name: float(middles[min(int(np.searchsorted(reached, share * rows)), len(middles) - 1)])
            for name, share in SHARES.items()
        }
        columns[c] = {
            "count": rows,
            "total_error": rank_error,
            **asdict(moments),
            "median": at["median"],
            "quantiles": at,
            "bin_width": edges[c][1] - edges[c][0],
            "count_error": noisy[c].count_error(failure),
            "rank_error": 2 * rank_error,  # of the rank itself, and of the total that it is a share of
            "histogram": {"edges": edges[c], "counts": list(noisy[c].counts)},
        }
    return {"columns": columns, "correlation": None}
