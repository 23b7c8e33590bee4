"""What the servers of one registry tell each other of a release, in its folder.

    figures/<server>-<number>.json   what a server counted that does not lead; the leader adds it up and removes it
    users                            hashes of users that were met, 8 bytes each; every server adds those new to it

Figures are removed before they are used: a crash in between loses a moment's, and nothing counts twice. Users are read
by every server from where it left off, also by one that was started again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import final

from fl.errors import CorruptFile
from fl.files import append, read_json, write_json
from fl.releases import Figures

MOST_FILES = 40
"""Figures of one server that nobody has fetched; it waits with the next ones."""


@final
class Exchange:
    """One server's part in a release whose folder is ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = secrets.token_hex(6)
        self._figures, self._users = folder / "figures", folder / "users"
        self._figures.mkdir(exist_ok=True)
        self._number = self._read = 0

    def give(self, figures: Mapping[str, Figures]) -> bool:
        """Leave figures for the leader; False if too many wait already. Raises StorageFailed."""
        if len(list(self._figures.glob(f"{self.server}-*.json"))) >= MOST_FILES:
            return False
        self._number += 1
        path = self._figures / f"{self.server}-{self._number:09d}.json"
        write_json(path, {arm: one.to_dict() for arm, one in figures.items()}, site="registry.release.state")
        return True

    def fetch(self) -> list[dict[str, Figures]]:
        """What others left, for the leader: it is there no more."""
        found = []
        for path in sorted(self._figures.glob("[!.]*.json")):
            try:
                values = read_json(path)
            except (CorruptFile, FileNotFoundError):
                values = {}
            path.unlink(missing_ok=True)
            found.append({arm: Figures.from_dict(one) for arm, one in values.items()})
        return found

    def users(self, new: bytes) -> bytes:
        """Tell the others of ``new`` users; those that came since the last call, these included."""
        if new:
            append(self._users, new, site="registry.release.state", durable=False)
        if not self._users.is_file():
            return b""
        with self._users.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        content = content[: len(content) // 8 * 8]
        self._read += len(content)
        return content
