"""What clients of a foreign app keep between messages, as bytes that nobody here looks into.

A state becomes durable with the round it belongs to, so that a run that goes on finds the states of its last version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from clients.state import StateStore
from fl.foreign.frames import Buffer

NAME = "state"


@dataclass
class States:
    """States by client, in ``store`` once their round is committed, in memory until then."""

    store: StateStore
    _newer: dict[int, Buffer] = field(default_factory=dict)
    _leaving: Mapping[int, Buffer] = field(default_factory=dict)
    _kept: set[int] = field(default_factory=set)

    def resume(self, round: int) -> None:
        """Go on behind ``round``: what later rounds wrote is forgotten."""
        self.store.drop_from(round + 1)
        self._kept = {int(path.parent.name) for path in self.store.folder.glob("*/*/*.safetensors")}

    def get(self, client: int) -> Buffer | None:
        """A client's state, None for one that keeps none."""
        for place in (self._newer, self._leaving):
            if client in place:
                return place[client]
        if client not in self._kept:
            return None
        found = self.store.load(client, before=2**31)
        return None if found is None else found[1][NAME].tobytes()

    def put(self, client: int, state: Buffer) -> None:
        """Keep what a client's message left behind."""
        self._newer[client] = state

    def prepare_commit(self, round: int) -> Callable[[], None]:
        """Take hold of what has changed since the last commit; what is returned writes it, also in another thread.

        It is to be done before the round becomes a version, and before this is called again.
        """
        self._kept |= self._leaving.keys()
        leaving, self._leaving, self._newer = self._newer, self._newer, {}

        def write() -> None:
            for client, state in sorted(leaving.items()):
                self.store.save(client, {NAME: np.frombuffer(state, np.uint8)}, round=round)

        return write
