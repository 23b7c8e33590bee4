"""What became of every request, in SQLite or PostgreSQL: the answer is written once, whoever writes it.

    requests  id, tries, version, version_hash, answer (JSON), reason, sent, finished (seconds since 1970)

A try is noted before the model is asked, so that a request which ends its worker is known by that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fl.serving.databases import open_database, transaction

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

TABLE = (
    "CREATE TABLE IF NOT EXISTS requests (id VARCHAR(700) PRIMARY KEY, tries INTEGER NOT NULL, version VARCHAR(200), "
    "version_hash VARCHAR(64), answer TEXT, reason TEXT, sent INTEGER NOT NULL, finished DOUBLE PRECISION)"
)


@dataclass(frozen=True)
class Known:
    """A request's state: ``tries`` so far, and either an ``answer``, or a ``reason`` why there is none, or neither."""

    id: str
    tries: int
    version: str = ""
    hash: str = ""
    answer: Mapping[str, Any] | None = None
    reason: str = ""
    sent: bool = False

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.answer is not None or bool(self.reason)


class Ledger:
    """The table; several workers may share it. Raises StorageFailed where the database does not do as asked."""

    def __init__(self, url: str) -> None:
        self.url, self.engine = url, open_database(url, key="--answers")
        with self._begin() as connection:
            connection.exec_driver_sql(TABLE)

    def look(self, ids: Sequence[str]) -> dict[str, Known]:
        """The state of each; one that was never seen is there from now on."""
        from sqlalchemy import text

        query = text("INSERT INTO requests (id, tries, sent) VALUES (:id, 0, 0) ON CONFLICT DO NOTHING")
        with self._begin() as connection:
            if ids:
                connection.execute(query, [{"id": one} for one in ids])
            return self._known(connection, ids)

    def begin(self, ids: Sequence[str]) -> dict[str, Known]:
        """Note another try of each that is not finished; returns the state of all."""
        from sqlalchemy import text

        query = text("UPDATE requests SET tries = tries + 1 WHERE id = :id AND answer IS NULL AND reason IS NULL")
        with self._begin() as connection:
            if ids:
                connection.execute(query, [{"id": one} for one in ids])
            return self._known(connection, ids)

    def finish(self, found: Sequence[Known]) -> dict[str, Known]:
        """Write answers and reasons, all or none; of a request that has one the first stays. Returns what stands."""
        from sqlalchemy import text

        query = text(
            "UPDATE requests SET version = :version, version_hash = :hash, answer = :answer, reason = :reason, "
            "finished = :now WHERE id = :id AND answer IS NULL AND reason IS NULL"
        )
        now = time.time()
        with self._begin() as connection:
            if found:
                connection.execute(
                    query,
                    [
                        {
                            "id": one.id,
                            "version": one.version,
                            "hash": one.hash,
                            "answer": None if one.answer is None else json.dumps(one.answer, allow_nan=False),
                            "reason": one.reason or None,
                            "now": now,
                        }
                        for one in found
                    ],
                )
            return self._known(connection, [one.id for one in found])

    def sent(self, ids: Sequence[str]) -> None:
        """Note that the answers are in their queues."""
        from sqlalchemy import text

        with self._begin() as connection:
            if ids:
                query = text("UPDATE requests SET sent = 1 WHERE id = :id")
                connection.execute(query, [{"id": one} for one in ids])

    def forget(self, *, older_than_seconds: float) -> None:
        """Remove what was finished so long ago that nobody asks again."""
        from sqlalchemy import text

        with self._begin() as connection:
            query = text("DELETE FROM requests WHERE finished < :before")
            connection.execute(query, {"before": time.time() - older_than_seconds})

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def _known(self, connection: Any, ids: Sequence[str]) -> dict[str, Known]:
        from sqlalchemy import bindparam, text

        names = "id, tries, version, version_hash, answer, reason, sent"
        query = text(f"SELECT {names} FROM requests WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
        rows = connection.execute(query, {"ids": list(ids)})
        return {
            str(one): Known(
                str(one),
                tries,
                version or "",
                digest or "",
                json.loads(answer) if answer else None,
                reason or "",
                bool(sent),
            )
            for one, tries, version, digest, answer, reason, sent in rows
        }

    def _begin(self) -> AbstractContextManager[Connection]:
        return transaction(self.engine, url=self.url)
