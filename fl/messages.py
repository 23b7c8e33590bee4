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
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeGuard

import numpy as np

from fl import parameters as P
from fl.errors import RefusedUpdate
from fl.metrics import Confusion, Histogram, Mean, Statistic
from fl.parameters import Parameters

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


def check_statistics(client: int, statistics: Mapping[str, Statistic]) -> None:
    """Raise RefusedUpdate unless these are few, briefly named, known, finite, whole and bounded statistics."""
    if len(statistics) > MAX_STATISTICS:
        raise RefusedUpdate(
            client=client, what="statistics", why=f"{len(statistics)} of them, at most {MAX_STATISTICS}"
        )
    for name, statistic in statistics.items():
        if len(name) > MAX_NAME:
            raise RefusedUpdate(client=client, what="statistics", why=f"a name is longer than {MAX_NAME} letters")
        match statistic:
            case Mean(total, weight):
                size, sound = 2, _is_number(total) and _is_number(weight) and weight >= 0
            case Histogram(edges, counts):
                size = len(edges) + len(counts)
                sound = len(edges) == len(counts) + 1 and all(map(_is_number, edges)) and all(map(_is_count, counts))
            case Confusion(counts):
                size = sum(len(row) for row in counts)
                sound = all(len(row) == len(counts) and all(map(_is_count, row)) for row in counts)
            case _:
                raise RefusedUpdate(client=client, what=name, why=f"a {type(statistic).__name__} is not a statistic")
        if size > MAX_STATISTIC_VALUES:
            raise RefusedUpdate(client=client, what=name, why=f"{size} numbers, at most {MAX_STATISTIC_VALUES}")
        if not sound:
            raise RefusedUpdate(
                client=client, what=name, why="it has the wrong shape, or holds a NaN, an infinity or what is no count"
            )


def _check_whole(client: int, what: str, value: object, *, least: int, most: int) -> None:
    if not (_is_whole(value) and least <= value <= most):
        why = f"{value!r} is not a whole number from {least} to {most}"
        raise RefusedUpdate(client=client, what=what, why=why)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_whole(value) and 0 <= int(value) <= MAX_NUM_EXAMPLES


def _is_number(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return _is_whole(value) and abs(int(value)) <= sys.float_info.max
