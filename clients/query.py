"""A query on clients' own columns -> the one kind of statistic that it declares, added up over a unit's clients.

A table's columns are its inputs, then the label. What is not finite counts as missing. Some questions are not about
examples but about what a device answered to its user; a column is then an arm of a release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from clients import served
from clients.local import Failure, attempt
from clients.setting import Setting
from fl.data.ordered import digit_counts, ordered
from fl.data.store import Partition
from fl.errors import BadInput, ClientFailed
from fl.messages import ALL_COLUMNS, OF_ANSWERS, PRIVATE, Query, QueryReport, check_answer
from fl.metrics import Counts, Histogram, Statistics, Sums, merge
from fl.moments import CoMoments, Moments
from fl.parameters import Array
from fl.seeds import address, generator
from fl.sketches import Distinct, HeavyHitters, Rows, row_hashes
from fl.transforms.recipe import Recipe


@dataclass(frozen=True)
class Asked:
    """What a client answers from: ``columns`` (n, len(query.columns)) float64 of the part asked for, ``label`` (n,)."""

    setting: Setting
    query: Query
    client: int
    columns: Array
    label: Array

    def numbers(self, name: str) -> tuple[float, ...]:
        """What the query brings under a name."""
        if name not in self.query.numbers:
            raise ClientFailed(client=self.client, reason=f"the query {self.query.kind} brings no {name}")
        return self.query.numbers[name]

    def each(self) -> Iterator[tuple[int, Array]]:
        """The columns, each with its number."""
        return zip(self.query.columns, self.columns.T, strict=True)

    @property
    def salt(self) -> int:
        """What hashes are salted with: the same at all clients of a run. A server that must not try rows out would not
        know it; in this simulation it comes from the run's seed.
        """
        return address(self.setting.seed, purpose="hash") % 2**64


def query_clients(
    setting: Setting, query: Query, clients: Sequence[int]
) -> Iterable[tuple[tuple[int, ...], QueryReport | Failure]]:
    """Clients with their answer: all together, added up in client order, or each for itself. Then the failures."""
    reports: list[QueryReport] = []
    failures: list[tuple[tuple[int, ...], Failure]] = []
    for client in clients:
        outcome = attempt(client, partial(_report, setting, query, client))
        if not isinstance(outcome, QueryReport):
            failures.append(((client,), outcome))
        elif query.by_client or not reports:
            reports.append(outcome)
        else:
            reports[0] = _both(reports[0], outcome)
    return [*((report.clients, report) for report in reports), *failures]


def _both(a: QueryReport, b: QueryReport) -> QueryReport:
    return replace(
        a,
        clients=(*a.clients, *b.clients),
        num_examples=a.num_examples + b.num_examples,
        statistics=merge([a.statistics, b.statistics]),
    )


def _report(setting: Setting, query: Query, client: int) -> QueryReport:
    if query.kind in OF_ANSWERS:
        return check_answer(QueryReport((client,), query.round, 0, _of_answers(setting, query, client)), query)
    partition = setting.store.partition(client)
    if partition.train.x.ndim != 2 or partition.train.y.ndim != 1:
        raise ClientFailed(client=client, reason="its examples are no rows of a table")
    x, y = _features(partition, query) if query.recipe else _rows(partition, query.part)
    if max(query.columns) > x.shape[1]:
        raise ClientFailed(client=client, reason=f"there is no column {max(query.columns)}, only 0 to {x.shape[1]}")
    chosen = [y if c == x.shape[1] else x[:, c] for c in query.columns]
    columns = np.stack([column.astype(np.float64) for column in chosen], axis=1)
    statistics = KINDS[query.kind](Asked(setting, query, client, columns, y))
    told = 0 if query.kind in PRIVATE else len(y)  # an exact number of examples would undo the noise on the counts
    return check_answer(QueryReport((client,), query.round, told, statistics), query)


def _of_answers(setting: Setting, query: Query, client: int) -> Statistics:
    """Sums over what a client answered ``since`` a time and before ``until`` (seconds since 1970), in each arm of a
    ``release``; where the query names none, over all that its user saw.
    """
    given = {name: numbers[0] for name, numbers in query.numbers.items() if name != "edges"}
    release = int(given["release"]) if "release" in given else None
    since, until = given.get("since", 0.0), given.get("until", math.inf)
    edges, path = query.numbers.get("edges", ()), served.table_path(setting.partitions)
    take = served.sums if query.kind == "served" else served.versions
    with served.opened(path) as table:
        return {
            str(arm): take(table, client, served.Asked(release, arm, since, until), edges=edges)
            for arm in query.columns
        }


def _features(partition: Partition, query: Query) -> tuple[Array, Array]:
    recipe = Recipe.from_json(query.recipe)
    x, y = _rows(partition, query.part)
    if len(recipe.inputs) != x.shape[1]:
        raise BadInput(key="recipe", got=f"{len(recipe.inputs)} columns", allowed=f"{x.shape[1]}, as in the data")
    kept = recipe.kept(x, y) if query.part == "train" else np.arange(len(y))
    return recipe.values(x[kept]), y[kept]


def _rows(partition: Partition, part: str) -> tuple[Array, Array]:
    parts = {"train": partition.train, "validation": partition.validation, "test": partition.test}
    chosen = list(parts.values()) if part == "all" else [parts[part]]
    return np.concatenate([e.x for e in chosen]), np.concatenate([e.y for e in chosen])


# What each kind of query means ------------------------------------------------------------------------------------


def _moments(asked: Asked) -> Statistics:
    return {str(c): Moments.of(values) for c, values in asked.each()}


def _comoments(asked: Asked) -> Statistics:
    return {ALL_COLUMNS: CoMoments.of(asked.columns)}


def _histogram(asked: Asked) -> Statistics:
    """Of a column between its ``edges/C``; what lies outside goes to the ends."""
    return {str(c): Histogram.of(_known(values), asked.numbers(f"edges/{c}")) for c, values in asked.each()}


def _noisy_histogram(asked: Asked) -> Statistics:
    """The same counts, each with two-sided geometric noise: ``epsilon``-differentially private, by example added or
    removed, over all columns of the query together. The noise of a count has the variance 2 a / (1 - a)^2, a client,
    with a = exp(-epsilon / columns). The noise too comes from the run's seed, which a real server would not know.
    """
    (epsilon,) = asked.numbers("epsilon")
    if epsilon <= 0:
        raise ClientFailed(client=asked.client, reason=f"epsilon is {epsilon}, not above 0")
    out: Statistics = {}
    stop = -math.expm1(-epsilon / len(asked.query.columns))
    for c, values in asked.each():
        edges = asked.numbers(f"edges/{c}")
        # Two different questions never get the same noise: their difference would be free of it.
        purpose = f"query/{asked.query.kind}/{asked.query.part}/{c}/{edges}/{epsilon}"
        draw = generator(asked.setting.seed, purpose=purpose, round=asked.query.round, client=asked.client)
        noise = draw.geometric(stop, len(edges) - 1) - draw.geometric(stop, len(edges) - 1)
        counts = np.array(Histogram.of(_known(values), edges).counts) + noise
        out[str(c)] = Sums(tuple(float(n) for n in counts))
    return out


def _digits(asked: Asked) -> Statistics:
    """For each of a column's ``prefix/C``: its values that begin with it, by their next digit (fl/data/ordered.py)."""
    (place,) = asked.numbers("place")
    out: Statistics = {}
    for c, values in asked.each():
        keys = ordered(_known(values))
        prefixes = [int(prefix) for prefix in asked.numbers(f"prefix/{c}")]
        out[str(c)] = Counts(tuple(digit_counts(keys, prefixes, int(place)).ravel().tolist()))
    return out


def _heavy_hitters(asked: Asked) -> Statistics:
    (capacity,), (least,) = asked.numbers("capacity"), asked.numbers("at_least")
    return {str(c): HeavyHitters.of(values, int(capacity), at_least=int(least)) for c, values in asked.each()}


def _distinct(asked: Asked) -> Statistics:
    return {str(c): Distinct.of(values, asked.salt) for c, values in asked.each()}


def _outside(asked: Asked) -> Statistics:
    """Values of a column below and above its ``range/C``, and values not in its ``set/C``, where it has them."""
    out: Statistics = {}
    for c, values in asked.each():
        known = _known(values)
        low, high = asked.query.numbers.get(f"range/{c}", (-math.inf, math.inf))
        members = asked.query.numbers.get(f"set/{c}")
        strangers = 0 if members is None else np.count_nonzero(~np.isin(known, members))
        out[str(c)] = Counts((int((known < low).sum()), int((known > high).sum()), int(strangers)))
    return out


def _grouped(asked: Asked) -> Statistics:
    """Of a column's known values, for each of the ``groups`` that column ``by`` tells apart: how many there are, then
    what they add up to. A client tells 0 of a group of which it has fewer than ``at_least``.
    """
    (by,), (least,) = asked.numbers("by"), asked.numbers("at_least")
    if by not in asked.query.columns:
        raise ClientFailed(client=asked.client, reason=f"the query grouped is not of column {by:g}, which it groups by")
    group, groups = asked.columns[:, asked.query.columns.index(int(by))], asked.numbers("groups")
    out: Statistics = {}
    for c, values in asked.each():
        held = [_known(values[group == value]) for value in groups]
        told = [some if len(some) >= least else some[:0] for some in held]
        out[str(c)] = Sums((*(float(len(some)) for some in told), *(float(some.sum()) for some in told)))
    return out


def _labels(asked: Asked) -> Statistics:
    """A column against the label's ``classes``: counts by ``edges/C`` (below, between, above, missing), by class."""
    (classes,) = asked.numbers("classes")
    width = int(classes)
    label = asked.label.astype(np.int64)
    out: Statistics = {}
    for c, values in asked.each():
        edges = np.array(asked.numbers(f"edges/{c}"))
        bins = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(edges) + 1)
        size = (len(edges) + 2) * width
        out[str(c)] = Counts(tuple(np.bincount(bins * width + label, minlength=size).tolist()))
    return out


def _repeats(asked: Asked) -> Statistics:
    """A column's values that were there before; of all columns and the label: rows that were there before, and rows of
    the validation and test parts that the training part has too.
    """
    out: Statistics = {}
    for c, values in asked.each():
        known = _known(values)
        out[str(c)] = Counts((len(known) - len(np.unique(known)),))
    partition = asked.setting.store.partition(asked.client)
    hashes = row_hashes(_whole_rows(partition, "all"), asked.salt)
    num_train = len(partition.train)
    leaked = np.isin(hashes[num_train:], hashes[:num_train]).sum()
    out[ALL_COLUMNS] = Counts((len(hashes) - len(np.unique(hashes)), int(leaked)))
    return out


def _shared_rows(asked: Asked) -> Statistics:
    (capacity,) = asked.numbers("capacity")
    rows = _whole_rows(asked.setting.store.partition(asked.client), asked.query.part)
    return {ALL_COLUMNS: Rows.of(rows, int(capacity), salt=asked.salt)}


def _whole_rows(partition: Partition, part: str) -> Array:
    x, y = _rows(partition, part)
    return np.concatenate([x.astype(np.float64), y[:, None].astype(np.float64)], axis=1)


def _known(values: Array) -> Array:
    return np.asarray(values[np.isfinite(values)])


Answer: TypeAlias = Callable[[Asked], Statistics]
KINDS: Mapping[str, Answer] = {
    "moments": _moments,
    "comoments": _comoments,
    "histogram": _histogram,
    "noisy_histogram": _noisy_histogram,
    "digits": _digits,
    "heavy_hitters": _heavy_hitters,
    "distinct": _distinct,
    "outside": _outside,
    "grouped": _grouped,
    "labels": _labels,
    "repeats": _repeats,
    "rows": _shared_rows,
}
