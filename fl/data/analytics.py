"""Questions about private columns, each answered by query rounds: mean, variance, histogram, quantiles, heavy hitters,
distinct values, correlation. ``ask`` puts one query to all clients (server/query.py); nothing here sees an example.

Columns go by number, the label's being the number of inputs. All clients have to answer: a sum that lacks one without
saying so is wrong. Results are dicts by column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fl.data.count_noise import NoisyCounts
from fl.data.ordered import BITS, DIGITS, PLACES, from_ordered
from fl.errors import BadInput, StoppedByFaults
from fl.messages import ALL_COLUMNS, MAX_STATISTIC_VALUES, MAX_STATISTICS, Query, QueryReport
from fl.metrics import Counts, Histogram, Statistic, Statistics, Sums, merge
from fl.moments import CoMoments, Moments
from fl.parameters import Array
from fl.sketches import Distinct, HeavyHitters

MOST_PAIRED = 64
"""Columns whose correlations fit one statistic."""


@dataclass(frozen=True)
class Answers:
    """What came back to a query: ``reports`` in client order, why clients failed, and how many did not answer."""

    query: Query
    reports: Sequence[QueryReport]
    failures: Mapping[int, str]
    late: int = 0

    def pooled(self) -> Statistics:
        """The statistics of all clients together. Raises StoppedByFaults unless every one of them is in."""
        answered = sum(len(report.clients) for report in self.reports)
        if self.failures or self.late:
            asked = answered + len(self.failures) + self.late
            reasons = self.failures.values()
            raise StoppedByFaults(round=self.query.round, asked=asked, answered=answered, reasons=reasons)
        return merge(report.statistics for report in self.reports)

    def by_client(self) -> dict[int, Mapping[str, Statistic]]:
        """The statistics of each client that answered for itself."""
        return {report.clients[0]: report.statistics for report in self.reports}


Ask: TypeAlias = Callable[[Query], Answers]
Numbers: TypeAlias = Mapping[str, tuple[float, ...]]


def column_answers(
    ask: Ask, kind: str, columns: Sequence[int], numbers: Numbers, *, part: str = "all", by_client: bool = False
) -> list[Answers]:
    """A query of many columns, put in as many rounds as its statistics need messages."""
    blocks = [tuple(columns[i : i + MAX_STATISTICS]) for i in range(0, len(columns), MAX_STATISTICS)]
    found = []
    for block in blocks:
        others = {str(c) for c in columns if c not in block}
        needed = {name: n for name, n in numbers.items() if name.partition("/")[2] not in others}
        found.append(ask(Query(kind, block, needed, part=part, by_client=by_client)))
    return found


def _pooled(ask: Ask, kind: str, columns: Sequence[int], numbers: Numbers, part: str) -> dict[int, Statistic]:
    found: dict[int, Statistic] = {}
    for answers in column_answers(ask, kind, columns, numbers, part=part):
        found |= {int(name): statistic for name, statistic in answers.pooled().items()}
    return found


def moments(ask: Ask, columns: Sequence[int], *, part: str = "all") -> dict[int, Moments]:
    """Count, missing, whole, mean, variance, min and max, exact up to rounding."""
    return {c: s for c, s in _pooled(ask, "moments", columns, {}, part).items() if isinstance(s, Moments)}


def mean(ask: Ask, columns: Sequence[int], *, part: str = "all") -> dict[int, float]:
    """The mean of the known values."""
    return {c: m.mean for c, m in moments(ask, columns, part=part).items()}


def variance(ask: Ask, columns: Sequence[int], *, part: str = "all") -> dict[int, float]:
    """Their variance, divided by their count."""
    return {c: m.variance for c, m in moments(ask, columns, part=part).items()}


def histogram(ask: Ask, edges: Mapping[int, Sequence[float]], *, part: str = "all") -> dict[int, Histogram]:
    """Counts between the ``edges`` of each column, exact."""
    found = _pooled(ask, "histogram", list(edges), _named("edges", edges), part)
    return {c: s for c, s in found.items() if isinstance(s, Histogram)}


def noisy_histogram(
    ask: Ask, edges: Mapping[int, Sequence[float]], *, epsilon: float, part: str = "all"
) -> dict[int, NoisyCounts]:
    """The same with each client's own noise: ``epsilon``-differentially private by example, over all columns together.

    Every column has its equal share of ``epsilon``, in however many rounds they are asked: an example is in one count
    of each, and what is spent adds up. Counts may be negative; a count over n clients has noise of deviation about
    sqrt(2 n) columns / epsilon, and ``NoisyCounts`` bounds it.
    """
    if not epsilon > 0:
        raise BadInput(key="epsilon", got=epsilon, allowed="a number above 0")
    found: dict[int, NoisyCounts] = {}
    for block in (list(edges)[i : i + MAX_STATISTICS] for i in range(0, len(edges), MAX_STATISTICS)):
        share = epsilon * len(block) / len(edges)
        numbers = {**_named("edges", {c: edges[c] for c in block}), "epsilon": (share,)}
        answers = ask(Query("noisy_histogram", tuple(block), numbers, part=part))
        clients = sum(len(report.clients) for report in answers.reports)
        for name, sums in answers.pooled().items():
            assert isinstance(sums, Sums)
            found[int(name)] = NoisyCounts(tuple(sums.values), clients, epsilon / len(edges))
    return found


def quantiles(
    ask: Ask, columns: Sequence[int], shares: Sequence[float], *, digits: int = PLACES, part: str = "all"
) -> dict[int, list[float]]:
    """The value at each share (0..1) of the known ones: the smallest with at least that share at or below it.

    Exact after all PLACES ``digits``, one a round; of float32 after five; else below the value by 2^-(8 digits - 12)
    of it at most. NaN for a column with no value.
    """
    if not 1 <= digits <= PLACES:
        raise BadInput(key="digits", got=digits, allowed=f"1 to {PLACES}")
    if not shares or len(shares) * DIGITS > MAX_STATISTIC_VALUES or not all(0 <= share <= 1 for share in shares):
        raise BadInput(key="shares", got=list(shares), allowed=f"1 to {MAX_STATISTIC_VALUES // DIGITS} numbers, 0 to 1")
    prefixes = {c: [0] * len(shares) for c in columns}
    ranks: dict[int, list[int]] = {}
    for place in range(digits):
        numbers = {"place": (float(place),)} | {f"prefix/{c}": tuple(p) for c, p in prefixes.items()}
        found = _pooled(ask, "digits", list(columns), numbers, part)
        for c in columns:
            statistic = found[c]
            assert isinstance(statistic, Counts)
            tables = np.array(statistic.counts).reshape(len(shares), DIGITS)
            if place == 0:
                ranks[c] = [_rank(share, int(tables[0].sum())) for share in shares]
            for i, table in enumerate(tables):
                upto = table.cumsum()
                digit = min(int((upto <= ranks[c][i]).sum()), DIGITS - 1)
                ranks[c][i] -= int(upto[digit - 1]) if digit else 0
                prefixes[c][i] = (prefixes[c][i] << BITS) | digit
            if place == 0 and not tables[0].sum():
                ranks[c] = [-1] * len(shares)
    return {c: [_value(p, r, digits) for p, r in zip(prefixes[c], ranks[c], strict=True)] for c in columns}


def _rank(share: float, count: int) -> int:
    """From 0: of the smallest value with ``share`` of them at or below it."""
    return max(0, int(np.ceil(share * count - 1e-9)) - 1)


def _value(prefix: int, rank: int, digits: int) -> float:
    if rank < 0:
        return float("nan")
    spare = 64 - BITS * digits
    key = np.array([prefix << spare], np.uint64)
    value = float(from_ordered(key)[0])
    if value < 0 or np.isnan(value):  # below 0 the keys run the other way: the digits not known are ones
        value = float(from_ordered(key | np.uint64((1 << spare) - 1))[0])
    return value + 0.0


def heavy_hitters(
    ask: Ask, columns: Sequence[int], *, capacity: int = 64, at_least: int = 1, part: str = "all"
) -> dict[int, HeavyHitters]:
    """The frequent values; each says how far its counts may be too low. A client tells of no value that it has fewer
    than ``at_least`` times.
    """
    numbers = {"capacity": (float(capacity),), "at_least": (float(at_least),)}
    found = _pooled(ask, "heavy_hitters", columns, numbers, part)
    return {c: s for c, s in found.items() if isinstance(s, HeavyHitters)}


def distinct(ask: Ask, columns: Sequence[int], *, part: str = "all") -> dict[int, float]:
    """About how many different values; the standard error is 1.6 %, and next to nothing below a hundred."""
    found = _pooled(ask, "distinct", columns, {}, part)
    return {c: s.value for c, s in found.items() if isinstance(s, Distinct)}


def grouped(
    ask: Ask, column: int, by: int, groups: Sequence[float], *, at_least: int = 1, part: str = "all"
) -> list[tuple[int, float]]:
    """Of each of the ``groups``, values of column ``by``: how many values of ``column`` are known, and their mean.

    Clients leave out a group of which they have fewer than ``at_least``; the mean of none is NaN.
    """
    if not groups or 2 * len(groups) > MAX_STATISTIC_VALUES:
        allowed = f"1 to {MAX_STATISTIC_VALUES // 2} groups"
        raise BadInput(key="groups", got=f"{len(groups)} groups", allowed=allowed)
    columns = tuple(dict.fromkeys((column, by)))
    numbers = {"groups": tuple(map(float, groups)), "by": (float(by),), "at_least": (float(at_least),)}
    found = ask(Query("grouped", columns, numbers, part=part)).pooled()[str(column)]
    assert isinstance(found, Sums)
    counts, sums = found.values[: len(groups)], found.values[len(groups) :]
    return [(int(n), s / n if n else float("nan")) for n, s in zip(counts, sums, strict=True)]


def correlation(ask: Ask, columns: Sequence[int], *, part: str = "all") -> Array:
    """Pearson's r of each pair, over the rows where both are known; exact up to rounding."""
    if len(columns) > MOST_PAIRED:
        raise BadInput(key="columns", got=len(columns), allowed=f"at most {MOST_PAIRED} for a correlation")
    found = ask(Query("comoments", tuple(columns), part=part)).pooled()[ALL_COLUMNS]
    assert isinstance(found, CoMoments)
    return found.correlation


def _named(what: str, edges: Mapping[int, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {f"{what}/{c}": tuple(float(e) for e in numbers) for c, numbers in edges.items()}
