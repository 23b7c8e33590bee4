"""Work units among worker processes, whatever these are: who does what next, and what becomes of a process that dies.

A worker is a process that holds private partitions; a Pool starts, calls and ends them (clients/actor.py: Ray actors;
clients/forked.py: processes of this machine). Any worker can take any unit, and an idle one takes the next.

    a worker dies     another takes its place, and its unit is tried out, one client a call, the answers thrown away.
                      A client at whose call a worker dies again is quarantined: for the rest of the run it answers
                      with an error at once. Then the unit runs as a whole: the same bits as if nothing had happened,
                      or as if the cohort had never held that client.
    a worker hangs    at a unit that nobody waits for any more: it is ended, and another takes its place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flwr.app import Error, RecordDict

from clients.grid import Unit
from clients.transport import Segment, forget_mappings
from clients.unit import Reply
from fl.wire import CRASHED

GRACE_SECONDS = 1.0
"""How long a worker may go on with a unit that nobody waits for any more."""

MOST_DEATHS = 4
"""Workers that one unit may cost before its clients are given up, all of them."""


@dataclass(frozen=True)
class Died:
    """In place of an answer: the worker is no more."""

    reason: str


class Pool(Protocol):
    """Starts, calls and ends workers of one kind. ``shares_memory``: a memory file of this process reaches them."""

    shares_memory: bool

    def start(self) -> Any:
        """A new worker, which may still be getting ready: its first call waits for that."""

    def ready(self, workers: list[Any]) -> None:
        """Wait until these can take calls; raises what keeps them from it."""

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
    """An Executor over ``num_workers`` workers of ``pool``."""

    def __init__(self, pool: Pool, *, num_workers: int) -> None:
        self._pool = pool
        self._queue: deque[_Work] = deque()
        self._at: dict[Any, _Work] = {}
        self._done: list[tuple[Unit, list[Reply]]] = []
        self._quarantined: dict[int, str] = {}
        self._payloads: dict[int, _Payload] = {}
        self._free: list[Segment] = []
        self._idle: list[Any] = []
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
            self._done.append((unit, self._errors(unit)))

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        """Answers that have come; a worker that answered takes the next call at once."""
        self._replace_stuck()
        if self._at and not self._done:
            for worker, answer in self._pool.wait(timeout):
                self._take(worker, self._at.pop(worker), answer)
            self._feed()
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

    def close(self) -> None:
        """End the workers, and whatever was started for them."""
        for worker in [*self._idle, *self._at]:
            self._pool.end(worker)
        for segment in [*self._free, *(p.segment for p in self._payloads.values() if p.segment)]:
            segment.close()
        self._idle, self._at, self._payloads, self._free = [], {}, {}, []
        forget_mappings()
        self._pool.close()

    def _feed(self) -> None:
        while self._idle and self._queue:
            worker, work = self._idle.pop(), self._queue.popleft()
            payload = self._payload(work.unit.content)
            payload.open += 1
            self._at[worker] = work
            self._pool.call(worker, work.unit.kind, work.next_clients, payload.sent)

    def _take(self, worker: Any, work: _Work, answer: list[Reply] | Died) -> None:
        self._payloads[id(work.unit.content)].open -= 1
        if isinstance(answer, Died):
            self._pool.end(worker)
            self._idle.append(self._pool.start())
            if work.gone is None:
                self._after_death(work, answer)
            return
        self._idle.append(worker)
        if work.gone is not None:
            return
        if work.trial:  # this one is not to blame
            self._queue.appendleft(replace(work, trial=work.trial[1:]))
        else:
            self._done.append((work.unit, [*answer, *self._errors(work.unit)]))

    def _after_death(self, work: _Work, death: Died) -> None:
        deaths = work.deaths + 1
        clients = work.clients
        if work.trial:
            culprit = work.trial[0]
            self._quarantined[culprit] = f"quarantined: its process died twice ({death.reason})"
            clients = tuple(c for c in clients if c != culprit)
        elif deaths >= MOST_DEATHS:
            for client in clients:
                self._quarantined[client] = f"quarantined: {deaths} processes died at its work unit ({death.reason})"
            clients = ()
        if not clients:
            self._done.append((work.unit, self._errors(work.unit)))
            return
        trial = () if work.trial else clients
        self._queue.appendleft(_Work(work.unit, clients, deaths=deaths, trial=trial))

    def _replace_stuck(self) -> None:
        late = time.monotonic() - GRACE_SECONDS
        for worker in [w for w, work in self._at.items() if work.gone is not None and work.gone <= late]:
            work = self._at.pop(worker)
            self._payloads[id(work.unit.content)].open -= 1
            self._pool.end(worker)
            self._idle.append(self._pool.start())
        self._feed()

    def _errors(self, unit: Unit) -> list[Reply]:
        known = [(c, self._quarantined[c]) for c in unit.clients if c in self._quarantined]
        return [Reply((c,), error=Error(code=CRASHED, reason=f"client {c}: {why}")) for c, why in known]

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
