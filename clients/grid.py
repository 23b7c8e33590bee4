"""Flower's Grid over simulated clients: messages in, work units out, replies in the order of the messages.

Messages that carry one payload and go to several clients are cut into work units: clients sorted by id, ``unit_size``
at a time. Units depend on the cohort alone, never on how many actors there are or which answers first. An Executor
does them, here (clients/inprocess.py) or in Ray actors (clients/actor.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any, Protocol

from flwr.app import DEFAULT_TTL, Message, RecordDict
from flwr.serverapp import Grid

from clients.flower_internals import Run, begin_run, identify, unavailable
from clients.unit import Reply
from fl.errors import BadInput
from fl.wire import client_of, node_of

TURN_SECONDS = 0.2
"""How long one thread waits for answers before another may look."""


@dataclass(frozen=True)
class Unit:
    """A slice of a cohort: ``clients``, ascending, who all get ``content``. ``number`` counts up over the run."""

    number: int
    kind: str
    clients: tuple[int, ...]
    content: RecordDict


class Executor(Protocol):
    """Does work units somewhere. Answers for one unit come together, once."""

    def submit(self, unit: Unit) -> None:
        """Take a unit; it may start at once or wait its turn."""

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        """Units done since the last call; waits for one, at most ``timeout`` seconds. May come back earlier, empty."""

    def abandon(self, numbers: Iterable[int]) -> None:
        """Nobody waits for these units any more; their answers must not come out of ``collect``."""

    def close(self) -> None:
        """End everything this executor started."""


@dataclass(frozen=True)
class _Ticket:
    """A unit on its way, and its messages by client."""

    unit: Unit
    messages: dict[int, Message]


def cut(clients: Sequence[int], unit_size: int) -> list[tuple[int, ...]]:
    """Work units of a cohort: sorted, then sliced.

    >>> cut([7, 3, 5], 2)
    [(3, 5), (7,)]
    """
    ordered = sorted(clients)
    return [tuple(ordered[i : i + unit_size]) for i in range(0, len(ordered), unit_size)]


class UnitGrid(Grid):
    """A Grid whose nodes are ``num_clients`` simulated clients.

    ``progress``, where set, is called with (clients accounted for, clients asked) as answers come in. Thread-safe, as
    Flower's legacy code asks from several threads.
    """

    def __init__(self, *, run_id: str, num_clients: int, unit_size: int, executor: Executor) -> None:
        if unit_size < 1:
            raise BadInput(key="engine.unit_size", got=unit_size, allowed="at least 1")
        self.num_clients, self.unit_size, self.executor = num_clients, unit_size, executor
        self.progress: Callable[[int, int], None] | None = None
        self._run = begin_run(run_id)
        self._lock = RLock()
        self._tickets: dict[int, _Ticket] = {}
        self._waiting: set[str] = set()
        self._replies: dict[str, Message | None] = {}
        self._submitted = 0

    def set_run(self, run: Run) -> None:
        """Flower's hook; the run is the one this grid was made for."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run as Flower describes one."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """An instruction to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl or DEFAULT_TTL, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, ascending; a range, whatever the size of the population."""
        return range(node_of(0), node_of(self.num_clients))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send instructions and return their ids, in order; does not wait for anything."""
        with self._lock:
            messages = list(messages)
            if len({id(message) for message in messages}) < len(messages):
                raise ValueError("a message can be sent once")
            for message in messages:
                self._check(message)
            ids = [identify(message) for message in messages]
            self._waiting.update(ids)
            for kind, by_client in _groups(messages):
                for clients in cut(list(by_client), self.unit_size):
                    content = by_client[clients[0]].content
                    unit = Unit(self._submitted, kind, clients, content)
                    self._submitted += 1
                    self._tickets[unit.number] = _Ticket(unit, {c: by_client[c] for c in clients})
                    self.executor.submit(unit)
            return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that are ready, each once. An id that was never given out, or was pulled before, gives an error."""
        with self._lock:
            self._collect(0.0)
            pulled = []
            for message_id in message_ids:
                if message_id in self._replies:
                    reply = self._replies.pop(message_id)
                    if reply is not None:
                        pulled.append(reply)
                elif message_id not in self._waiting:
                    pulled.append(unavailable(message_id, self._run.run_id))
            return pulled

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send and wait. After ``timeout`` seconds what has come is returned, and what comes later never counts."""
        ids = self.push_messages(messages)
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while self._wait(ids, ends):
            time.sleep(0)  # lets other threads in
        with self._lock:
            replies = [self._replies.pop(i) for i in ids if i in self._replies]
        return [reply for reply in replies if reply is not None]

    def _wait(self, ids: Sequence[str], ends: float) -> bool:
        """Collect once, for a moment; False when nothing is open any more, or the time is over."""
        with self._lock:
            if self._waiting.isdisjoint(ids):  # another thread has collected what this one waits for
                return False
            left = ends - time.monotonic()
            if left <= 0:
                self._abandon(self._waiting.intersection(ids))
                return False
            self._collect(min(left, TURN_SECONDS))
            open_ids = sum(i in self._waiting for i in ids)
            if self.progress:
                self.progress(len(ids) - open_ids, len(ids))
            return open_ids > 0

    def _check(self, message: Message) -> None:
        metadata = message.metadata
        if not 0 <= client_of(metadata.dst_node_id) < self.num_clients:
            raise ValueError(f"there is no node {metadata.dst_node_id}: nodes are {self.get_node_ids()}")
        if metadata.reply_to_message_id or metadata.ttl <= 0 or message.has_error():
            raise ValueError("only instructions with content and time to live can be sent to a node")

    def _collect(self, timeout: float) -> None:
        for unit, replies in self.executor.collect(timeout):
            ticket = self._tickets.pop(unit.number)
            for reply in replies:
                first = ticket.messages[reply.clients[0]]
                self._replies[first.metadata.message_id] = _message(reply, first)
            for message in ticket.messages.values():
                self._replies.setdefault(message.metadata.message_id, None)
                self._waiting.discard(message.metadata.message_id)

    def _abandon(self, ids: set[str]) -> None:
        if not ids:
            return
        late = [t for t in self._tickets.values() if any(m.metadata.message_id in ids for m in t.messages.values())]
        self.executor.abandon([ticket.unit.number for ticket in late])
        for ticket in late:
            del self._tickets[ticket.unit.number]
        self._waiting -= ids


def _groups(messages: Sequence[Message]) -> list[tuple[str, dict[int, Message]]]:
    """Messages that may share work units: of one kind, with one payload, at most one to a client."""
    groups: dict[tuple[str, int], list[dict[int, Message]]] = {}
    for message in messages:
        client = client_of(message.metadata.dst_node_id)
        alike = groups.setdefault((message.metadata.message_type, id(message.content)), [])
        for group in alike:
            if client not in group:
                group[client] = message
                break
        else:
            alike.append({client: message})
    return [(kind, group) for (kind, _), alike in groups.items() for group in alike]


def _message(reply: Reply, to: Message) -> Message:
    answer: Any = reply.content if reply.error is None else reply.error
    message = Message(answer, reply_to=to)
    identify(message)
    return message
