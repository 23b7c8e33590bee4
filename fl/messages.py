"""What crosses the privacy boundary, and nothing else.

    server -> client     TrainTask, EvaluateTask: the newest global model and what the algorithm shares
    client -> server     Update: a difference of parameters, declared extra arrays, merged statistics
                         EvaluationReport: merged statistics

Each record is frozen and checked where it is made: a client that would send anything else than the ``Boundary``
declares gets a RefusedUpdate that names it and the array, before the record can reach a sum. Times are measurements:
they stay outside every compared hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl import parameters as P
from fl.errors import RefusedUpdate
from fl.metrics import Confusion, Histogram, Mean, Statistic
from fl.parameters import Parameters

MAX_STATISTICS = 32
"""How many statistics one record may carry."""

MAX_STATISTIC_VALUES = 16_384
"""How many numbers one statistic may hold: a confusion matrix of 128 classes fits, a partition does not."""

MAX_NUM_EXAMPLES = 2**40
"""A weight above this is taken for garbage."""


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


@dataclass(frozen=True)
class EvaluateTask:
    """Measure ``parameters``, version ``version``, on a client's own test part after ``round``.

    ``personal`` says whether this is a use of the device too, whose own model is then brought up to date and measured.
    """

    round: int
    version: int
    parameters: Parameters
    personal: bool = True


@dataclass(frozen=True)
class Update:
    """What a client sends back: ``delta`` is local minus global.

    num_examples    the weight of the update: examples trained on, above 0
    base_version    the version that ``delta`` is the difference to; older than the task's where a device was behind
    extra           arrays that the algorithm declares (SCAFFOLD's difference of c_i)
    statistics      merged over the client's own examples; at least "loss"
    seconds         how long training took on this machine
    """

    client: int
    round: int
    base_version: int
    delta: Parameters
    num_examples: int
    extra: Parameters = field(default_factory=dict)
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class EvaluationReport:
    """Statistics of one client's own test part. ``num_examples`` may be 0 where the part is empty."""

    client: int
    round: int
    num_examples: int
    statistics: Mapping[str, Statistic]


@dataclass(frozen=True)
class Boundary:
    """What may leave a client: arrays like these, and bounded statistics.

    delta      arrays whose names, shapes and dtypes an update's ``delta`` must have: the model's
    extra      the same for the algorithm's extra arrays
    max_norm   an update's Euclidean norm may not be above it; None: any finite norm
    """

    delta: Parameters
    extra: Parameters = field(default_factory=dict)
    max_norm: float | None = None

    def release(self, update: Update) -> Update:
        """Let ``update`` leave, or raise RefusedUpdate naming the client, the array and the reason."""
        for what, arrays, like in (("delta", update.delta, self.delta), ("extra", update.extra, self.extra)):
            if why := P.mismatch(arrays, like):
                raise RefusedUpdate(client=update.client, what=what, why=why)
            if name := P.not_finite(arrays):
                raise RefusedUpdate(client=update.client, what=what, why=f"array {name!r} holds a NaN or an infinity")
        weight = update.num_examples
        if not _is_integer(weight) or not 0 < weight <= MAX_NUM_EXAMPLES:
            raise RefusedUpdate(
                client=update.client, what="num_examples", why=f"{weight!r} is not a whole number from 1 to 2^40"
            )
        if self.max_norm is not None and (norm := P.norm(update.delta)) > self.max_norm:
            raise RefusedUpdate(client=update.client, what="delta", why=f"norm {norm:.6g} is above {self.max_norm:.6g}")
        check_statistics(update.client, update.statistics)
        return update


def check_report(report: EvaluationReport) -> EvaluationReport:
    """Let ``report`` leave, or raise RefusedUpdate."""
    if not _is_integer(report.num_examples) or not 0 <= report.num_examples <= MAX_NUM_EXAMPLES:
        why = f"{report.num_examples!r} is not a whole number from 0 to 2^40"
        raise RefusedUpdate(client=report.client, what="num_examples", why=why)
    check_statistics(report.client, report.statistics)
    return report


def check_statistics(client: int, statistics: Mapping[str, Statistic]) -> None:
    """Raise RefusedUpdate unless these are few, known, finite and bounded statistics."""
    if len(statistics) > MAX_STATISTICS:
        raise RefusedUpdate(
            client=client, what="statistics", why=f"{len(statistics)} of them, at most {MAX_STATISTICS}"
        )
    for name, statistic in statistics.items():
        match statistic:
            case Mean(total, weight):
                size, sound = 2, math.isfinite(total) and math.isfinite(weight) and weight >= 0
            case Histogram(edges, counts):
                size, sound = len(edges) + len(counts), all(math.isfinite(e) for e in edges) and _counts(counts)
            case Confusion(counts):
                size, sound = sum(len(row) for row in counts), all(_counts(row) for row in counts)
            case _:
                raise RefusedUpdate(client=client, what=name, why=f"a {type(statistic).__name__} is not a statistic")
        if size > MAX_STATISTIC_VALUES:
            raise RefusedUpdate(client=client, what=name, why=f"{size} numbers, at most {MAX_STATISTIC_VALUES}")
        if not sound:
            raise RefusedUpdate(client=client, what=name, why="it holds a NaN, an infinity or a negative count")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _counts(values: tuple[int, ...]) -> bool:
    return all(_is_integer(v) and v >= 0 for v in values)
