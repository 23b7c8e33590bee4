"""Our Grid keeps Flower's promises to apps and strategies, over executors that answer now, later or never."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from clients.flower_internals import begin_run
from clients.grid import Unit, UnitGrid, cut
from clients.unit import Reply
from fl.errors import BadInput
from fl.wire import array_record, arrays_of, client_of, node_of

UNAVAILABLE = 3


class Slow:
    """An Executor of threads: ``seconds(unit)`` after it was submitted a unit is answered, client by client.

    ``most``: units that were under way at once
    """

    def __init__(self, seconds: float = 0.0, answer=None) -> None:
        self.seconds, self.answer = seconds, answer or echo
        self.under_way = self.most = 0
        self.units: list[Unit] = []
        self.abandoned: set[int] = set()
        self._done: deque[tuple[Unit, list[Reply]]] = deque()
        self._news = threading.Condition()

    def submit(self, unit: Unit) -> None:
        self.units.append(unit)
        with self._news:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        wait = self.seconds(unit) if callable(self.seconds) else self.seconds
        timer = threading.Timer(wait, self._finish, [unit])
        timer.daemon = True
        timer.start()

    def _finish(self, unit: Unit) -> None:
        with self._news:
            self.under_way -= 1
            if unit.number not in self.abandoned:
                self._done.append((unit, self.answer(unit)))
                self._news.notify_all()

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        with self._news:
            self._news.wait_for(lambda: self._done, timeout)
            return [self._done.popleft() for _ in range(len(self._done))]

    def abandon(self, numbers: Iterable[int]) -> None:
        self.abandoned |= set(numbers)

    def close(self) -> None:
        """Its threads end by themselves."""


def echo(unit: Unit) -> list[Reply]:
    """Every client says who it is; odd ones fail."""

    def one(client: int) -> Reply:
        if client % 2:
            return Reply((client,), error=Error(code=2, reason=f"client {client} is odd"))
        metrics = MetricRecord({"client": client, "num-examples": client + 1})
        return Reply((client,), content=RecordDict({"arrays": unit.content["arrays"], "metrics": metrics}))

    return [one(client) for client in unit.clients]


def grid_of(executor: Slow, *, num_clients: int = 10, unit_size: int = 3) -> UnitGrid:
    return UnitGrid(run_id="run", num_clients=num_clients, unit_size=unit_size, executor=executor)


def payload() -> RecordDict:
    arrays = array_record({"w": np.arange(3, dtype=np.float32)})
    return RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})


def messages(clients: Sequence[int], content: RecordDict | None = None, kind: str = "train") -> list[Message]:
    shared = content or payload()
    return [Message(shared, node_of(client), kind) for client in clients]


def senders(replies: Iterable[Message]) -> list[int]:
    return [client_of(reply.metadata.src_node_id) for reply in replies]


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(1, 70), st.randoms())
def test_units_are_slices_of_the_sorted_cohort(cohort: set[int], unit_size: int, order) -> None:
    shuffled = list(cohort)
    order.shuffle(shuffled)
    units = cut(shuffled, unit_size)
    assert [client for unit in units for client in unit] == sorted(cohort)
    assert {len(unit) for unit in units[:-1]} <= {unit_size} and 1 <= len(units[-1]) <= unit_size
    assert units == cut(sorted(cohort), unit_size)


def test_a_unit_size_below_one_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"engine\.unit_size: got 0, allowed: at least 1"):
        grid_of(Slow(), unit_size=0)


def test_nodes_are_a_range_however_many_there_are() -> None:
    nodes = grid_of(Slow(), num_clients=10**9).get_node_ids()
    assert isinstance(nodes, range) and len(nodes) == 10**9
    assert 0 not in nodes and 1 not in nodes  # Flower's own


@pytest.mark.parametrize("backwards", [False, True])
def test_replies_come_in_the_order_of_the_messages_whoever_answers_first(backwards: bool) -> None:
    executor = Slow(lambda unit: 0.1 - 0.03 * unit.number if backwards else 0.03 * unit.number)
    replies = grid_of(executor).send_and_receive(messages([8, 0, 4, 2, 6]))
    assert isinstance(replies, list)
    assert senders(replies) == [8, 0, 4, 2, 6]
    assert [unit.clients for unit in executor.units] == [(0, 2, 4), (6, 8)]


def test_a_reply_answers_its_message_and_keeps_its_group() -> None:
    grid = grid_of(Slow())
    sent = [Message(payload(), node_of(4), "train", group_id="round-7")]
    (reply,) = grid.send_and_receive(sent)
    assert reply.metadata.reply_to_message_id == sent[0].metadata.message_id
    assert reply.metadata.message_id not in ("", sent[0].metadata.message_id)
    assert reply.metadata.group_id == "round-7" and reply.metadata.message_type == "train"
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (node_of(4), 1)
    assert reply.metadata.run_id == grid.run.run_id == sent[0].metadata.run_id


def test_a_failure_is_an_error_message_with_its_reason() -> None:
    first, second = grid_of(Slow()).send_and_receive(messages([3, 4]))
    assert first.has_error() and not first.has_content()
    assert (first.error.code, first.error.reason) == (2, "client 3 is odd")
    assert second.has_content()


def test_push_does_not_wait_and_pull_gives_each_reply_once() -> None:
    grid = grid_of(Slow(0.2))
    began = time.monotonic()
    ids = grid.push_messages(messages([2, 4]))
    assert time.monotonic() - began < 0.15
    assert len(set(ids)) == 2 and grid.pull_messages(ids) == []
    time.sleep(0.3)
    assert senders(grid.pull_messages(ids[:1])) == [2]
    assert senders(grid.pull_messages(ids[1:])) == [4]
    again = grid.pull_messages(ids)
    assert [reply.error.code for reply in again] == [UNAVAILABLE] * 2


def test_an_id_nobody_gave_out_is_unavailable() -> None:
    grid = grid_of(Slow())
    (reply,) = grid.pull_messages(["never"])
    assert reply.error.code == UNAVAILABLE and reply.metadata.reply_to_message_id == "never"
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (1, 1)


def test_a_deadline_returns_what_has_come_and_what_comes_later_never_counts() -> None:
    executor = Slow(lambda unit: 0.0 if unit.number == 0 else 0.4)
    grid = grid_of(executor)
    sent = messages([0, 2, 4, 6])
    began = time.monotonic()
    replies = grid.send_and_receive(sent, timeout=0.15)
    assert time.monotonic() - began < 0.35
    assert senders(replies) == [0, 2, 4]
    assert executor.abandoned == {1}
    time.sleep(0.5)
    late = grid.pull_messages([sent[3].metadata.message_id])
    assert [reply.error.code for reply in late] == [UNAVAILABLE]
    executor.seconds = 0.0
    assert senders(grid.send_and_receive(messages([6]))) == [6]


def test_a_deadline_of_nothing_is_an_empty_list() -> None:
    assert grid_of(Slow(5.0)).send_and_receive(messages([0, 2]), timeout=0.05) == []
    assert grid_of(Slow()).send_and_receive([]) == []


@pytest.mark.parametrize("node", [0, 1, node_of(10), 2**60])
def test_a_message_to_a_node_that_is_not_there_is_refused_and_none_of_its_batch_is_sent(node: int) -> None:
    executor = Slow()
    with pytest.raises(ValueError, match=f"there is no node {node}"):
        grid_of(executor).push_messages([*messages([2]), Message(payload(), node, "train")])
    assert executor.units == []


def test_only_instructions_are_sent() -> None:
    grid = grid_of(Slow())
    (instruction,) = messages([2])
    (reply,) = grid.send_and_receive([instruction])
    with pytest.raises(ValueError, match=r"there is no node 1|only instructions"):
        grid.push_messages([reply])
    with pytest.raises(ValueError, match="sent once"):
        grid.push_messages([instruction, instruction])


def test_one_payload_may_cross_twice_to_one_client() -> None:
    executor = Slow()
    replies = grid_of(executor).send_and_receive(messages([2, 4, 2]))
    assert senders(replies) == [2, 4, 2]
    assert [unit.clients for unit in executor.units] == [(2, 4), (2,)]


def test_different_payloads_and_kinds_never_share_a_unit() -> None:
    executor = Slow()
    grid = grid_of(executor)
    grid.send_and_receive([*messages([2, 4]), *messages([6, 8]), *messages([0], kind="evaluate")])
    assert [(unit.kind, unit.clients) for unit in executor.units] == [
        ("train", (2, 4)),
        ("train", (6, 8)),
        ("evaluate", (0,)),
    ]


def test_one_reply_may_stand_for_a_whole_unit() -> None:
    def summed(unit: Unit) -> list[Reply]:
        return [Reply(unit.clients, content=RecordDict({"sum": array_record({})}))]

    grid = grid_of(Slow(answer=summed))
    assert senders(grid.send_and_receive(messages([0, 2, 4, 6]))) == [0, 6]


def test_several_threads_may_ask_at_once_and_each_gets_its_own() -> None:
    slow = Slow(0.2)
    grid = grid_of(slow, num_clients=40)
    got: dict[int, list[int]] = {}

    def ask(thread: int) -> None:
        got[thread] = senders(grid.send_and_receive(messages([2 * thread, 2 * thread + 20])))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: [2 * number, 2 * number + 20] for number in range(8)}
    assert slow.most > 1, "one thread waited for another"


def test_progress_counts_the_clients_accounted_for() -> None:
    grid = grid_of(Slow(lambda unit: 0.05 * unit.number))
    seen: list[tuple[int, int]] = []
    grid.progress = lambda done, of: seen.append((done, of))
    grid.send_and_receive(messages([0, 2, 4, 6]))
    assert seen[-1] == (4, 4) and seen == sorted(seen)


def test_flowers_own_loop_runs_on_it() -> None:
    """FedAvg.start, unmodified: samples nodes, averages by examples, evaluates."""

    def train(unit: Unit) -> list[Reply]:
        if unit.kind == "evaluate":
            content = [RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}) for _ in unit.clients]
            return [Reply((c,), content=one) for c, one in zip(unit.clients, content, strict=True)]
        w = arrays_of(unit.content["arrays"])["w"]
        return [
            Reply(
                (client,),
                content=RecordDict(
                    {
                        "arrays": array_record({"w": w + client}),
                        "metrics": MetricRecord({"num-examples": client + 1, "train_loss": 1.0}),
                    }
                ),
            )
            for client in unit.clients
        ]

    grid = grid_of(Slow(answer=train), num_clients=3)
    start = ArrayRecord({"w": array_record({"w": np.zeros(2, np.float32)})["w"]})
    result = FedAvg(min_train_nodes=3, min_available_nodes=3).start(grid, start, num_rounds=2)
    mean = (0 * 1 + 1 * 2 + 2 * 3) / 6
    np.testing.assert_allclose(result.arrays["w"].numpy(), [2 * mean, 2 * mean], rtol=1e-6)
    assert result.evaluate_metrics_clientapp[2]["loss"] == 0.5


def test_a_run_id_is_a_positive_number_of_flower_by_name() -> None:
    assert begin_run("a").run_id == begin_run("a").run_id != begin_run("b").run_id
    assert 0 < begin_run("a").run_id < 2**63
