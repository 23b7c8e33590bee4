"""Queries, actions of its own, mods, a lifespan, and every kind of answer a client can give."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod
from flwr.serverapp import Grid, ServerApp


def counting(message: Message, context: Context, call_next):
    """A mod that counts in the client's state."""
    counts = context.state.setdefault("counts", MetricRecord({"calls": 0}))
    counts["calls"] += 1
    reply = call_next(message, context)
    if reply.has_content():
        reply.content["counts"] = MetricRecord(dict(counts))
    return reply


server_app = ServerApp()
client_app = ClientApp(mods=[counting])
open_now = []


@client_app.lifespan()
def lifespan(context: Context):
    open_now.append(context.node_id)
    yield
    open_now.remove(context.node_id)


@client_app.query()
def query(message: Message, context: Context) -> Message:
    assert open_now == [context.node_id]
    said = ConfigRecord({"said": context.run_config["greeting"], "blob": b"\x00\xff", "flags": [True, False]})
    return Message(RecordDict({"answer": said, "of": MetricRecord(dict(context.node_config))}), reply_to=message)


@client_app.query("size")
def size(message: Message, context: Context) -> Message:
    return Message(
        RecordDict({"of": MetricRecord({"size": context.node_config["partition-id"] * 10})}), reply_to=message
    )


@client_app.train("halve", mods=[arrays_size_mod])
def halve(message: Message, context: Context) -> Message:
    arrays = ArrayRecord([a / 2 for a in message.content["arrays"].to_numpy_ndarrays()])
    return Message(RecordDict({"arrays": arrays}), reply_to=message)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    if context.node_config["partition-id"] == 0:
        raise ValueError("no data here")
    return Message(Error(code=77, reason="not today"), reply_to=message)


@server_app.lifespan()
def server_lifespan(context: Context):
    print("the server is up", flush=True)
    yield
    print("the server is down", flush=True)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    found = {}
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)

    def ask(message_type, content=None):
        messages = [Message(content or RecordDict(), node, message_type, group_id="7") for node in nodes]
        replies = list(grid.send_and_receive(messages))
        assert all(reply.metadata.group_id == "7" for reply in replies)
        return sorted(replies, key=lambda reply: nodes.index(reply.metadata.src_node_id))

    for message_type in ("query", "query.size", "query"):
        found[f"{message_type} {len(found)}"] = [
            {name: {k: repr(v) for k, v in record.items()} for name, record in sorted(reply.content.items())}
            for reply in ask(message_type)
        ]
    halved = ask("train.halve", RecordDict({"arrays": ArrayRecord([np.arange(3.0, dtype=np.float32)])}))
    found["halved"] = [reply.content["arrays"].to_numpy_ndarrays()[0].tolist() for reply in halved]
    for message_type in ("evaluate", "train.unknown"):
        errors = [reply.error for reply in ask(message_type)]
        # Flower's engine sends exceptions through Ray, which puts its own words around them.
        found[message_type] = [[e.code, e.reason[-60:].replace("\n", " ")] for e in errors]
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found, sort_keys=True))
