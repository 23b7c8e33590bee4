"""Policies decide from evidence alone: the tables."""

import pytest

from fl.decisions import Action
from server.policies import AvailableGrid, closes_after, may_commit, may_go_on, never_closes

COMMIT = [
    # asked, answered, quorum, attempt, retries -> action
    (10, 10, 0.5, 0, 2, Action.GO_ON),
    (10, 5, 0.5, 0, 2, Action.GO_ON),
    (10, 4, 0.5, 0, 2, Action.RETRY),
    (10, 4, 0.5, 1, 2, Action.RETRY),
    (10, 4, 0.5, 2, 2, Action.STOP),
    (10, 0, 0.0, 0, 0, Action.STOP),
    (10, 1, 0.0, 0, 0, Action.GO_ON),
    (3, 2, 1.0, 0, 0, Action.STOP),
    (0, 0, 0.5, 0, 1, Action.RETRY),
]


@pytest.mark.parametrize("asked, answered, quorum, attempt, retries, action", COMMIT)
def test_a_round_counts_where_enough_answered(
    asked: int, answered: int, quorum: float, attempt: int, retries: int, action: Action
) -> None:
    decision = may_commit(asked=asked, answered=answered, quorum=quorum, attempt=attempt, retries=retries)
    assert decision.action is action
    assert f"{answered} of {asked} answered" in decision.reason


STOPPING = [
    # history, patience, min_delta, higher is better -> action
    ([], 2, 0.0, True, Action.GO_ON),
    ([0.5, 0.5], 2, 0.0, True, Action.GO_ON),
    ([0.5, 0.5, 0.5], 2, 0.0, True, Action.STOP),
    ([0.5, 0.4, 0.6], 2, 0.0, True, Action.GO_ON),
    ([0.5, 0.6, 0.55, 0.6], 2, 0.0, True, Action.STOP),
    ([0.5, 0.52, 0.53], 2, 0.1, True, Action.STOP),
    ([1.0, 0.9, 0.8], 2, 0.0, False, Action.GO_ON),
    ([1.0, 1.1, 1.2], 2, 0.0, False, Action.STOP),
    ([1.0, 0.95, 0.94], 2, 0.1, False, Action.STOP),
]


@pytest.mark.parametrize("history, patience, min_delta, higher, action", STOPPING)
def test_a_run_ends_after_patience_without_gain(
    history: list[float], patience: int, min_delta: float, higher: bool, action: Action
) -> None:
    decision = may_go_on(history, patience=patience, min_delta=min_delta, higher_is_better=higher)
    assert decision.action is action


def test_deadlines() -> None:
    assert closes_after(None) is never_closes and never_closes(3) is None
    assert closes_after(2.5)(7) == 2.5


def test_a_grid_may_list_fewer_nodes_and_is_otherwise_the_same() -> None:
    class Inner:
        run = "the run"

        def get_node_ids(self) -> list[int]:
            return [2, 3, 4]

        def send_and_receive(self, messages: list[str], *, timeout: float | None) -> list[str]:
            return [f"{message} within {timeout}" for message in messages]

    grid = AvailableGrid(Inner(), [2, 4])  # type: ignore[arg-type]
    assert list(grid.get_node_ids()) == [2, 4] and grid.run == "the run"
    assert grid.send_and_receive(["hello"], timeout=3) == ["hello within 3"]  # type: ignore[list-item]
