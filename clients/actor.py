"""Ray actors that hold private partitions; examples never leave them.

Each actor opens the partition store itself: on one machine all map the same pages, so any actor can take any unit and
an idle one takes the next. The payload of a round is written once, to shared memory where all actors are on this
machine, else to Ray's object store; sums come back the same way. An actor that dies is replaced and its unit runs
again, identically; a unit that takes its second actor down is given up, and its clients named.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from flwr.app import Error, RecordDict
from ray.exceptions import RayActorError, RayError

from clients import transport
from clients.grid import Unit
from clients.setting import open_setting
from clients.transport import Packed, Segment
from clients.unit import Reply, answer
from fl.wire import CRASHED

MAX_ATTEMPTS = 2


class ClientActor:
    """One process of the devices' side."""

    def __init__(self, values: Mapping[str, Any], partitions: str, states: str, shares_memory: bool) -> None:
        self.setting = open_setting(values, partitions=Path(partitions), states=Path(states))
        self.results = Segment() if shares_memory else None

    def ready(self) -> int:
        """This actor's process id, once it can take units."""
        return os.getpid()

    def answer(self, kind: str, clients: tuple[int, ...], content: RecordDict | Packed) -> list[Reply] | Packed:
        """Do one work unit. The driver reads the answer before it calls again, so that one segment is enough."""
        given: RecordDict = content.load(copy=False) if isinstance(content, Packed) else content
        replies = answer(self.setting, kind, given, clients)
        return replies if self.results is None else self.results.pack(replies)


REMOTE = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(ClientActor)


@dataclass
class _Payload:
    """What a phase's units are sent: held until the last of them has answered and another phase has begun."""

    content: RecordDict
    sent: Any
    segment: Segment | None
    open: int = 0


class RayActors:
    """An Executor over ``num_actors`` Ray actors. Starts Ray where it is not running, and ends what it started.

    ``address`` names a running cluster ("auto", or host:port); None starts Ray on this machine for this run alone.
    """

    def __init__(
        self, *, num_actors: int, values: Mapping[str, Any], partitions: Path, states: Path, address: str | None = None
    ) -> None:
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            start_ray(num_actors, address)
        self._shares_memory = transport.available() and len(ray.nodes()) == 1  # type: ignore[no-untyped-call]
        self._arguments = (dict(values), str(partitions.resolve()), str(states.resolve()), self._shares_memory)
        self._queue: deque[Unit] = deque()
        self._attempts: dict[int, int] = {}
        self._gone: set[int] = set()
        self._calls: dict[Any, tuple[Any, Unit]] = {}
        self._payloads: dict[int, _Payload] = {}
        self._free: list[Segment] = []
        self._idle: list[Any] = []
        try:
            self._idle += [self._new_actor() for _ in range(num_actors)]
            ray.get([actor.ready.remote() for actor in self._idle])
        except BaseException:
            self.close()
            raise

    def submit(self, unit: Unit) -> None:
        """Give the unit to an idle actor, or queue it."""
        self._queue.append(unit)
        self._feed()

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        """Answers that have come; an actor that answered takes the next unit at once."""
        if not self._calls:
            return []
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        done = [answer for reference in ready for answer in self._finish(reference)]
        self._feed()
        return done

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget queued units; actors that are at one finish it for nobody."""
        gone = set(numbers)
        self._queue = deque(unit for unit in self._queue if unit.number not in gone)
        self._gone |= {unit.number for _, unit in self._calls.values()} & gone

    def close(self) -> None:
        """End the actors, and Ray if this object started it."""
        for actor in [*self._idle, *(actor for actor, _ in self._calls.values())]:
            ray.kill(actor)
        for segment in [*self._free, *(p.segment for p in self._payloads.values() if p.segment)]:
            segment.close()
        self._idle, self._calls, self._payloads, self._free = [], {}, {}, []
        if self._owns_ray:
            ray.shutdown()

    def _new_actor(self) -> Any:
        return REMOTE.remote(*self._arguments)

    def _feed(self) -> None:
        while self._idle and self._queue:
            actor, unit = self._idle.pop(), self._queue.popleft()
            payload = self._payload(unit.content)
            payload.open += 1
            self._calls[actor.answer.remote(unit.kind, unit.clients, payload.sent)] = (actor, unit)

    def _payload(self, content: RecordDict) -> _Payload:
        known = self._payloads.get(id(content))
        if known is None:
            for key in [key for key, payload in self._payloads.items() if not payload.open]:
                segment = self._payloads.pop(key).segment
                if segment is not None:
                    self._free.append(segment)
            if self._shares_memory:
                segment = self._free.pop() if self._free else Segment()
                known = _Payload(content, segment.pack(content), segment)
            else:
                known = _Payload(content, ray.put(content), None)
            self._payloads[id(content)] = known
        return known

    def _finish(self, reference: Any) -> list[tuple[Unit, list[Reply]]]:
        actor, unit = self._calls.pop(reference)
        self._payloads[id(unit.content)].open -= 1
        try:
            result = ray.get(reference)
            replies = result.load(copy=True) if isinstance(result, Packed) else result
        except (RayActorError, FileNotFoundError) as error:  # the file: it died between its answer and our look
            actor = self._new_actor()
            self._attempts[unit.number] = self._attempts.get(unit.number, 0) + 1
            if self._attempts[unit.number] < MAX_ATTEMPTS and unit.number not in self._gone:
                self._idle.append(actor)
                self._queue.appendleft(unit)
                return []
            replies = _lost(unit, f"its process died: {type(error).__name__}")
        except RayError as error:
            replies = _lost(unit, f"{type(error).__name__}: {error}"[:300])
        self._idle.append(actor)
        self._attempts.pop(unit.number, None)
        if unit.number in self._gone:
            self._gone.discard(unit.number)
            return []
        return [(unit, replies)]


def _lost(unit: Unit, reason: str) -> list[Reply]:
    return [Reply((client,), error=Error(code=CRASHED, reason=f"client {client}: {reason}")) for client in unit.clients]


def start_ray(num_cpus: int, address: str | None) -> None:
    """Start or join Ray, quietly: no dashboard, no usage report, no log lines of workers on the terminal.

    Who handles SIGTERM stays as it was; Ray would exit at once.
    """
    terminate = signal.getsignal(signal.SIGTERM)
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if address is None:
        ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
