"""What answers on a device: the newest global version it was given, or its own model made from that.

A version is picked up between two answers. Until the device has specialised it, the model that it had before goes on
answering; a device that has none yet answers by the global one at once. A version that it had lately comes back without
training, so that a release that is rolled back is gone from the next answer on.

Nothing is trained here, and nothing is sent: who runs the device (clients/fleet.py for simulated ones,
clients/machine.py for a real one) trains on its data and hands the result in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from fl.parameters import Array, Parameters

Predict: TypeAlias = Callable[[Parameters, Array], Array]
"""(parameters, examples as stored (N, ...)) -> raw outputs (N, ...)."""

MOST_KEPT = 2
"""Versions that a device keeps ready: the one that answers, and the one before it to go back to."""


@dataclass(frozen=True)
class Global:
    """A version of the global model, as a device was given it: its round, its name, the hash that it is known by."""

    number: int
    name: str
    hash: str
    parameters: Parameters


@dataclass(frozen=True)
class Answer:
    """``outputs`` (N, ...), raw, and where they come from: the global version, or the device's own model made from it.

    fell_back   the model that should have answered gave no finite numbers, so the one before it did
    """

    outputs: Array
    base: Global
    personal: bool
    fell_back: bool = False


@dataclass(frozen=True)
class Held:
    """A version on the device, and the device's own model made from it, where there is one by now."""

    base: Global
    own: Parameters | None


@final
class Device:
    """One device that answers its user. ``held``: what it had when it was switched off."""

    def __init__(self, predict: Predict, *, held: Held | None = None) -> None:
        self._predict = predict
        self._kept = [held] if held else []  # the one that answers last
        self._wanted: Global | None = None
        self._hopeless: set[str] = set()  # versions that could not be specialised, by their hashes

    @property
    def held(self) -> Held | None:
        """What answers now; None before the first version came."""
        return self._kept[-1] if self._kept else None

    @property
    def wanted(self) -> Global | None:
        """The version that is to be specialised next, None if there is nothing to do."""
        return self._wanted

    def offer(self, version: Global) -> None:
        """This is the version to answer by. Nothing happens if it does already."""
        known = next((held for held in self._kept if held.base.hash == version.hash), None)
        if known is None and not self._kept:
            known = Held(version, None)
        if known is not None:
            self._kept = [*(held for held in self._kept if held is not known), known]
        done = version.hash in self._hopeless or (known is not None and known.own is not None)
        self._wanted = None if done else version

    def take(self, base: Global, own: Parameters | None) -> None:
        """The device's own model from ``base`` is ready, and answers from now on; None: it cannot be made, and ``base``
        itself answers.
        """
        if self._wanted is None or self._wanted.hash != base.hash:
            return  # another version was offered meanwhile
        self._wanted = None
        if own is None:
            self._hopeless.add(base.hash)
        others = [held for held in self._kept if held.base.hash != base.hash]
        self._kept = [*others, Held(base, own)][-MOST_KEPT:]

    def answer(self, x: Array) -> Answer:
        """Answer examples as stored (N, ...). Raises ValueError where no model that is there gives finite numbers."""
        ready = self._kept[::-1]
        for tried, held in enumerate(ready):
            outputs = self._predict(held.own if held.own is not None else held.base.parameters, x)
            if np.isfinite(outputs).all():
                return Answer(outputs, held.base, held.own is not None, fell_back=tried > 0)
        raise ValueError("no version has come yet" if not ready else "no model on the device gives finite numbers")
