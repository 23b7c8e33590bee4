"""Databases by URL, where answers are kept: SQLite, PostgreSQL and DuckDB.

SQLAlchemy speaks to the first two. DuckDB has no dialect here that comes without another package, and is asked itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.data.sql_sources import complaint, database_file, shown
from fl.errors import BadInput, MissingExtra, StorageFailed
from fl.files import make_parents
from fl.interrupts import deferred

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

DUCKDB = "duckdb:///"
SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgresql+psycopg://")
ALLOWED = f"{SQLITE}FILE, {DUCKDB}FILE or postgresql://USER@HOST/DATABASE"
BUSY_SECONDS = 60
"""How long a writer of SQLite waits for another one."""


def duckdb_file(url: str) -> Path | None:
    """The file that a DuckDB URL names, None for any other URL."""
    return Path(os.path.expandvars(url).removeprefix(DUCKDB)) if url.startswith(DUCKDB) else None


def open_database(url: str, *, key: str) -> Engine:
    """A SQLAlchemy engine for SQLite or PostgreSQL, proved by a connection. ``key`` names the URL where it will not do.

    A password is $NAME of the environment. Raises BadInput, MissingExtra.
    """
    shown(url, key=key)
    if not url.startswith((SQLITE, *POSTGRES)) or url == SQLITE:
        raise BadInput(key=key, got=url, allowed=ALLOWED)
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise MissingExtra(key=key, package="SQLAlchemy", extra="data") from error
    if (file := database_file(url)) is not None:
        make_parents(file)
    place = os.path.expandvars(url)
    if place.startswith(POSTGRES[0]):
        place = place.replace(POSTGRES[0], POSTGRES[1], 1)
    arguments: dict[str, Any] = {"timeout": BUSY_SECONDS} if file is not None else {}
    try:
        engine = sqlalchemy.create_engine(place, hide_parameters=True, connect_args=arguments, pool_pre_ping=True)
    except (ModuleNotFoundError, SQLAlchemyError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise MissingExtra(key=key, package="psycopg", extra="postgres") from error
        raise BadInput(key=key, got=url, allowed=ALLOWED) from error
    try:
        with engine.connect() as connection:
            if file is not None:  # readers go on while somebody writes
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except SQLAlchemyError as error:
        engine.dispose()
        got = f"{url}, which cannot be opened ({complaint(error)})"
        raise BadInput(key=key, got=got, allowed=ALLOWED) from error
    return engine


@contextmanager
def transaction(engine: Engine, *, url: str) -> Iterator[Connection]:
    """All of the block's changes, or none. Raises StorageFailed, naming ``url``, for what the database does not do."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with deferred(), engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StorageFailed(path=url, why=complaint(error)) from error
