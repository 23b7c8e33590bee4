"""Ray actors that hold private partitions; examples never leave them.

Each actor opens the partition store itself: on one machine all map the same pages. What a round sends is written once,
to shared memory where all actors are on this machine, else to Ray's object store; sums come back the same way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from flwr.app import RecordDict
from ray.exceptions import RayActorError, RayError, RayTaskError

from clients import transport
from clients.dispatch import Died
from clients.ray_session import start_ray, stop_ray
from clients.setting import Setting, open_setting
from clients.transport import Packed, Segment
from clients.unit import Reply, answer
from fl.errors import CorruptFile, StorageFailed


class ClientActor:
    """One process of the devices' side."""

    def __init__(self, values: Mapping[str, Any], partitions: str, states: str, shares_memory: bool) -> None:
        self._settings = values, Path(partitions), Path(states)
        self.results = Segment() if shares_memory else None

    @cached_property
    def setting(self) -> Setting:
        """Opened by a call, which can say what is wrong; an actor that cannot be made says it to nobody."""
        values, partitions, states = self._settings
        return open_setting(values, partitions=partitions, states=states)

    def ready(self) -> int:
        """This actor's process id, once it can take units. Raises CorruptFile where the partitions are damaged."""
        self.setting.store  # noqa: B018
        return os.getpid()

    def answer(self, kind: str, clients: tuple[int, ...], content: RecordDict | Packed) -> list[Reply] | Packed:
        """Do one work unit. The driver reads the answer before it calls again, so that one segment is enough."""
        self.setting.store  # noqa: B018  before any client's task, which it would be taken for a fault of
        given: RecordDict = content.load(copy=False) if isinstance(content, Packed) else content
        replies = answer(self.setting, kind, given, clients)
        return replies if self.results is None else self.results.pack(replies)


REMOTE = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(ClientActor)


class RayPool:
    """A Pool of Ray actors. Starts Ray for ``num_actors`` of them where it is not running, and ends what it started.

    ``address`` names a running cluster ("auto", or host:port); None starts Ray on this machine for this run alone.
    """

    grace_seconds = 1.0

    def __init__(
        self, *, num_actors: int, values: Mapping[str, Any], partitions: Path, states: Path, address: str | None = None
    ) -> None:
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            start_ray(num_actors, address)
        self.shares_memory = transport.available() and len(ray.nodes()) == 1  # type: ignore[no-untyped-call]
        self._arguments = (dict(values), str(partitions.resolve()), str(states.resolve()), self.shares_memory)
        self._calls: dict[Any, Any] = {}
        self._starting: dict[Any, Any] = {}

    def start(self) -> Any:
        """A new actor."""
        actor = REMOTE.remote(*self._arguments)
        self._starting[actor] = actor.ready.remote()  # type: ignore[attr-defined]
        return actor

    def ready(self, workers: list[Any]) -> None:
        """Wait for them."""
        try:
            ray.get([self._starting.pop(actor) for actor in workers])
        except RayTaskError as error:
            if isinstance(error.cause, CorruptFile):
                raise error.cause from error
            raise

    def is_ready(self, worker: Any) -> bool:
        """Whether its process is there, or will never be."""
        if worker in self._starting and ray.wait([self._starting[worker]], timeout=0)[0]:
            del self._starting[worker]
        return worker not in self._starting

    def put(self, content: RecordDict) -> Any:
        """A reference in Ray's object store."""
        return ray.put(content)

    def call(self, worker: Any, kind: str, clients: tuple[int, ...], content: Any) -> None:
        """One remote call."""
        self._calls[worker.answer.remote(kind, clients, content)] = worker

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """By Ray's own wait."""
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        return [(self._calls.pop(reference), _result(reference)) for reference in ready]

    def end(self, worker: Any) -> None:
        """Kill the actor."""
        self._calls = {reference: w for reference, w in self._calls.items() if w is not worker}
        self._starting.pop(worker, None)
        ray.kill(worker)

    def close(self) -> None:
        """End Ray if this object started it."""
        self._calls, self._starting = {}, {}
        if self._owns_ray:
            stop_ray()


def _result(reference: Any) -> list[Reply] | Died:
    try:
        result = ray.get(reference)
        return result.load(copy=True) if isinstance(result, Packed) else result  # type: ignore[no-any-return]
    except (RayActorError, FileNotFoundError) as error:  # the file: it died between its answer and our look
        return Died(type(error).__name__)
    except RayTaskError as error:
        if isinstance(error.cause, StorageFailed | CorruptFile):
            raise error.cause from error
        return Died(f"{type(error.cause).__name__}: {error.cause}"[:300])
    except RayError as error:
        return Died(f"{type(error).__name__}: {error}"[:300])
