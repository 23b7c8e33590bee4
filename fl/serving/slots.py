"""What is served under a name: the version that answers now, and those that were asked for by number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fl.errors import MeadowError
from fl.serving.model import Model
from fl.serving.router import Router

LOOK_SECONDS = 0.25
"""Between two looks at which version a name means: a deployment reaches its users within a second."""


@dataclass(eq=False)
class Slot:
    """One name.

    means    the version's name as the registry knows it: an alias that moves, say
    current  what answers; replaced as a whole, so that a request has one model from beginning to end
    trouble  why the version that the name means now could not be loaded; the one before goes on answering
    router   who answers in its place while a release of the name is open
    """

    means: str
    current: Model
    trouble: str = ""
    router: Router | None = None
    switches: int = 0


@dataclass(eq=False)
class Slots:
    """Every name, and how versions are found.

    look    from what a name means to the hash of the version that it means now: cheap
    load    the same, to the model
    """

    by_name: Mapping[str, Slot]
    look: Callable[[str], str]
    load: Callable[[str], Model]
    _failed: dict[str, str] = field(default_factory=dict)

    async def follow(self) -> None:
        """Keep looking, for as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for slot in self.by_name.values():
                await asyncio.to_thread(self.refresh, slot)

    def refresh(self, slot: Slot) -> None:
        """Load what the name means now, if that is another version than the one that answers."""
        try:
            found = self.look(slot.means)
            if found == slot.current.hash or self._failed.get(slot.means) == found:
                return
            try:
                loaded = slot.router.model(found) if slot.router else None
                slot.current, slot.trouble = loaded or self.load(slot.means), ""
                slot.switches += 1
            except MeadowError as error:
                self._failed[slot.means], slot.trouble = found, str(error)
        except MeadowError as error:  # the name means nothing any more, or the registry cannot be read
            slot.trouble = str(error)
