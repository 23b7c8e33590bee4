"""The ClientApp's process: a message and a client's state in, a reply and the new state out.

What a client may lean on is what its message brings: its records, its Context, and generators seeded by the message's
own address. So it does not matter which process it comes to, nor what was done there before.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import frames, process
from .frames import Buffer
from .refused import REFUSED, too_large

UNKNOWN, RAISED = 0, 2
"""Flower's codes: something outside the ClientApp, and the ClientApp itself, raised an exception."""

Answer = Callable[[dict[str, Any], list[Buffer]], None]


class Client:
    """The ClientApp in this process, and the buffers that its messages share."""

    def __init__(self, setting: Mapping[str, Any], *, parent: int | None) -> None:
        process.begin(setting["folder"], parent=parent)
        from flwr.clientapp import ClientApp

        from . import records

        records.installed()
        self.setting = setting
        self.buffers: dict[int, Buffer] = {}
        self.seeds = process.seeds()
        process.identify(setting["run_id"], 0)
        with self.seeds.process_wide(setting["seed"], purpose="app/import"):
            self.app = process.load_app(setting["clientapp"], setting["folder"], ClientApp)
        process.loaded()

    def work(self, header: Mapping[str, Any], buffers: Sequence[Buffer], answer: Answer) -> None:
        """Do the jobs of one frame, one after the other; ``answer`` is called with each reply as it is there."""
        for number in header["drop"]:
            self.buffers.pop(number, None)
        self.buffers.update(zip(header["new"], buffers, strict=False))
        for job in header["jobs"]:
            state = None if job["state"] is None else buffers[job["state"]]
            answer(*self._reply(job, state))

    def _reply(self, job: Mapping[str, Any], state: Buffer | None) -> tuple[dict[str, Any], list[Buffer]]:
        from flwr.app import Message, RecordDict
        from flwr.clientapp.client_app import ClientAppException

        from .records import encode

        began = time.perf_counter()
        message, context = self._message(job), self._context(job, state)
        content: list[Buffer] = []
        error = meta = kept = None
        try:
            self.seeds.seed_process_wide(
                self.setting["seed"], purpose=job["purpose"], round=job["round"], client=job["partition"]
            )
            reply = self.app(message=message, context=context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned a {type(reply).__name__}, not a Message")
            if context.run_config != self.setting["run_config"]:
                # As Flower's engine: it is not the app's to change.
                raise _Changed("The `run_config` field of the `Context` object cannot be modified.")
            meta = [reply.metadata.group_id, reply.metadata.created_at, reply.metadata.ttl, reply.metadata.message_type]
            if reply.has_error():
                error = [reply.error.code, reply.error.reason]
            else:
                head, arrays = encode(reply.content)
                content = [head, *arrays]
            after = None if not len(context.state) else pickle.dumps(_whole(encode(context.state)), protocol=5)
            kept = after if after is not None or state is None else pickle.dumps(_whole(encode(RecordDict())))
            if kept is not None and state is not None and kept == bytes(state):
                kept = None
        except _Changed as failure:
            error, content = [UNKNOWN, _reason(ValueError(str(failure)))], []
        except (Exception, SystemExit) as failure:  # noqa: BLE001  whatever a client's code raises is its answer
            traceback.print_exc()
            error, content = [RAISED, _reason(ClientAppException(str(failure)))], []
        if why := self._too_large(job, content, [*(meta or ())[:1], *(error or ())[1:]]):
            error, content, meta = [REFUSED, why], [], None
        header = {
            "op": "reply",
            "id": job["id"],
            "meta": meta,
            "error": error,
            "state": kept is not None,
            "seconds": time.perf_counter() - began,
        }
        return header, content if kept is None else [*content, kept]

    def _too_large(self, job: Mapping[str, Any], content: Sequence[Buffer], texts: Sequence[str]) -> str:
        """Why a reply is too large to be sent, having said so; "" if it is not. ``texts``: what else is free in it."""
        sent = sum(len(self.buffers[number]) for number in (job["head"], *job["arrays"]))
        got = sum(map(len, content)) + sum(len(str(text).encode()) for text in texts)
        why = too_large(got, sent=sent, most=self.setting["max_reply_bytes"])
        if why:
            sys.stderr.write(f"client {job['partition']}: {why}\n")
        return why

    def _message(self, job: Mapping[str, Any]) -> Any:
        from flwr.app import Metadata
        from flwr.app.message import make_message

        from .records import decode

        content = decode(self.buffers[job["head"]], [self.buffers[number] for number in job["arrays"]])
        metadata = Metadata(
            run_id=self.setting["run_id"],
            message_id=job["id"],
            src_node_id=1,
            dst_node_id=job["partition"] + self.setting["first_node"],
            reply_to_message_id="",
            group_id=job["meta"][0],
            created_at=job["meta"][1],
            ttl=job["meta"][2],
            message_type=job["meta"][3],
            src_task_id=job["meta"][4],
            dst_task_id=job["meta"][5],
        )
        metadata.delivered_at = ""
        return make_message(metadata=metadata, content=content)

    def _context(self, job: Mapping[str, Any], state: Buffer | None) -> Any:
        from flwr.app import Context, RecordDict

        from .records import decode

        partition = job["partition"]
        return Context(
            run_id=self.setting["run_id"],
            node_id=partition + self.setting["first_node"],
            node_config={"partition-id": partition, "num-partitions": self.setting["num_clients"]},
            state=RecordDict() if state is None else decode(*pickle.loads(state)),  # noqa: S301  from the app to itself
            run_config=dict(self.setting["run_config"]),
        )


class _Changed(Exception):
    """The app changed what is not its own."""


def _whole(encoded: tuple[bytes, list[Buffer]]) -> tuple[bytes, list[bytes]]:
    head, arrays = encoded
    return head, [bytes(array) for array in arrays]


def _reason(failure: Exception) -> str:
    """As Flower's engine words it."""
    return str(type(failure)) + ":<'" + str(failure) + "'>"


def main(driver: socket.socket) -> None:
    """Serve one driver until it is gone."""
    setting, _ = frames.receive(driver)
    try:
        client = Client(setting, parent=setting["parent"])
    except BaseException:  # noqa: BLE001  the driver says what is wrong with the app, in its own words
        frames.send(driver, {"op": "failed", "trace": traceback.format_exc()})
        os._exit(1)
    frames.send(driver, {"op": "ready"})
    while True:
        try:
            header, buffers = frames.receive(driver)
            client.work(header, buffers, lambda header, content: frames.send(driver, header, content))
        except (EOFError, BrokenPipeError):
            os._exit(0)
