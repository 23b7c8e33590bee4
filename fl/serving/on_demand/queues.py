"""A broker by its URL: kombu's transports, with what each of them leaves open after a crash.

filesystem:///FOLDER        a message is a file. What a worker takes lies in a folder that it holds a lock on; whoever
                            finds the lock free puts the messages back
sqlalchemy+sqlite:///FILE   kombu hides a message that is taken, and keeps it for ever: here it is deleted when it
                            is done, and shown again after ``visible_seconds``
redis://HOST:PORT/N         the same by kombu's own visibility_timeout
amqp://...                  the broker knows when a connection ends
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from fl.data.sql_sources import shown
from fl.errors import BadInput, MissingExtra, StorageFailed
from fl.interrupts import deferred

KEY = "--url"
FOLDER, SQLITE, REDIS, AMQP = "filesystem:///", "sqlalchemy+sqlite:///", "redis://", "amqp://"
ALLOWED = f"{FOLDER}FOLDER, {SQLITE}FILE, {REDIS}HOST:PORT/0 or {AMQP}USER@HOST//"
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 60.0
"""How long a broker that is away is waited for."""

T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """A message that was taken and is not done: what it says, and what the transport knows it by."""

    body: Mapping[str, Any]
    message: Any
    file: Path | None = None


@dataclass(eq=False)
class Broker:
    """One process's connection; made again when it breaks. Not for several threads.

    visible_seconds   after which a message that was taken and is not done may be taken by somebody else
    """

    url: str
    visible_seconds: float = 30.0
    patience_seconds: float = PATIENCE_SECONDS
    _connection: Any = None
    _channel: Any = None
    _own: Path | None = None  # the folder of what was taken, of the file system's transport
    _lock: Any = None
    _files: set[str] = field(default_factory=set)
    _queues: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shown(self.url, key=KEY)
        if not self.url.startswith((FOLDER, SQLITE, REDIS, AMQP)) or self.url in (FOLDER, SQLITE):
            raise BadInput(key=KEY, got=self.url, allowed=ALLOWED)
        for package in ("kombu", *(["redis"] if self.url.startswith(REDIS) else [])):
            try:
                __import__(package)
            except ImportError as error:
                raise MissingExtra(key=KEY, package=package, extra="broker") from error

    @property
    def place(self) -> Path | None:
        """The folder or file of a broker that is one."""
        for start in (FOLDER, SQLITE):
            if self.url.startswith(start):
                return Path(os.path.expandvars(self.url.removeprefix(start)))
        return None

    def send(self, queue: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Put messages into a queue, in their order. After a broken connection some may be there twice."""
        from kombu.messaging import Producer

        for body in bodies:

            def put(channel: Any, body: Mapping[str, Any] = body) -> None:
                self._bound(channel, queue)
                Producer(channel, serializer="json").publish(
                    dict(body), exchange="", routing_key=queue, delivery_mode=2
                )

            self._steadily(put)

    def take(self, queue: str, *, most: int, wait_seconds: float) -> list[Taken]:
        """Up to ``most`` messages, as soon as there is one; none after ``wait_seconds``."""
        found: list[Taken] = []
        ends = time.monotonic() + wait_seconds
        while len(found) < most:
            taken = self._steadily(lambda channel: self._one(channel, queue))
            if taken is not None:
                found.append(taken)
            elif found or time.monotonic() >= ends:
                break
            else:
                time.sleep(LOOK_SECONDS)
        return found

    def done(self, taken: Sequence[Taken]) -> None:
        """These need not come again. Where the connection broke meanwhile they do, and are known then."""
        with suppress(*self._errors()), deferred():
            for one in taken:
                if one.message.channel is self._channel:  # kombu cannot speak through one that is closed
                    one.message.ack()
            if self.url.startswith(SQLITE):
                self._delete({str(one.message.delivery_tag) for one in taken})
        for one in taken:
            if one.file is not None:
                one.file.unlink(missing_ok=True)
                self._files.discard(one.file.name)

    def recover(self) -> int:
        """Put back what somebody took who is gone, or has had it for too long; returns how many, where it is known."""
        if self.url.startswith(FOLDER):
            return self._abandoned()
        if self.url.startswith(SQLITE):
            return self._hidden()
        if self.url.startswith(REDIS):
            self._steadily(lambda channel: channel.qos.restore_visible(num=None, interval=1))
        return 0

    def close(self) -> None:
        """Let go; what was taken and is not done is put back."""
        if self._own is not None:
            self._put_back(self._own)
            self._lock.close()
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None
        self._drop()

    # --- the connection

    def _steadily(self, do: Callable[[Any], T]) -> T:
        """``do`` with a channel, and again with a new one if the broker goes away. Raises StorageFailed at the end.

        A signal waits for it: raised inside SQLAlchemy, some of them were lost there, in what it does while
        objects are forgotten or a session ends, and a worker went on for ever.
        """
        ends, pause = time.monotonic() + self.patience_seconds, 0.05
        while True:
            try:
                with deferred():
                    if self._channel is None:
                        self._open()
                    return do(self._channel)
            except self._errors() as error:
                with deferred():
                    self._drop()
                if time.monotonic() + pause > ends:
                    why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                    raise StorageFailed(path=self.url, why=why) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _open(self) -> None:
        from kombu.connection import Connection

        self._connection = Connection(self._address(), transport_options=self._options(), connect_timeout=5)
        self._connection.ensure_connection(max_retries=1, interval_start=0.1)
        self._channel = self._connection.channel()
        # What is taken is put back by us, and by those who find us dead: kombu would make copies.
        self._channel.do_restore = False
        if self.url.startswith(SQLITE):
            _quicken(self._channel)

    def _address(self) -> str:
        if self.url.startswith(FOLDER):
            return "filesystem://"
        if self.place is not None:
            self.place.parent.mkdir(parents=True, exist_ok=True)
        return os.path.expandvars(self.url)

    def _options(self) -> dict[str, Any]:
        if self.url.startswith(SQLITE):
            return {"connect_args": {"timeout": 60}}
        if self.url.startswith(REDIS):
            seconds = self.visible_seconds
            return {"visibility_timeout": seconds, "unacked_mutex_expire": 10, "socket_timeout": 10}
        if not self.url.startswith(FOLDER):
            return {}
        assert self.place is not None, "the folder that the URL names"
        messages, control = self.place / "messages", self.place / "control"
        for folder in (messages, control):
            folder.mkdir(parents=True, exist_ok=True)
        return {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "store_processed": True,
            "processed_folder": str(self._taken_folder()),
        }

    def _errors(self) -> tuple[type[Exception], ...]:
        from kombu.exceptions import KombuError

        found: tuple[type[Exception], ...] = (OSError, KombuError)
        if self.url.startswith(SQLITE):
            from sqlalchemy.exc import SQLAlchemyError

            found = (*found, SQLAlchemyError)
        if self._connection is not None:
            found = (*found, *self._connection.connection_errors, *self._connection.channel_errors)
        return found

    def _drop(self) -> None:
        self._queues.clear()
        channel, self._channel = self._channel, None
        connection, self._connection = self._connection, None
        if channel is not None and self.url.startswith(SQLITE):
            # kombu leaves its session to the garbage collector, and what that has locked is locked until then.
            with suppress(Exception):
                channel.session.close()
        for one in (channel, connection):
            if one is not None:
                with suppress(Exception):  # it is broken, or it closes: there is nothing else to do with it
                    one.close()

    def _bound(self, channel: Any, queue: str) -> Any:
        """The queue, which is declared once a connection."""
        from kombu.entity import Queue

        if queue not in self._queues:
            self._queues[queue] = Queue(queue, routing_key=queue)(channel)
            self._queues[queue].queue_declare()
        return self._queues[queue]

    def _one(self, channel: Any, queue: str) -> Taken | None:
        try:
            message = self._bound(channel, queue).get(no_ack=False)
        except ValueError:  # a file that its writer has not finished, or never will
            self._mend()
            return None
        if message is None:
            return None
        file = self._new_file() if self._own is not None else None
        try:
            body = message.payload
        except Exception:  # noqa: BLE001  whatever kombu makes of bytes that are no message of ours
            body = None
        return Taken(body if isinstance(body, dict) else {}, message, file)

    # --- the file system

    def _taken_folder(self) -> Path:
        """A folder of this process alone, which it holds a lock on for as long as it lives."""
        if self._own is None:
            assert self.place is not None, "the folder that the URL names"
            parent = self.place / "taken"
            parent.mkdir(parents=True, exist_ok=True)
            # The lock is there before the folder: nobody finds one of somebody who lives without it.
            descriptor, name = tempfile.mkstemp(dir=parent, suffix=".lock")
            self._lock = os.fdopen(descriptor)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._own = Path(name).with_suffix("")
            self._own.mkdir()
        return self._own

    def _new_file(self) -> Path | None:
        assert self._own is not None, "asked of the file system's transport"
        for file in self._own.iterdir():
            if file.name not in self._files:
                self._files.add(file.name)
                return file
        return None

    def _mend(self) -> None:
        """Put the one file back that could not be read, if it can be now; a torn one is kept aside."""
        file = self._new_file()
        if file is None:
            return
        assert self.place is not None, "the folder that the URL names"
        self._files.discard(file.name)
        time.sleep(0.1)  # whoever writes it has it open still, under its new name
        torn = self.place / "torn"
        try:
            json.loads(file.read_bytes())
        except ValueError:
            torn.mkdir(exist_ok=True)
            file.replace(torn / file.name)
        else:
            file.replace(self.place / "messages" / file.name)

    def _abandoned(self) -> int:
        assert self.place is not None, "the folder that the URL names"
        count = 0
        for lock in (self.place / "taken").glob("*.lock"):
            folder = lock.with_suffix("")
            if folder == self._own:
                continue
            with suppress(OSError), lock.open() as file:  # somebody else may be as quick
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count += self._put_back(folder)
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
        return count

    def _put_back(self, folder: Path) -> int:
        assert self.place is not None, "the folder that the URL names"
        files = list(folder.iterdir()) if folder.is_dir() else []
        for file in files:
            file.replace(self.place / "messages" / file.name)
        return len(files)

    # --- SQLite

    def _delete(self, tags: set[str]) -> None:
        with _database(self._channel) as connection:
            from sqlalchemy import text

            hidden = connection.execute(text("SELECT id, payload FROM kombu_message WHERE visible = 0"))
            mine = [{"id": n} for n, payload in hidden if json.loads(payload)["properties"]["delivery_tag"] in tags]
            if mine:
                connection.execute(text("DELETE FROM kombu_message WHERE id = :id"), mine)

    def _hidden(self) -> int:
        from sqlalchemy import text

        # kombu notes its own clock's time when it hides a message.
        before = datetime.now() - timedelta(seconds=self.visible_seconds)  # noqa: DTZ005

        def show(channel: Any) -> int:
            with _database(channel) as connection:
                query = text("UPDATE kombu_message SET visible = 1 WHERE visible = 0 AND timestamp < :before")
                return int(connection.execute(query, {"before": before.isoformat(" ")}).rowcount)

        return self._steadily(show)


def _quicken(channel: Any) -> None:
    """A message that is put or taken is a commit, and waiting for the disk at each costs a hundred times the work.

    A process that is killed loses nothing by this. A power cut may lose the latest messages, which are asked again.
    """
    from sqlalchemy import event

    engine = channel._open()[0]
    if not event.contains(engine, "connect", _set_up):
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        event.listen(engine, "connect", _set_up)
        engine.dispose()  # those that are open already


def _set_up(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _database(channel: Any) -> Any:
    """A transaction of the database that a channel's messages are in."""
    if channel is None:
        raise OSError("the connection is gone")
    return channel._open()[0].begin()


def queue_names(name: str) -> tuple[str, str]:
    """The queues of requests and of dead letters."""
    return name, f"{name}.dead"


def answers_queue(name: str, asker: str) -> str:
    """The queue of one asker's answers."""
    return f"{name}.answers.{asker}"


def all_of(broker: Broker, queue: str) -> Iterator[Mapping[str, Any]]:
    """What is in a queue now; each message is done once it is given out."""
    while taken := broker.take(queue, most=1, wait_seconds=0.2):
        yield taken[0].body
        broker.done(taken)
