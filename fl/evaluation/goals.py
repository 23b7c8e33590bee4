"""Goals: thresholds on named metrics, and whether they look within reach before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl.decisions import Action, Decision
from fl.errors import BadInput

LOWER = ("loss", "perplexity", "mse", "rmse", "mae")
"""Metrics of which less is better."""
HIGHER = ("accuracy", "r2")
METRICS = (*HIGHER, *LOWER)


@dataclass(frozen=True)
class Goal:
    """``metric`` is to be at least ``threshold``, or at most where less is better."""

    metric: str
    threshold: float

    def reached(self, value: float) -> bool:
        """Whether ``value`` is good enough."""
        return value <= self.threshold if self.metric in LOWER else value >= self.threshold

    def progress(self, trivial: float, value: float) -> float:
        """The share of the way from the ``trivial`` value to the threshold that ``value`` has come; below 0: worse.

        1 where the goal is reached, and 0 where it is not although the trivial value reaches it.

        >>> Goal("accuracy", 0.9).progress(0.5, 0.7)
        0.5
        """
        if self.reached(value):
            return 1.0
        if self.reached(trivial):
            return 0.0
        return round((value - trivial) / (self.threshold - trivial), 12)

    def __str__(self) -> str:
        return f"{self.metric} {'at most' if self.metric in LOWER else 'at least'} {self.threshold:g}"


def goals(success: Mapping[str, float]) -> tuple[Goal, ...]:
    """The goals of ``business.success``: metric -> threshold. BadInput for a metric that nothing here measures."""
    for metric in success:
        if metric not in METRICS:
            raise BadInput(key=f"business.success.{metric}", got=metric, allowed=f"one of {', '.join(METRICS)}")
    return tuple(Goal(metric, float(threshold)) for metric, threshold in success.items())


def feasible(
    wanted: tuple[Goal, ...],
    *,
    trivial: Mapping[str, float],
    baseline: Mapping[str, float],
    least_progress: float,
    obstacles: tuple[str, ...] = (),
) -> Decision:
    """Whether the goals look within reach: GO_ON, or STOP with every reason against.

    trivial          metrics of an answer that looks at no input: the commonest class, the mean
    baseline         metrics of a quick model
    least_progress   share (0 to 1) of the way from the one to the goal that the other must have come
    obstacles        reasons against that are no metric: a constraint that cannot be held

    Raises BadInput for a goal on a metric that was not measured.
    """
    against, told = list(obstacles), []
    for goal in wanted:
        if goal.metric not in baseline:
            allowed = f"a metric of this task: {', '.join(sorted(baseline))}"
            raise BadInput(key=f"business.success.{goal.metric}", got=goal.metric, allowed=allowed)
        come = goal.progress(trivial[goal.metric], baseline[goal.metric])
        words = (
            f"{goal}: a quick baseline has {baseline[goal.metric]:.4g}, an answer without looking "
            f"{trivial[goal.metric]:.4g}, {max(come, 0):.0%} of the way"
        )
        told.append(words)
        if come < least_progress:
            against.append(f"{words} where {least_progress:.0%} is asked for")
    if against:
        return Decision(Action.STOP, f"no-go: {'; '.join(against)}")
    return Decision(Action.GO_ON, f"go: {'; '.join(told) or 'no success criterion is set'}")
