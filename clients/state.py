"""What a device keeps between rounds, on its own side: named arrays a client, by the round that wrote them.

A round writes beside what earlier rounds wrote, so that an abandoned round leaves no trace: whoever reads asks for
the newest state *before* a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl.arrays_file import read_arrays, write_arrays
from fl.errors import CorruptFile
from fl.files import make_parents
from fl.parameters import Array, Parameters


@dataclass(frozen=True)
class StateStore:
    """Arrays by (client, round) in ``folder``; made on first use."""

    folder: Path

    def load(self, client: int, *, before: int) -> tuple[int, Parameters] | None:
        """The newest state that a round < ``before`` wrote, with that round; None if there is none."""
        rounds = [r for r in self._rounds(client) if r < before]
        if not rounds:
            return None
        path = self._path(client, max(rounds))
        return max(rounds), read_arrays(path)

    def save(self, client: int, arrays: Mapping[str, Array], *, round: int) -> None:
        """Write the state that ``round`` leaves behind. What no resumed run could ask for goes.

        While a round trains, the commit of the one before it may be under way: a run may still go on from the round
        before that, and then needs what a client had before ``round - 1``.
        """
        path = self._path(client, round)
        make_parents(path)
        write_arrays(path, arrays, site="client_state")
        for old in sorted(r for r in self._rounds(client) if r < round - 1)[:-1]:
            self._path(client, old).unlink(missing_ok=True)

    def drop_from(self, round: int) -> None:
        """Forget what rounds >= ``round`` wrote: they are going to happen again."""
        for path in self.folder.glob("*/*/*.safetensors"):
            if int(path.stem) >= round:
                path.unlink()

    def damaged(self, *, before: int) -> tuple[int, str] | None:
        """The first state of a round < ``before`` that cannot be read: its round, and why. Reads all of them."""
        for path in sorted(self.folder.glob("*/*/*.safetensors")):
            if int(path.stem) < before:
                try:
                    read_arrays(path)
                except CorruptFile as error:
                    return int(path.stem), str(error)
        return None

    def _rounds(self, client: int) -> list[int]:
        return [int(path.stem) for path in self._path(client, 0).parent.glob("*.safetensors")]

    def _path(self, client: int, round: int) -> Path:
        return self.folder / f"{client // 1000:03d}" / f"{client:06d}" / f"{round}.safetensors"
