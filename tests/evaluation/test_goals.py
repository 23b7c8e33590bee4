"""Goals and the decision whether they look within reach, in tables."""

import pytest

from fl.decisions import Action
from fl.errors import BadInput
from fl.evaluation.goals import Goal, feasible, goals


@pytest.mark.parametrize(
    "metric, threshold, trivial, value, progress",
    [
        ("accuracy", 0.9, 0.5, 0.95, 1.0),
        ("accuracy", 0.9, 0.5, 0.7, 0.5),
        ("accuracy", 0.9, 0.5, 0.4, -0.25),
        ("accuracy", 0.9, 0.95, 0.8, 0.0),  # what the commonest class has, and a worse model
        ("loss", 0.2, 1.0, 0.1, 1.0),
        ("loss", 0.2, 1.0, 0.6, 0.5),
        ("rmse", 2.0, 10.0, 12.0, -0.25),
        ("r2", 0.5, 0.0, 0.25, 0.5),
    ],
)
def test_progress_is_the_share_of_the_way(metric, threshold, trivial, value, progress):
    assert Goal(metric, threshold).progress(trivial, value) == pytest.approx(progress)


@pytest.mark.parametrize(
    "success, least, obstacles, action, words",
    [
        ({}, 0.5, (), Action.GO_ON, "no success criterion is set"),
        ({"accuracy": 0.9}, 0.5, (), Action.GO_ON, "go: accuracy at least 0.9"),
        ({"accuracy": 0.9}, 0.6, (), Action.STOP, "50% of the way where 60% is asked for"),
        ({"accuracy": 0.9, "loss": 0.1}, 0.5, (), Action.STOP, "loss at most 0.1"),
        ({"accuracy": 0.9}, 0.5, ("it is too large",), Action.STOP, "no-go: it is too large"),
    ],
)
def test_go_or_no_go(success, least, obstacles, action, words):
    decision = feasible(
        goals(success),
        trivial={"accuracy": 0.5, "loss": 0.7},
        baseline={"accuracy": 0.7, "loss": 0.6},
        least_progress=least,
        obstacles=obstacles,
    )
    assert decision.action is action and words in decision.reason


def test_metrics_that_nobody_measures_are_refused():
    with pytest.raises(BadInput, match=r"business.success.acc: got acc, allowed: one of accuracy"):
        goals({"acc": 1})
    with pytest.raises(BadInput, match=r"business.success.r2: got r2, allowed: a metric of this task: accuracy"):
        feasible(goals({"r2": 1}), trivial={}, baseline={"accuracy": 1.0}, least_progress=0)
