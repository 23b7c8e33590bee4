"""A loop of its own that asks every kind of message; client 1 answers each with more than the others do."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

KINDS = ("train", "evaluate", "query", "train.error", "query.raise")

server_app = ServerApp()
client_app = ClientApp()


def size(context: Context) -> int:
    context.state["calls"] = MetricRecord({"calls": context.state.get("calls", {"calls": 0})["calls"] + 1})
    return context.run_config["size"] if context.node_config["partition-id"] == 1 else 3


def reply(message: Message, context: Context, **records) -> Message:
    return Message(RecordDict({**records, "calls": MetricRecord(dict(context.state["calls"]))}), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    return reply(message, context, arrays=ArrayRecord([np.zeros(size(context), np.uint8)]))


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return reply(message, context, metrics=MetricRecord({"losses": [0.5] * size(context)}))


@client_app.query()
def query(message: Message, context: Context) -> Message:
    return reply(message, context, config=ConfigRecord({"blob": bytes(size(context))}))


@client_app.train("error")
def error(message: Message, context: Context) -> Message:
    return Message(Error(code=77, reason="no" * size(context)), reply_to=message)


@client_app.query("raise")
def raises(message: Message, context: Context) -> Message:
    raise ValueError("no" * size(context))


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    nodes, found = sorted(grid.get_node_ids()), {}
    for kind in KINDS:
        replies = grid.send_and_receive([Message(RecordDict(), node, kind) for node in nodes])
        told = {nodes.index(r.metadata.src_node_id): r for r in replies}
        found[kind] = {
            partition: [r.error.code, r.error.reason[:80]] if r.has_error() else r.content["calls"]["calls"]
            for partition, r in sorted(told.items())
        }
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))
