"""Work units among worker processes, whatever these are: who does what next, and what becomes of a process that dies.

A worker is a process that holds private partitions; a Pool starts, calls and ends them (clients/actor.py: Ray actors;
clients/forked.py: processes of this machine). Any worker can take any unit, and an idle one takes the next.

    a worker dies     another takes its place, and its unit is tried out, one client a call, the answers thrown away.
                      A client at whose call a worker dies again is quarantined: for the rest of the run it answers
                      with an error at once, also after a resume. Then the unit runs as a whole: the same bits as if
                      nothing had happened, or as if the cohort had never held that client.
    a worker hangs    at a unit that nobody waits for any more: it is ended, and another takes its place. The unit's
                      clients are suspects until they answer: they go last, whoever hung longest ago first, and where
                      it takes time to replace a worker never to the only one that is free, so that they make nobody
                      else late.

A worker that takes another's place is given work once it is ready; the others go on meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flwr.app import RecordDict

from clients.grid import Unit
from clients.transport import Segment, forget_mappings
from clients.unit import Reply, turned_away

LOOK_SECONDS = 0.05
"""Between two looks at whether a worker has become ready."""

MOST_DEATHS = 4
"""Workers that one unit may cost before its clients are given up, all of them."""


@dataclass(frozen=True)
class Died:
    """In place of an answer: the worker is no more."""

    reason: str


class Pool(Protocol):
    """Starts, calls and ends workers of one kind.

    shares_memory   a memory file of this process reaches them
    grace_seconds   how long a worker may go on with a unit that nobody waits for any more: less than it takes to
                    start another; 0 where that takes no time
    """

    shares_memory: bool
    grace_seconds: float

    def start(self) -> Any:
        """A new worker, which may still be getting ready: a call would wait for that."""

    def ready(self, workers: list[Any]) -> None:
        """Wait until these can take calls; raises what keeps them from it."""

    def is_ready(self, worker: Any) -> bool:
        """Whether a call would be begun at once, or fail at once."""

    def put(self, content: RecordDict) -> Any:
        """What to send in place of ``content``, where memory is not shared."""

    def call(self, worker: Any, kind: str, clients: tuple[int, ...], content: Any) -> None:
        """Give a worker something to do; it must have answered the call before."""

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """Workers that have answered, or died, since the last call; waits for one, at most ``timeout`` seconds."""

    def end(self, worker: Any) -> None:
        """End a worker at once, whatever it is doing."""

    def close(self) -> None:
        """End everything that this pool started."""


@dataclass
class _Payload:
    """What a phase's units are sent: held until the last of them has answered and another phase has begun."""

    content: RecordDict
    sent: Any
    segment: Segment | None
    open: int = 0


@dataclass
class _Work:
    """A call to be made: ``clients`` of ``unit``, or as a trial the first of them. ``gone``: when it was abandoned."""

    unit: Unit
    clients: tuple[int, ...]
    deaths: int = 0
    trial: tuple[int, ...] = ()
    gone: float | None = None

    @property
    def next_clients(self) -> tuple[int, ...]:
        """Whom the call is about."""
        return self.trial[:1] or self.clients


class Dispatcher:
    """An Executor over ``num_workers`` workers of ``pool``. ``quarantined``: clients that are so already, and why."""

    def __init__(self, pool: Pool, *, num_workers: int, quarantined: Mapping[int, str] | None = None) -> None:
        self._pool = pool
        self._queue: deque[_Work] = deque()
        self._at: dict[Any, _Work] = {}
        self._done: list[tuple[Unit, list[Reply]]] = []
        self._quarantined = dict(quarantined or {})
        self._suspects: dict[int, None] = {}  # in the order in which they hung
        self._payloads: dict[int, _Payload] = {}
        self._free: list[Segment] = []
        self._idle: list[Any] = []
        self._starting: list[Any] = []
        self._alone = num_workers == 1
        try:
            self._idle += [pool.start() for _ in range(num_workers)]
            pool.ready(self._idle)
        except BaseException:
            self.close()
            raise

    def submit(self, unit: Unit) -> None:
        """Give the unit to an idle worker, or queue it. Its quarantined clients have answered already."""
        clients = tuple(c for c in unit.clients if c not in self._quarantined)
        if clients:
            self._queue.append(_Work(unit, clients))
            self._feed()
        else:
            self._done.append((unit, turned_away(unit.clients, self._quarantined)))

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        """Answers that have come; a worker that answered takes the next call at once."""
        self._replace_stuck()
        self._admit()
        self._feed()
        if not self._done:
            timeout = min(timeout, LOOK_SECONDS) if self._starting else timeout
            if self._at:
                for worker, answer in self._pool.wait(timeout):
                    self._take(worker, self._at.pop(worker), answer)
                self._feed()
            elif self._starting:
                time.sleep(timeout)
        done, self._done = self._done, []
        return done

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget queued units; workers that are at one may finish it, for nobody, if they are quick."""
        gone, now = set(numbers), time.monotonic()
        self._queue = deque(work for work in self._queue if work.unit.number not in gone)
        self._done = [done for done in self._done if done[0].number not in gone]
        for work in self._at.values():
            if work.unit.number in gone and work.gone is None:
                work.gone = now
                for client in work.next_clients:
                    self._suspects.pop(client, None)
                    self._suspects[client] = None

    def close(self) -> None:
        """End the workers, and whatever was started for them."""
        for worker in [*self._idle, *self._starting, *self._at]:
            self._pool.end(worker)
        for segment in [*self._free, *(p.segment for p in self._payloads.values() if p.segment)]:
            segment.close()
        self._idle, self._starting, self._at, self._payloads, self._free = [], [], {}, {}, []
        forget_mappings()
        self._pool.close()

    def _feed(self) -> None:
        while self._idle and (work := self._next()):
            worker = self._idle.pop()
            payload = self._payload(work.unit.content)
            payload.open += 1
            self._at[worker] = work
            self._pool.call(worker, work.unit.kind, work.next_clients, payload.sent)

    def _next(self) -> _Work | None:
        """Out of the queue: what is due, suspects last. None: what is left would take the only worker that is free."""
        due = next((work for work in self._queue if not self._is_suspect(work)), None)
        if due is None and self._queue:
            others = len(self._idle) - 1 + sum(not self._is_suspect(work) for work in self._at.values())
            if others or self._alone or not self._pool.grace_seconds:
                order = {client: place for place, client in enumerate(self._suspects)}
                due = min(self._queue, key=lambda work: min(order[c] for c in work.next_clients if c in order))
        if due is not None:
            self._queue.remove(due)
        return due

    def _is_suspect(self, work: _Work) -> bool:
        return any(client in self._suspects for client in work.next_clients)

    def _take(self, worker: Any, work: _Work, answer: list[Reply] | Died) -> None:
        self._payloads[id(work.unit.content)].open -= 1
        if isinstance(answer, Died):
            self._replace(worker)
            if work.gone is None:
                self._after_death(work, answer)
            return
        self._idle.append(worker)
        if work.gone is not None:
            return
        for client in work.next_clients:
            self._suspects.pop(client, None)
        if work.trial:  # this one is not to blame
            self._queue.appendleft(replace(work, trial=work.trial[1:]))
        else:
            self._done.append((work.unit, [*answer, *turned_away(work.unit.clients, self._quarantined)]))

    def _after_death(self, work: _Work, death: Died) -> None:
        deaths = work.deaths + 1
        clients = work.clients
        if work.trial:
            culprit = work.trial[0]
            self._quarantine(culprit, f"its process died twice ({death.reason})")
            clients = tuple(c for c in clients if c != culprit)
        elif deaths >= MOST_DEATHS:
            for client in clients:
                self._quarantine(client, f"{deaths} processes died at its work unit ({death.reason})")
            clients = ()
        if not clients:
            self._done.append((work.unit, turned_away(work.unit.clients, self._quarantined)))
            return
        trial = () if work.trial else clients
        self._queue.appendleft(_Work(work.unit, clients, deaths=deaths, trial=trial))

    def _replace_stuck(self) -> None:
        late = time.monotonic() - self._pool.grace_seconds
        for worker in [w for w, work in self._at.items() if work.gone is not None and work.gone <= late]:
            work = self._at.pop(worker)
            self._payloads[id(work.unit.content)].open -= 1
            self._replace(worker)

    def _replace(self, worker: Any) -> None:
        self._pool.end(worker)
        self._starting.append(self._pool.start())
        self._admit()

    def _admit(self) -> None:
        """Let those that have become ready take calls."""
        for worker in [w for w in self._starting if self._pool.is_ready(w)]:
            self._starting.remove(worker)
            self._idle.append(worker)

    def _quarantine(self, client: int, why: str) -> None:
        self._quarantined[client] = f"client {client}: quarantined: {why}"

    def _payload(self, content: RecordDict) -> _Payload:
        known = self._payloads.get(id(content))
        if known is None:
            for key in [key for key, payload in self._payloads.items() if not payload.open]:
                segment = self._payloads.pop(key).segment
                if segment is not None:
                    self._free.append(segment)
            if self._pool.shares_memory:
                segment = self._free.pop() if self._free else Segment()
                known = _Payload(content, segment.pack(content), segment)
            else:
                known = _Payload(content, self._pool.put(content), None)
            self._payloads[id(content)] = known
        return known
