"""Flower's Grid for a foreign ServerApp; the driver at the other end has the clients' processes.

A push never waits and a pull never asks: replies arrive by themselves, in a thread, and lie ready. Replies of one
``send_and_receive`` come in the order of its messages, so that sums over them have one order.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from logging import ERROR
from typing import Any

from flwr.app import DEFAULT_TTL, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from . import frames
from .frames import Buffer
from .records import decode, encode

GONE = (
    "Error: Message Unavailable - The requested message could not be found in the database. It may have expired due to "
    "its TTL, been deleted because the destination SuperNode was removed from the federation, or never existed."
)
EXPIRED_REPLY = "Error: Reply Message Unavailable - The reply message has expired."
"""As Flower's engine words them."""


class AppGrid(Grid):
    """Nodes are ``num_clients`` simulated clients, from ``first_node`` up. Thread-safe, as legacy code asks in threads.

    ``round`` is the round that Strategy.start is at, 0 outside of it: messages carry it, and it is part of the address
    of the randomness that they meet.
    """

    def __init__(self, driver: socket.socket, *, run_id: int, num_clients: int, first_node: int) -> None:
        self.round = 0
        self._driver = driver
        self._run = Run.create_empty(run_id)
        self._nodes = range(first_node, first_node + num_clients)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._open: dict[str, Metadata] = {}
        self._replies: dict[str, Message] = {}
        self._waiting: dict[int, set[str]] = {}  # what each call of send_and_receive still lacks
        self._sent = 0
        self._seen: Counter[tuple[int, str]] = Counter()

    def listen(self) -> None:
        """Take replies from now on, in a thread of its own; the process ends when the driver does."""
        threading.Thread(target=self._listen, daemon=True, name="replies").start()

    def tell(self, header: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send a frame to the driver."""
        with self._sending:
            frames.send(self._driver, header, buffers)

    def set_run(self, run: Run) -> None:
        """Flower's hook; the run is the one this grid was made for."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run as Flower describes one."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """An instruction to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl or DEFAULT_TTL, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes, ascending."""
        return list(self._nodes)

    def begin_round(self, number: int) -> None:
        """From now on messages belong to this round."""
        with self._changed:
            self.round = number
            self._seen.clear()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send instructions and return their ids, in order. A message to a node that is not there has none.

        Raises ValueError for what is no instruction.
        """
        jobs: list[dict[str, Any]] = []
        contents: list[dict[str, Any]] = []
        buffers: list[Buffer] = []
        place_of_buffer: dict[int, int] = {}
        place_of_content: dict[int, int] = {}
        held: list[Message] = []  # so that nothing encoded here loses its identity to something later
        for message in messages:
            metadata = message.metadata
            metadata.__dict__["_message_id"] = ""
            _check(message)
            if metadata.dst_node_id not in self._nodes:
                log(ERROR, "There is no node %s: a message to it is not sent", metadata.dst_node_id)
                continue
            held.append(message)
            if id(message.content) not in place_of_content:
                head, arrays = encode(message.content)
                places = []
                for array in arrays:
                    if id(array) not in place_of_buffer:
                        place_of_buffer[id(array)] = len(buffers)
                        buffers.append(array)
                    places.append(place_of_buffer[id(array)])
                place_of_content[id(message.content)] = len(contents)
                contents.append({"head": len(buffers), "arrays": places})
                buffers.append(head)
            jobs.append(self._job(message, place_of_content[id(message.content)]))
        if jobs:
            self.tell({"op": "push", "round": self.round, "jobs": jobs, "contents": contents}, buffers)
        return [job["id"] for job in jobs]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that are ready, each once. An id that was never given, was pulled before or has expired: an error."""
        with self._changed:
            return [reply for message_id in message_ids if (reply := self._pull(message_id)) is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send and wait. After ``timeout`` seconds what has come is returned, and what comes later never counts."""
        ids = self.push_messages(messages)
        ends = math.inf if timeout is None else time.monotonic() + timeout
        with self._changed:
            missing = {message_id for message_id in ids if message_id in self._open}
            self._waiting[id(missing)] = missing
            expires = self._first_expiry(missing)
            while missing and (left := ends - time.monotonic()) > 0:
                self._changed.wait(min(left, max(0.0, expires - time.time()) + 0.001, threading.TIMEOUT_MAX))
                if time.time() > expires:
                    missing -= {message_id for message_id in missing if _expired(self._open[message_id])}
                    expires = self._first_expiry(missing)
            del self._waiting[id(missing)]
            replies = [self._pull(message_id) for message_id in ids if message_id not in missing]
            for message_id in missing:
                del self._open[message_id]
        if missing:
            self.tell({"op": "abandon", "ids": [message_id for message_id in ids if message_id in missing]})
        return [reply for reply in replies if reply is not None]

    def _first_expiry(self, ids: Iterable[str]) -> float:
        """When the first of these messages, which are open, expires."""
        return min((self._open[i].created_at + self._open[i].ttl for i in ids), default=math.inf)

    def _job(self, message: Message, content: int) -> dict[str, Any]:
        metadata = message.metadata
        with self._changed:
            key = (metadata.dst_node_id, metadata.message_type)
            ordinal = self._seen[key]
            self._seen[key] += 1
            self._sent += 1
            message_id = f"{self._sent:032x}"
            metadata.__dict__["_message_id"] = message_id
            # What the reply is to, as it is now.
            self._open[message_id] = Metadata(
                run_id=metadata.run_id,
                message_id=message_id,
                src_node_id=metadata.src_node_id,
                dst_node_id=metadata.dst_node_id,
                reply_to_message_id="",
                group_id=metadata.group_id,
                created_at=metadata.created_at,
                ttl=metadata.ttl,
                message_type=metadata.message_type,
                src_task_id=metadata.src_task_id,
                dst_task_id=metadata.dst_task_id,
            )
        return {
            "id": message_id,
            "partition": metadata.dst_node_id - self._nodes.start,
            "content": content,
            "purpose": f"app/{metadata.message_type}/{ordinal}",
            "round": self.round,
            "meta": [
                metadata.group_id,
                metadata.created_at,
                metadata.ttl,
                metadata.message_type,
                metadata.src_task_id,
                metadata.dst_task_id,
            ],
        }

    def _pull(self, message_id: str) -> Message | None:
        """The reply to a message, None while it is open; an error for one that is gone. With the lock held."""
        if message_id in self._replies:
            reply = self._replies.pop(message_id)
            return _expired_reply(reply) if _expired(reply.metadata) else reply
        if message_id in self._open:
            if not _expired(self._open[message_id]):
                return None
            del self._open[message_id]
        return _unavailable(message_id, self._run.run_id)

    def _listen(self) -> None:
        reader = frames.Reader(self._driver)
        while True:
            try:
                header, buffers = reader.receive()
            except (EOFError, OSError):
                os._exit(1)
            with self._changed:
                start = 0
                for row in header["replies"]:
                    to = self._open.pop(row["id"], None)
                    if to is not None:
                        self._replies[row["id"]] = _reply(row, buffers[start : start + row["buffers"]], to)
                        for missing in self._waiting.values():
                            missing.discard(row["id"])
                    start += row["buffers"]
                if not all(self._waiting.values()):
                    self._changed.notify_all()


def _check(message: Message) -> None:
    metadata = message.metadata
    if metadata.reply_to_message_id or metadata.ttl <= 0 or metadata.delivered_at or not message.has_content():
        raise ValueError(f"Invalid message: {message}")


def _reply(header: Mapping[str, Any], buffers: Sequence[Buffer], to: Metadata) -> Message:
    group_id, created_at, ttl, message_type = header["meta"] or _meta_of_error(to)
    metadata = Metadata(
        run_id=to.run_id,
        message_id=f"{to.message_id}-reply",
        src_node_id=to.dst_node_id,
        dst_node_id=to.src_node_id,
        reply_to_message_id=to.message_id,
        group_id=group_id,
        created_at=created_at,
        ttl=ttl,
        message_type=message_type,
        src_task_id=to.dst_task_id,
        dst_task_id=to.src_task_id,
    )
    if header["error"]:
        return make_message(metadata=metadata, error=Error(*header["error"]))
    return make_message(metadata=metadata, content=decode(buffers[0], buffers[1:]))


def _meta_of_error(to: Metadata) -> tuple[str, float, float, str]:
    """Of the reply that no ClientApp has made."""
    now = time.time()
    return to.group_id, now, to.created_at + to.ttl - now, to.message_type


def _expired(metadata: Metadata) -> bool:
    return metadata.created_at + metadata.ttl < time.time()


def _expired_reply(reply: Message) -> Message:
    return make_message(metadata=reply.metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, EXPIRED_REPLY))


def _unavailable(message_id: str, run_id: int) -> Message:
    """What pulling an id that is not known any more gives, as Flower's engine words it."""
    metadata = Metadata(
        run_id=run_id,
        message_id=f"{message_id}-unavailable",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=0.0,
        message_type="system",
    )
    return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, GONE))
