"""What the devices of this machine answered: a table on their own side, and the sums that may leave it.

A row an answer: which device, by which version, whether by its own model, and how right it was; never what was asked,
nor what was answered. The rows stay here. A query round (kinds ``served`` and ``served_versions`` of fl/messages.py)
takes sums over an arm's answers, and those of a unit's devices are added up before they are sent.

Several processes may share the table: the one that answers users, and whoever does a work unit.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
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


@dataclass(frozen=True)
class Asked:
    """Which answers are meant: ``since`` a time and before ``until``; of an ``arm`` of a ``release``, or where that is
    None, all that users saw.
    """

    release: int | None = None
    arm: int = 0
    since: float = 0.0
    until: float = math.inf

    @property
    def where(self) -> tuple[str, tuple[float, ...]]:
        """The same, but for the times, as SQL and its values."""
        return ("shown", ()) if self.release is None else ("release = ? AND arm = ?", (self.release, self.arm))


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The table, to be read; an empty one where nothing was answered yet. Raises StorageFailed."""
    try:
        with closing(_opened(path if path.is_file() else ":memory:")) as table:
            yield table
    except sqlite3.Error as error:
        raise StorageFailed(path=str(path), why=str(error)) from error


def sums(table: sqlite3.Connection, client: int, asked: Asked, *, edges: Sequence[float]) -> Sums:
    """The sums of SERVED over a client's answers, then how many took so long: below the first of ``edges`` (seconds,
    ascending), between them, and above the last.

    A client counts as a user of an arm when that first answers it, and by its first feedback when that first comes.
    """
    rows = _rows(table, client, asked)
    told = [row for row in rows if row.reward == row.reward]
    shown, first = _beginnings(table, client, asked) if rows else (math.inf, math.inf)
    of_user = [row for row in told if row.shown and row.at == first][:1]
    found = {
        "answers": len(rows),
        "errors": sum(row.failed for row in rows),
        "users": int(asked.since <= shown < asked.until),
        "personal": sum(row.personal for row in rows),
        "behind": sum(row.behind for row in rows),
        "rewards": len(told),
        "reward": sum(row.reward for row in told),
        "reward_squares": sum(row.reward**2 for row in told),
        "user_rewards": len(of_user),
        "user_reward": sum(row.reward for row in of_user),
        "user_reward_squares": sum(row.reward**2 for row in of_user),
        "base_reward": sum(row.base_reward for row in told),
        "compared": sum(row.compared for row in rows),
        "agreed": sum(row.agreed for row in rows),
    }
    bins = np.searchsorted(np.asarray(edges), [row.seconds for row in rows], side="right")
    latency = np.bincount(bins.astype(np.int64), minlength=len(edges) + 1)
    return Sums((*(float(found[name]) for name in SERVED), *map(float, latency)))


def versions(table: sqlite3.Connection, client: int, asked: Asked, *, edges: Sequence[float]) -> Histogram:
    """A client's answers by the round of the version they come from."""
    return Histogram.of(np.array([row.number for row in _rows(table, client, asked)]), edges)


def _rows(table: sqlite3.Connection, client: int, asked: Asked) -> list[Served]:
    where, of = asked.where
    sought = f"SELECT {', '.join(NAMES)} FROM served WHERE client = ? AND at >= ? AND at < ? AND {where} ORDER BY at"
    return [_answer(row) for row in table.execute(sought, (client, asked.since, asked.until, *of))]


def _beginnings(table: sqlite3.Connection, client: int, asked: Asked) -> tuple[float, float]:
    """When an arm first showed its user an answer, and when it first got feedback to one; infinity: never."""
    sought = (
        "SELECT min(CASE WHEN shown THEN at END), min(CASE WHEN shown AND reward IS NOT NULL THEN at END) "
        "FROM served WHERE client = ? AND "
    )
    where, of = asked.where
    ((shown, first),) = table.execute(sought + where, (client, *of))
    return (math.inf if shown is None else shown, math.inf if first is None else first)


def _answer(row: Sequence[Any]) -> Served:
    values: list[Any] = [math.nan if value is None else value for value in row]
    return Served(*values)


def _opened(path: Path | str) -> sqlite3.Connection:
    """The table, made on first use. A power cut may take the last answers; it never leaves half of one."""
    table = sqlite3.connect(path, timeout=30.0)
    table.execute("PRAGMA journal_mode = WAL")
    table.execute("PRAGMA synchronous = NORMAL")
    table.execute(f"CREATE TABLE IF NOT EXISTS served ({', '.join(NAMES)})")
    table.execute("CREATE INDEX IF NOT EXISTS of_client ON served (client, at)")
    return table
