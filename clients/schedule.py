"""The learning rate of a round: it changes over rounds, and is one number within a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fl.errors import BadInput

Shape: TypeAlias = Callable[["Schedule", int], float]


@dataclass(frozen=True)
class Schedule:
    """A shape by name, and its numbers.

    constant      1
    exponential   decay ** (r - 1)
    step          decay ** floor((r - 1) / step_rounds)
    cosine        minimum + (1 - minimum) (1 + cos(pi (r - 1) / num_rounds)) / 2

    All are factors of ``client.learning_rate`` in round r = 1 .. num_rounds, never below ``minimum`` (a factor,
    0 to 1). Over the first ``warmup_rounds`` they are multiplied by r / (warmup_rounds + 1).
    """

    name: str = "constant"
    decay: float = 1.0
    step_rounds: int | None = None
    minimum: float = 0.0
    warmup_rounds: int = 0
    num_rounds: int = 1

    def __post_init__(self) -> None:
        if self.name not in SHAPES:
            raise BadInput(key="client.schedule.name", got=self.name, allowed=", ".join(SHAPES))
        if self.name == "step" and not (self.step_rounds and self.step_rounds > 0):
            raise BadInput(key="client.schedule.step_rounds", got=self.step_rounds, allowed="a whole number above 0")
        if not 0 < self.decay <= 1:
            raise BadInput(key="client.schedule.decay", got=self.decay, allowed="above 0, at most 1")
        if not 0 <= self.minimum <= 1:
            raise BadInput(
                key="client.schedule.minimum", got=self.minimum, allowed="0 to 1, a share of the learning rate"
            )

    def factor(self, round: int) -> float:
        """What to multiply the learning rate by in ``round`` (from 1)."""
        warm = min(1.0, round / (self.warmup_rounds + 1))
        return warm * max(self.minimum, SHAPES[self.name](self, round))


def _constant(schedule: Schedule, round: int) -> float:
    return 1.0


def _exponential(schedule: Schedule, round: int) -> float:
    return schedule.decay ** (round - 1)


def _step(schedule: Schedule, round: int) -> float:
    return schedule.decay ** ((round - 1) // (schedule.step_rounds or 1))


def _cosine(schedule: Schedule, round: int) -> float:
    progress = min(1.0, (round - 1) / max(1, schedule.num_rounds))
    return schedule.minimum + (1 - schedule.minimum) * (1 + math.cos(math.pi * progress)) / 2


SHAPES: dict[str, Shape] = {"constant": _constant, "exponential": _exponential, "step": _step, "cosine": _cosine}


def from_values(values: Mapping[str, Any], *, num_rounds: int) -> Schedule:
    """A schedule from its plain values; BadInput names what is wrong."""
    return Schedule(**{**values, "num_rounds": num_rounds})
