"""What the devices of this machine answered: a table on their own side, and the sums that may leave it.

A row an answer: which device, by which version, whether by its own model, and how right it was; never what was asked,
nor what was answered. The rows stay here. A query round (kinds ``served`` and ``served_versions`` of fl/messages.py)
takes sums over an arm's answers, and those of a unit's devices are added up before they are sent.

Several processes may share the table: the one that answers users, and whoever does a work unit.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fl.errors import StorageFailed
from fl.messages import SERVED
from fl.metrics import Histogram, Sums

FILE = "served.sqlite"
MOST_ROWS = 1_000_000
"""Older answers are forgotten."""


@dataclass(frozen=True)
class Served:
    """An answer. ``release`` and ``arm`` are 0 where nothing is being released.

    at           seconds since 1970
    version      the global version that it comes from, and ``number``, its round
    behind       versions that were out by then and newer
    personal     by the device's own model made from that version, else by the version itself
    failed       the arm's model gave no finite number, and another had to answer
    shown        the user saw it; a shadow's answer is not shown
    reward       0 to 1: how right it was, NaN where nobody said; and ``base_reward``, had the global version answered
    compared     it was held against the shown answer, and whether they ``agreed``
    """

    at: float
    client: int
    release: int
    arm: int
    version: str
    number: int
    behind: int
    personal: bool
    failed: bool
    shown: bool
    seconds: float
    reward: float
    base_reward: float
    compared: bool = False
    agreed: bool = False


NAMES = tuple(field.name for field in fields(Served))


def table_path(partitions: Path) -> Path:
    """The table of the devices whose examples are in ``partitions``."""
    return partitions.parent / FILE


def record(path: Path, answers: Iterable[Served]) -> None:
    """Add answers, all or none. Raises StorageFailed."""
    places = ", ".join("?" * len(NAMES))
    rows = [tuple(None if value != value else value for value in astuple(answer)) for answer in answers]
    try:
        with closing(_opened(path)) as table, table:
            table.executemany(f"INSERT INTO served ({', '.join(NAMES)}) VALUES ({places})", rows)
            table.execute("DELETE FROM served WHERE rowid <= (SELECT max(rowid) FROM served) - ?", (MOST_ROWS,))
    except sqlite3.Error as error:
        raise StorageFailed(path=str(path), why=str(error)) from error


def sums(path: Path, client: int, *, release: int, arm: int, since: float, edges: Sequence[float]) -> Sums:
    """The sums of SERVED over a client's answers in an arm, then how many took so long: below the first of ``edges``
    (seconds, ascending), between them, and above the last.
    """
    rows = _rows(path, client, release=release, arm=arm, since=since)
    told = [row for row in rows if row.reward == row.reward]
    found = {
        "answers": len(rows),
        "errors": sum(row.failed for row in rows),
        "users": int(any(row.shown for row in rows)),
        "personal": sum(row.personal for row in rows),
        "behind": sum(row.behind for row in rows),
        "rewards": len(told),
        "reward": sum(row.reward for row in told),
        "reward_squares": sum(row.reward**2 for row in told),
        "base_reward": sum(row.base_reward for row in told),
        "compared": sum(row.compared for row in rows),
        "agreed": sum(row.agreed for row in rows),
    }
    bins = np.searchsorted(np.asarray(edges), [row.seconds for row in rows], side="right")
    latency = np.bincount(bins.astype(np.int64), minlength=len(edges) + 1)
    return Sums((*(float(found[name]) for name in SERVED), *map(float, latency)))


def versions(path: Path, client: int, *, release: int, arm: int, since: float, edges: Sequence[float]) -> Histogram:
    """A client's answers in an arm by the round of the version they come from."""
    rows = _rows(path, client, release=release, arm=arm, since=since)
    return Histogram.of(np.array([row.number for row in rows]), edges)


def _rows(path: Path, client: int, *, release: int, arm: int, since: float) -> list[Served]:
    if not path.is_file():
        return []
    where = "client = ? AND release = ? AND arm = ? AND at >= ?"
    try:
        with closing(_opened(path)) as table:
            found = table.execute(
                f"SELECT {', '.join(NAMES)} FROM served WHERE {where}", (client, release, arm, since)
            ).fetchall()
    except sqlite3.Error as error:
        raise StorageFailed(path=str(path), why=str(error)) from error
    return [_answer(row) for row in found]


def _answer(row: Sequence[Any]) -> Served:
    values: list[Any] = [math.nan if value is None else value for value in row]
    return Served(*values)


def _opened(path: Path) -> sqlite3.Connection:
    """The table, made on first use. A power cut may take the last answers; it never leaves half of one."""
    table = sqlite3.connect(path, timeout=30.0)
    table.execute("PRAGMA journal_mode = WAL")
    table.execute("PRAGMA synchronous = NORMAL")
    table.execute(f"CREATE TABLE IF NOT EXISTS served ({', '.join(NAMES)})")
    table.execute("CREATE INDEX IF NOT EXISTS of_client ON served (client, release, arm, at)")
    return table
