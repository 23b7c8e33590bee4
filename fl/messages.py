"""What crosses the privacy boundary, and nothing else.

    server -> client     TrainTask, EvaluateTask: the newest global model and what the algorithm shares
                         Query: which statistic of which columns
    client -> server     Update: a difference of parameters, declared extra arrays, merged statistics
                         EvaluationReport: merged statistics
                         QueryReport: the one kind of statistic that the query declares, merged over a unit's clients

Each record is frozen and checked where it is made: a client that would send anything else than the ``Boundary``
declares gets a RefusedUpdate that names it and the array, before the record can reach a sum. Times are measurements:
they stay outside every compared hash.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeGuard

import numpy as np

from fl import parameters as P
from fl.errors import BadInput, RefusedUpdate
from fl.metrics import Confusion, Counts, Histogram, Mean, Statistic, Sums
from fl.moments import CoMoments, Moments
from fl.parameters import Parameters
from fl.sketches import ROW_BITS, Distinct, HeavyHitters, Rows

MAX_STATISTICS = 32
"""How many statistics one record may carry."""

MAX_STATISTIC_VALUES = 16_384
"""How many numbers one statistic may hold: a confusion matrix of 128 classes fits, a partition does not."""

MAX_NAME = 64
"""Characters in the name of a statistic: a name, never a message."""

MAX_NUM_EXAMPLES = 2**40
"""A weight, or a count in a statistic, above this is taken for garbage."""

MAX_NORM = 1e18
"""A norm above this is taken for divergence: the weighted sum of even ten million such updates fits float32."""


@dataclass(frozen=True)
class TrainTask:
    """What the server asks of a client in ``round``: train from ``parameters``, which are version ``version``.

    ``shared`` are the algorithm's own arrays (SCAFFOLD's c), ``options`` plain numbers a stock Flower strategy asks
    for (``proximal-mu``, ``clipping_norm``).
    """

    round: int
    version: int
    parameters: Parameters
    shared: Parameters = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)


OWN_PURPOSES = ("personal", "local")
"""What a client may train for by itself: its own model from the newest version, or one without the others' help."""


@dataclass(frozen=True)
class OwnTraining:
    """How a client trains what it is sent on its own training part, before that is measured. Nothing of it is kept.

    ``purpose`` is one of OWN_PURPOSES, and part of the address of its randomness. ``epochs`` and ``learning_rate`` (the
    same in every round) take the place of the client's own, None leaves those.
    """

    purpose: str
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.purpose not in OWN_PURPOSES:
            raise BadInput(key="own.purpose", got=self.purpose, allowed=", ".join(OWN_PURPOSES))
        if self.epochs is not None and self.epochs < 1:
            raise BadInput(key="own.epochs", got=self.epochs, allowed="a whole number, at least 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise BadInput(key="own.learning_rate", got=self.learning_rate, allowed="a number above 0")


@dataclass(frozen=True)
class EvaluateTask:
    """Measure ``parameters``, version ``version``, on a client's own test part after ``round``.

    ``part`` may be "validation" in place of "test": candidates are compared on that, and the test part stays unseen.
    ``personal`` says whether this is a use of the device too, whose own model is then brought up to date and measured.
    With ``own`` it is not, and what is measured is what comes of ``parameters`` by that training.
    """

    round: int
    version: int
    parameters: Parameters
    personal: bool = True
    part: str = "test"
    own: OwnTraining | None = None


@dataclass(frozen=True)
class Update:
    """What a client sends back: ``delta`` is local minus global.

    num_examples    the weight of the update: examples trained on, above 0
    base_version    the version that ``delta`` is the difference to; older than the task's where a device was behind
    extra           arrays that the algorithm declares (SCAFFOLD's difference of c_i)
    statistics      merged over the client's own examples; at least "loss"
    seconds         how long training took on this machine
    whole           ``delta`` is no difference but a model, or a part of one, that stands for itself: trees
    """

    client: int
    round: int
    base_version: int
    delta: Parameters
    num_examples: int
    extra: Parameters = field(default_factory=dict)
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    seconds: float = 0.0
    whole: bool = False

    @cached_property
    def norm(self) -> float:
        """Euclidean norm of ``delta``."""
        return P.norm(self.delta)


@dataclass(frozen=True)
class EvaluationReport:
    """Statistics of one client's own test part. ``num_examples`` may be 0 where the part is empty."""

    client: int
    round: int
    num_examples: int
    statistics: Mapping[str, Statistic]


QUERIES: Mapping[str, type] = {
    "moments": Moments,
    "comoments": CoMoments,
    "histogram": Histogram,
    "noisy_histogram": Sums,
    "digits": Counts,
    "heavy_hitters": HeavyHitters,
    "distinct": Distinct,
    "outside": Counts,
    "grouped": Sums,
    "labels": Counts,
    "repeats": Counts,
    "rows": Rows,
    "served": Sums,
    "served_versions": Histogram,
}
"""Every question that may be asked, and the one statistic that answers it; clients/query.py says what each means."""

OF_ANSWERS = frozenset({"served", "served_versions"})
"""The questions about what a device answered to its user, not about its examples: a column is an arm of a release."""

SERVED = (
    *("answers", "errors", "users", "personal", "behind", "rewards", "reward", "reward_squares"),
    *("user_rewards", "user_reward", "user_reward_squares", "base_reward", "compared", "agreed"),
)
"""What the numbers of ``served`` are, in order; behind them comes how many answers took how long (fl/serving)."""


def release_number(release: str) -> int:
    """What a query calls a release: a number from 1, made of its id; 0 is none.

    >>> release_number(""), release_number("canary-1")
    (0, 154874737630008)
    """
    return 1 + int.from_bytes(hashlib.sha256(release.encode()).digest()[:6], "big") if release else 0


PRIVATE = frozenset({"noisy_histogram"})
"""The questions whose answers carry noise, and tell no number of examples beside it."""

ALL_COLUMNS = "all"
"""The name of a statistic that is of all columns together; otherwise it is a column's number."""

PARTS = ("all", "train", "validation", "test")

MAX_NUMBERS = 2**20
"""How many numbers a query may bring: edges, prefixes, categories."""


@dataclass(frozen=True)
class Query:
    """Ask ``kind`` of ``columns`` (their numbers; the label's is the number of inputs) in a ``part`` of each client.

    numbers     what the kind needs besides, by name: ``edges/3`` are the edges of column 3
    by_client   every client answers for itself; otherwise a work unit's clients are added up first
    recipe      the columns asked for are the features that this makes (fl/transforms), of the rows that it keeps of a
                training part; empty: the columns as they are
    """

    kind: str
    columns: tuple[int, ...]
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    part: str = "all"
    by_client: bool = False
    recipe: str = ""
    round: int = 1

    def __post_init__(self) -> None:
        if self.kind not in QUERIES:
            raise BadInput(key="query", got=self.kind, allowed=", ".join(QUERIES))
        if self.part not in PARTS:
            raise BadInput(key="query.part", got=self.part, allowed=", ".join(PARTS))
        if not self.columns or min(self.columns) < 0 or len(set(self.columns)) < len(self.columns):
            raise BadInput(key="query.columns", got=self.columns, allowed="numbers of columns from 0, each once")
        if sum(map(len, self.numbers.values())) > MAX_NUMBERS:
            raise BadInput(key="query.numbers", got="too many", allowed=f"at most {MAX_NUMBERS}")
        if not all(_is_number(value) for values in self.numbers.values() for value in values):
            raise BadInput(key="query.numbers", got="a NaN or an infinity", allowed="finite numbers")


@dataclass(frozen=True)
class QueryReport:
    """Statistics of ``clients`` (ascending) together, over ``num_examples`` examples; 0 for a ``PRIVATE`` question."""

    clients: tuple[int, ...]
    round: int
    num_examples: int
    statistics: Mapping[str, Statistic]


@dataclass(frozen=True)
class Boundary:
    """What may leave a client: arrays like these, and bounded statistics.

    delta      arrays whose names, shapes and dtypes an update's ``delta`` must have: the model's
    extra      the same for the algorithm's extra arrays
    max_norm   an update's Euclidean norm may not be above it; None: MAX_NORM
    unlike     what keeps an update's ``delta`` from being like the declared one, in words
    """

    delta: Parameters
    extra: Parameters = field(default_factory=dict)
    max_norm: float | None = None
    unlike: Callable[[Parameters, Parameters], str | None] = P.mismatch

    def release(self, update: Update) -> Update:
        """Let ``update`` leave, or raise RefusedUpdate naming the client, the array and the reason."""
        refuse = partial(RefusedUpdate, client=update.client)
        limits = {"delta": MAX_NORM if self.max_norm is None else min(self.max_norm, MAX_NORM), "extra": MAX_NORM}
        checks = (("delta", update.delta, self.delta, self.unlike), ("extra", update.extra, self.extra, P.mismatch))
        for what, arrays, like, unlike in checks:
            if why := unlike(arrays, like):
                raise refuse(what=what, why=why)
            norm = update.norm if what == "delta" else P.norm(arrays)
            if not norm <= limits[what]:
                if name := P.not_finite(arrays):
                    raise refuse(what=what, why=f"array {name!r} holds a NaN or an infinity")
                raise refuse(what=what, why=f"norm {norm:.6g} is above {limits[what]:.6g}")
        _check_whole(update.client, "num_examples", update.num_examples, least=1, most=MAX_NUM_EXAMPLES)
        _check_whole(update.client, "base_version", update.base_version, least=0, most=update.round)
        if not _is_number(update.seconds) or update.seconds < 0:
            raise refuse(what="seconds", why=f"{update.seconds!r} is not a number from 0")
        check_statistics(update.client, update.statistics)
        return update


def check_report(report: EvaluationReport) -> EvaluationReport:
    """Let ``report`` leave, or raise RefusedUpdate."""
    _check_whole(report.client, "num_examples", report.num_examples, least=0, most=MAX_NUM_EXAMPLES)
    check_statistics(report.client, report.statistics)
    return report


def check_answer(report: QueryReport, query: Query) -> QueryReport:
    """Let ``report`` leave, or raise RefusedUpdate: only what ``query`` declares may, for its columns."""
    client = report.clients[0]
    _check_whole(client, "num_examples", report.num_examples, least=0, most=MAX_NUM_EXAMPLES)
    check_statistics(client, report.statistics)
    if query.kind in PRIVATE and report.num_examples:
        raise RefusedUpdate(client=client, what="num_examples", why=f"{query.kind} tells none")
    declared = QUERIES[query.kind]
    for name, statistic in report.statistics.items():
        if name != ALL_COLUMNS and name not in {str(column) for column in query.columns}:
            raise RefusedUpdate(client=client, what=name, why="nobody asked for it")
        if type(statistic) is not declared:
            why = f"a {type(statistic).__name__}, where {query.kind} is answered by a {declared.__name__}"
            raise RefusedUpdate(client=client, what=name, why=why)
    return report


def check_statistics(client: int, statistics: Mapping[str, Statistic]) -> None:
    """Raise RefusedUpdate unless these are few, briefly named, known, finite, whole and bounded statistics."""
    if len(statistics) > MAX_STATISTICS:
        raise RefusedUpdate(
            client=client, what="statistics", why=f"{len(statistics)} of them, at most {MAX_STATISTICS}"
        )
    for name, statistic in statistics.items():
        if len(name) > MAX_NAME:
            raise RefusedUpdate(client=client, what="statistics", why=f"a name is longer than {MAX_NAME} letters")
        if not isinstance(statistic, Statistic):
            raise RefusedUpdate(client=client, what=name, why=f"a {type(statistic).__name__} is not a statistic")
        size, sound = _examined(statistic)
        if size > MAX_STATISTIC_VALUES:
            raise RefusedUpdate(client=client, what=name, why=f"{size} numbers, at most {MAX_STATISTIC_VALUES}")
        if not sound:
            raise RefusedUpdate(
                client=client, what=name, why="it has the wrong shape, or holds a NaN, an infinity or what is no count"
            )


def _examined(statistic: Statistic) -> tuple[int, bool]:
    """How many numbers it holds, and whether they are what such a statistic can hold."""
    match statistic:
        case Mean(total, weight):
            return 2, _is_number(total) and _is_number(weight) and weight >= 0
        case Histogram(edges, counts):
            fits = len(edges) == len(counts) + 1
            return len(edges) + len(counts), fits and all(map(_is_number, edges)) and _are_counts(counts)
        case Confusion(table):
            square = all(len(row) == len(table) and _are_counts(row) for row in table)
            return sum(map(len, table)), square
        case Counts(counts):
            return len(counts), _are_counts(counts)
        case Sums(numbers):
            return len(numbers), all(map(_is_number, numbers))
        case Moments(count, missing, whole, mean, m2, low, high):
            sound = all(map(_is_count, (count, missing, whole))) and all(map(_is_number, (mean, m2, low, high)))
            return 7, sound and whole <= count and m2 >= 0 and low <= high
        case CoMoments(counts, mean, m2, cross):
            square = math.isqrt(len(counts)) ** 2 == len(counts) == len(mean) == len(m2) == len(cross)
            sound = _are_counts(counts) and all(map(_is_number, (*mean, *m2, *cross)))
            return 4 * len(counts), square and sound
        case Distinct(registers):
            return len(registers), _are_counts(registers) and max(registers, default=0) <= 64
        case HeavyHitters(numbers, counts, capacity, lost):
            fits = len(numbers) == len(counts) <= capacity and all(map(_is_count, (capacity, lost)))
            return 2 * len(counts), fits and all(map(_is_number, numbers)) and _are_counts(counts)
        case Rows(hashes, capacity):
            return len(hashes), len(hashes) <= capacity and all(_is_whole(h) and 0 <= h < 2**ROW_BITS for h in hashes)


def _check_whole(client: int, what: str, value: object, *, least: int, most: int) -> None:
    if not (_is_whole(value) and least <= value <= most):
        why = f"{value!r} is not a whole number from {least} to {most}"
        raise RefusedUpdate(client=client, what=what, why=why)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_whole(value) and 0 <= int(value) <= MAX_NUM_EXAMPLES


def _are_counts(values: Collection[object]) -> bool:
    """``_is_count`` of all of them; of plain integers, which is what they are, at no call a value."""
    if set(map(type, values)) == {int}:
        return min(values) >= 0 and max(values) <= MAX_NUM_EXAMPLES  # type: ignore[type-var, operator]
    return all(map(_is_count, values))


def _is_number(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return _is_whole(value) and abs(int(value)) <= sys.float_info.max
