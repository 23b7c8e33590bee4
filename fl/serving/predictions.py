"""Answers that were computed ahead: a row a version and a key, and beside them the rows that could not be answered.

    predictions        version_hash, row_key, version, row_number, label, value, answer (JSON)
    predictions_aside  version_hash, row_key, version, row_number, reason

``version_hash`` and ``row_key`` are the primary key of both, so that whatever is put twice is there once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from fl.errors import BadInput, MissingExtra, StorageFailed
from fl.files import make_parents
from fl.serving.databases import duckdb_file, open_database, transaction

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

ANSWERS, ASIDE = "predictions", "predictions_aside"
_KEY = "version_hash VARCHAR(64) NOT NULL, row_key VARCHAR(500) NOT NULL, version VARCHAR(200) NOT NULL"
TABLES = (
    f"CREATE TABLE IF NOT EXISTS {ANSWERS} ({_KEY}, row_number BIGINT NOT NULL, label VARCHAR(500), "
    "value DOUBLE PRECISION, answer TEXT NOT NULL, PRIMARY KEY (version_hash, row_key))",
    f"CREATE TABLE IF NOT EXISTS {ASIDE} ({_KEY}, row_number BIGINT NOT NULL, reason TEXT NOT NULL, "
    "PRIMARY KEY (version_hash, row_key))",
)


@dataclass(frozen=True)
class Answered:
    """A row's answer, as ``fl.serving.rows.answers_of`` gives it."""

    key: str
    number: int
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class SetAside:
    """A row that has no answer, and why."""

    key: str
    number: int
    reason: str


@dataclass(frozen=True)
class Stored:
    """What is known of a key: ``answer`` of ``version``, or the ``reason`` why there is none."""

    version: str
    hash: str
    answer: Mapping[str, Any] | None
    reason: str


class Predictions(ABC):
    """A place where answers are kept."""

    @abstractmethod
    def put(self, version: str, hash: str, answers: Sequence[Answered], aside: Sequence[SetAside]) -> None:  # noqa: A002
        """Keep all of it or nothing. What is kept of a key stays; a key with an answer is not aside any more."""

    @abstractmethod
    def known(self, hash: str, keys: Sequence[str]) -> set[str]:  # noqa: A002
        """Those of ``keys`` that have an answer of the version."""

    @abstractmethod
    def find(self, key: str, hash: str) -> Stored | None:  # noqa: A002
        """What is kept of a key, or None."""

    @abstractmethod
    def versions(self, key: str) -> list[str]:
        """Names of all versions that have an answer to the key."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""


def open_predictions(url: str, *, key: str, writing: bool) -> Predictions:
    """The store at ``url``, which is made if ``writing``. Raises BadInput and MissingExtra, naming ``key``."""
    file = duckdb_file(url)
    if file is not None:
        return DuckPredictions(file, key=key, writing=writing)
    return SqlPredictions(open_database(url, key=key), url)


@final
class SqlPredictions(Predictions):
    """In SQLite or PostgreSQL; several processes may write and read at once."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine, self.url = engine, url
        with self._begin() as connection:
            for table in TABLES:
                connection.exec_driver_sql(table)

    def put(self, version: str, hash: str, answers: Sequence[Answered], aside: Sequence[SetAside]) -> None:  # noqa: A002
        """See ``Predictions.put``."""
        from sqlalchemy import text

        own = {"hash": hash, "version": version}
        with self._begin() as connection:
            if answers:
                connection.execute(
                    text(
                        f"INSERT INTO {ANSWERS} VALUES (:hash, :key, :version, :number, :label, :value, :answer) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    [own | _cells(one) for one in answers],
                )
                connection.execute(
                    text(f"DELETE FROM {ASIDE} WHERE version_hash = :hash AND row_key = :key"),
                    [{"hash": hash, "key": one.key} for one in answers],
                )
            if aside:
                connection.execute(
                    text(
                        f"INSERT INTO {ASIDE} VALUES (:hash, :key, :version, :number, :reason) "
                        "ON CONFLICT (version_hash, row_key) DO UPDATE SET reason = excluded.reason"
                    ),
                    [own | {"key": one.key, "number": one.number, "reason": one.reason} for one in aside],
                )

    def known(self, hash: str, keys: Sequence[str]) -> set[str]:  # noqa: A002
        """See ``Predictions.known``."""
        from sqlalchemy import bindparam, text

        query = text(f"SELECT row_key FROM {ANSWERS} WHERE version_hash = :hash AND row_key IN :keys")
        query = query.bindparams(bindparam("keys", expanding=True))
        with self._begin() as connection:
            return {str(key) for (key,) in connection.execute(query, {"hash": hash, "keys": list(keys)})}

    def find(self, key: str, hash: str) -> Stored | None:  # noqa: A002
        """See ``Predictions.find``."""
        from sqlalchemy import text

        given = {"hash": hash, "key": key}
        where = "WHERE version_hash = :hash AND row_key = :key"
        with self._begin() as connection:
            found = connection.execute(text(f"SELECT version, answer FROM {ANSWERS} {where}"), given).first()
            aside = connection.execute(text(f"SELECT version, reason FROM {ASIDE} {where}"), given).first()
        return _stored(found, aside, hash)

    def versions(self, key: str) -> list[str]:
        """See ``Predictions.versions``."""
        from sqlalchemy import text

        query = text(f"SELECT version FROM {ANSWERS} WHERE row_key = :key ORDER BY version")
        with self._begin() as connection:
            return [str(version) for (version,) in connection.execute(query, {"key": key})]

    def close(self) -> None:
        """See ``Predictions.close``."""
        self.engine.dispose()

    def _begin(self) -> AbstractContextManager[Connection]:
        return transaction(self.engine, url=self.url)


@final
class DuckPredictions(Predictions):
    """In a DuckDB file, which one process at a time may write; readers open it for each question."""

    def __init__(self, file: Path, *, key: str, writing: bool) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtra(key=key, package="duckdb", extra="data") from error
        self.file = file
        self._written: Any = None
        if writing:
            make_parents(file)
            try:
                self._written = duckdb.connect(str(file))
                self._written.execute("SET enable_progress_bar = false")  # it would go to standard output
            except duckdb.Error as error:
                got = f"{file}, which cannot be opened ({str(error).splitlines()[0]})"
                raise BadInput(key=key, got=got, allowed="a DuckDB file that nobody else writes") from error
            for table in TABLES:
                self._written.execute(table)
        elif not file.is_file():
            raise BadInput(key=key, got=str(file), allowed="a DuckDB file that fl predict has written")

    def put(self, version: str, hash: str, answers: Sequence[Answered], aside: Sequence[SetAside]) -> None:  # noqa: A002
        """See ``Predictions.put``."""
        cells = [_cells(one) for one in answers]
        with self._open() as connection:
            connection.execute("BEGIN")
            if answers:
                connection.execute(
                    f"INSERT INTO {ANSWERS} SELECT $hash, k, $version, n, l, v, a FROM (SELECT unnest($keys) k, "
                    "unnest($numbers) n, unnest($labels::VARCHAR[]) l, unnest($values::DOUBLE[]) v, unnest($answers) a)"
                    " ON CONFLICT DO NOTHING",
                    {"hash": hash, "version": version}
                    | {f"{name}s": [c[name] for c in cells] for name in ("key", "number", "label", "value", "answer")},
                )
                connection.execute(
                    f"DELETE FROM {ASIDE} WHERE version_hash = $hash AND row_key IN (SELECT unnest($keys))",
                    {"hash": hash, "keys": [one.key for one in answers]},
                )
            for one in aside:
                connection.execute(
                    f"INSERT INTO {ASIDE} VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (version_hash, row_key) DO UPDATE SET reason = excluded.reason",
                    [hash, one.key, version, one.number, one.reason],
                )
            connection.execute("COMMIT")

    def known(self, hash: str, keys: Sequence[str]) -> set[str]:  # noqa: A002
        """See ``Predictions.known``."""
        query = f"SELECT row_key FROM {ANSWERS} WHERE version_hash = ? AND row_key IN (SELECT unnest(?))"
        with self._open() as connection:
            return {str(key) for (key,) in connection.execute(query, [hash, list(keys)]).fetchall()}

    def find(self, key: str, hash: str) -> Stored | None:  # noqa: A002
        """See ``Predictions.find``."""
        where = "WHERE version_hash = ? AND row_key = ?"
        with self._open() as connection:
            found = connection.execute(f"SELECT version, answer FROM {ANSWERS} {where}", [hash, key]).fetchone()
            aside = connection.execute(f"SELECT version, reason FROM {ASIDE} {where}", [hash, key]).fetchone()
        return _stored(found, aside, hash)

    def versions(self, key: str) -> list[str]:
        """See ``Predictions.versions``."""
        query = f"SELECT version FROM {ANSWERS} WHERE row_key = ? ORDER BY version"
        with self._open() as connection:
            return [str(version) for (version,) in connection.execute(query, [key]).fetchall()]

    def close(self) -> None:
        """See ``Predictions.close``."""
        if self._written is not None:
            self._written.close()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import duckdb

        try:
            if self._written is not None:
                yield self._written
            else:
                with duckdb.connect(str(self.file), read_only=True) as connection:
                    yield connection
        except duckdb.Error as error:
            raise StorageFailed(path=str(self.file), why=str(error).strip().splitlines()[0]) from error


def _cells(one: Answered) -> dict[str, Any]:
    value = one.answer.get("value")
    return {
        "key": one.key,
        "number": one.number,
        "label": one.answer.get("label"),
        "value": value,
        "answer": json.dumps(one.answer, allow_nan=False),
    }


def _stored(found: Any, aside: Any, digest: str) -> Stored | None:
    if found is not None:
        return Stored(str(found[0]), digest, json.loads(found[1]), "")
    if aside is not None:
        return Stored(str(aside[0]), digest, None, str(aside[1]))
    return None
