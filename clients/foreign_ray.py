"""Hands that are Ray actors: the ClientApp's process, wherever in a cluster.

The actor's class travels by value, and in it runs the same code as in a plain process (fl/foreign/client.py), loaded
by its place on disk: the project and the app lie at the same place on every machine. In the driver a thread a hand
stands between its socket and the actor. Buffers are put into Ray's object store once, however many hands read them.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, RayError

from clients.foreign import Hand
from clients.ray_session import start_ray, stop_ray
from fl.foreign import frames
from fl.foreign.frames import Buffer

FOLDER = str(Path(frames.__file__).resolve().parent)


class AppActor:
    """The ClientApp, in an actor."""

    def __init__(self, folder: str, setting: Mapping[str, Any]) -> None:
        from importlib.util import module_from_spec, spec_from_file_location
        from pathlib import Path

        # Nothing of this module is there where the class arrives: what it needs it imports itself.
        spec = spec_from_file_location("_meadow_foreign_main", folder + "/__main__.py")
        assert spec and spec.loader, "the project lies at the same place on every machine"
        main = module_from_spec(spec)
        spec.loader.exec_module(main)
        self.client = main.load(Path(folder), "client").Client(setting, parent=None)

    def ready(self) -> None:
        """Returns once the app is loaded."""

    def work(self, header: dict[str, Any], *buffers: Any) -> list[Any]:
        """Do the jobs of one frame; their replies."""
        replies: list[Any] = []
        self.client.work(header, [memoryview(buffer) for buffer in buffers], lambda *reply: replies.append(reply))
        return replies


class RayHands:
    """Starts hands that are actors, and Ray for ``size`` of them where it does not run; ends what it started."""

    def __init__(self, *, size: int, setting: Mapping[str, Any], address: str | None = None) -> None:
        os.environ["PYTHONHASHSEED"] = "0"  # Ray's processes inherit it: no order of a set differs among them
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            start_ray(size, address)
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
        self._actors = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(AppActor)
        self._setting = dict(setting)
        self._shared: dict[int, Any] = {}

    def hire(self) -> Hand:
        """Start an actor, and the thread that stands for it."""
        ours, theirs = socket.socketpair()
        actor: Any = self._actors.remote(FOLDER, self._setting)
        threading.Thread(target=self._carry, args=(theirs, actor), daemon=True, name="hand").start()

        def end(patience: float) -> None:
            ours.close()
            ray.kill(actor)

        return Hand(ours, end)

    def close(self) -> None:
        """End Ray if this object started it."""
        self._shared = {}
        if self._owns_ray:
            stop_ray()

    def _carry(self, driver: socket.socket, actor: Any) -> None:
        """Between a hand's socket and its actor, until one of them is gone."""
        with driver:
            try:
                ray.get(actor.ready.remote())
                frames.send(driver, {"op": "ready"})
                while True:
                    header, buffers = frames.receive(driver)
                    for answer, content in ray.get(actor.work.remote(header, *self._references(header, buffers))):
                        frames.send(driver, answer, content)
            except ActorDiedError as error:
                with suppress(OSError):
                    frames.send(driver, {"op": "died", "trace": f"{error}\n"})
            except (EOFError, OSError, RayError):
                return  # the driver has closed it, or sees it close now

    def _references(self, header: Mapping[str, Any], buffers: list[Buffer]) -> list[Any]:
        """What messages share is put into the object store once; states of clients go along."""
        for number in header["drop"]:
            self._shared.pop(number, None)
        numbers = header["new"]
        for number, buffer in zip(numbers, buffers, strict=False):
            if number not in self._shared:
                self._shared[number] = ray.put(np.frombuffer(buffer, np.uint8))
        return [*(self._shared[number] for number in numbers), *buffers[len(numbers) :]]
