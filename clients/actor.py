"""Ray actors that hold private partitions; examples never leave them.

Each actor opens the partition store itself: on one machine all map the same pages. What a round sends is written once,
to shared memory where all actors are on this machine, else to Ray's object store; sums come back the same way. Where
memory is shared, calls pass through a socket: there and back in 40 us, which through Ray takes a millisecond.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
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
from clients.sockets import Listener, Sockets, connect, serve
from clients.transport import Packed
from clients.unit import Reply, answer
from fl.errors import CorruptFile, StorageFailed


class ClientActor:
    """One process of the devices' side. ``address``: where the driver listens, if that is on this machine."""

    def __init__(self, values: Mapping[str, Any], partitions: str, states: str, address: str | None) -> None:
        self._settings = values, Path(partitions), Path(states)
        self._address = address

    @cached_property
    def setting(self) -> Setting:
        """Opened by a call, which can say what is wrong; an actor that cannot be made says it to nobody."""
        values, partitions, states = self._settings
        return open_setting(values, partitions=partitions, states=states)

    def ready(self) -> int:
        """This actor's process id, once it can take units. Raises CorruptFile where the partitions are damaged."""
        self.setting.store  # noqa: B018
        if self._address is not None:
            self._driver = connect(self._address)
        return os.getpid()

    def serve(self) -> None:
        """Do what comes through the socket, until the driver closes it."""
        serve(self._driver, lambda: self.setting)

    def answer(self, kind: str, clients: tuple[int, ...], content: RecordDict | Packed) -> list[Reply]:
        """Do one work unit."""
        self.setting.store  # noqa: B018  before any client's task, which it would be taken for a fault of
        given: RecordDict = content.load(copy=False) if isinstance(content, Packed) else content
        return answer(self.setting, kind, given, clients)


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
        self._listener = Listener() if self.shares_memory else None
        self._sockets = Sockets()
        address = self._listener.address if self._listener else None
        self._arguments = (dict(values), str(partitions.resolve()), str(states.resolve()), address)
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
            for actor, pid in zip(workers, ray.get([self._starting.pop(actor) for actor in workers]), strict=True):
                self._connect(actor, pid)
        except RayTaskError as error:
            if isinstance(error.cause, CorruptFile):
                raise error.cause from error
            raise

    def is_ready(self, worker: Any) -> bool:
        """Whether its process is there, or will never be."""
        if worker in self._starting and ray.wait([self._starting[worker]], timeout=0)[0]:
            with suppress(RayError):  # it is asked through Ray then, which says what is wrong with it
                self._connect(worker, ray.get(self._starting.pop(worker)))
        return worker not in self._starting

    def put(self, content: RecordDict) -> Any:
        """A reference in Ray's object store."""
        return ray.put(content)

    def call(self, worker: Any, kind: str, clients: tuple[int, ...], content: Any) -> None:
        """Through its socket, or else one remote call."""
        if worker in self._sockets:
            self._sockets.call(worker, kind, clients, content)
        else:
            self._calls[worker.answer.remote(kind, clients, content)] = worker

    def wait(self, timeout: float) -> list[tuple[Any, list[Reply] | Died]]:
        """Who was called and has answered; a remote call, where memory is shared, is to one that could not connect."""
        if not self._calls:
            return self._sockets.wait(timeout)
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        return [(self._calls.pop(reference), _result(reference)) for reference in ready]

    def end(self, worker: Any) -> None:
        """Kill the actor."""
        self._sockets.remove(worker)
        self._calls = {reference: w for reference, w in self._calls.items() if w is not worker}
        self._starting.pop(worker, None)
        ray.kill(worker)

    def close(self) -> None:
        """End Ray if this object started it."""
        self._calls, self._starting = {}, {}
        self._sockets.close()
        if self._listener is not None:
            self._listener.close()
        if self._owns_ray:
            stop_ray()

    def _connect(self, actor: Any, pid: int) -> None:
        if self._listener is not None:
            with suppress(TimeoutError):
                self._sockets.add(actor, self._listener.accept(pid))
                actor.serve.remote()


def _result(reference: Any) -> list[Reply] | Died:
    try:
        replies: list[Reply] = ray.get(reference)
    except RayActorError as error:
        return Died(type(error).__name__)
    except RayTaskError as error:
        if isinstance(error.cause, StorageFailed | CorruptFile):
            raise error.cause from error
        return Died(f"{type(error.cause).__name__}: {error.cause}"[:300])
    except RayError as error:
        return Died(f"{type(error).__name__}: {error}"[:300])
    return replies
