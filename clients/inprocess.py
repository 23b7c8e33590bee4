"""Work units in the calling process: for tests, for reading, for small rounds. The same units, the same bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from clients.grid import Unit
from clients.setting import Setting
from clients.unit import Reply, answer, turned_away


class InProcess:
    """An Executor that does one unit a call of ``collect``, in the order they were submitted.

    ``quarantined``: clients of whom it is known that they end the process they train in, and why.
    """

    def __init__(self, setting: Setting, *, quarantined: Mapping[int, str] | None = None) -> None:
        self.setting, self._quarantined = setting, dict(quarantined or {})
        self._queue: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        """Queue a unit."""
        self._queue.append(unit)

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        """Do the next unit now. There is no other process to stop it: a deadline takes effect between units."""
        if not self._queue:
            return []
        unit = self._queue.popleft()
        clients = [client for client in unit.clients if client not in self._quarantined]
        replies = answer(self.setting, unit.kind, unit.content, clients) if clients else []
        return [(unit, [*replies, *turned_away(unit.clients, self._quarantined)])]

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget units that have not been done."""
        gone = set(numbers)
        self._queue = deque(unit for unit in self._queue if unit.number not in gone)

    def close(self) -> None:
        """Nothing was started."""
