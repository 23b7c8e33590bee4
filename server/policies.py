"""Who is available, who is asked, and when a round closes: handed to the round loop as functions.

Devices with batteries and time zones, asynchronous training and a virtual clock come in here, without the loop
knowing. Stock Flower strategies sample from the grid themselves, so availability reaches them as a grid that lists
fewer nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl import cohorts
from fl.cohorts import Available, Choose
from fl.decisions import Action, Decision
from fl.wire import node_of


def never_closes(round: int) -> float | None:
    """No deadline: a round closes when everyone has answered."""
    return None


def closes_after(seconds: float | None) -> Callable[[int], float | None]:
    """A deadline of so many seconds for every round."""
    return never_closes if seconds is None else lambda round: seconds


def all_but(clients: Collection[int]) -> Available:
    """Everybody that there is, but simulated ``clients``. A real SuperNode is not known by its handle: the device
    itself then says that it is held out.
    """
    away = frozenset(map(node_of, clients))
    return (lambda round, nodes: [node for node in nodes if node not in away]) if away else cohorts.everyone


@dataclass(frozen=True)
class Policies:
    """The policies of a run.

    available   (round, nodes) -> the nodes that could be asked;  choose  (round, nodes, size, seed) -> the cohort
    deadline    round -> seconds from its first message until it closes; None: when all have answered
    """

    available: Available = cohorts.everyone
    choose: Choose = cohorts.uniform
    deadline: Callable[[int], float | None] = never_closes


def policies_of(settings: Mapping[str, Any], *, unseen: Collection[int]) -> Policies:
    """The policies that the settings of a run ask for; ``unseen`` clients are never available for training."""
    deadline = closes_after(settings["server"].get("deadline_seconds"))
    return Policies(available=all_but(unseen), deadline=deadline)


def may_commit(*, asked: int, answered: int, quorum: float, attempt: int, retries: int) -> Decision:
    """Whether a round with so many answers becomes a version, is tried again with a fresh cohort, or ends the run."""
    if answered and answered >= quorum * asked:
        return Decision(Action.GO_ON, f"{answered} of {asked} answered")
    why = f"{answered} of {asked} answered, the quorum is {quorum:.0%}"
    return Decision(Action.RETRY if attempt < retries else Action.STOP, why)


def may_go_on(history: Sequence[float], *, patience: int, min_delta: float, higher_is_better: bool) -> Decision:
    """Early stopping: whether the last ``patience`` values brought nothing better, by ``min_delta``, than before them.

    ``history`` holds one value for each evaluated round, in order.
    """
    sign = 1.0 if higher_is_better else -1.0
    signed = [sign * value for value in history]
    if len(signed) <= patience:
        return Decision(Action.GO_ON, "not enough evaluations yet")
    before, recent = max(signed[:-patience]), max(signed[-patience:])
    if recent > before + min_delta:
        return Decision(Action.GO_ON, "still improving")
    return Decision(Action.STOP, f"no better than {sign * before:.6g} for {patience} evaluations")


class AvailableGrid(Grid):
    """A grid that lists only ``nodes``; everything else is the inner grid's."""

    def __init__(self, inner: Grid, nodes: Sequence[int]) -> None:
        self.inner, self.nodes = inner, nodes

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are available this round."""
        return self.nodes

    def set_run(self, run: Any) -> None:
        """As the inner grid."""
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        """As the inner grid."""
        return self.inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """As the inner grid."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the inner grid."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the inner grid."""
        return self.inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As the inner grid."""
        return self.inner.send_and_receive(messages, timeout=timeout)
