"""A loop of its own: push, poll, give up on the slow, go on without them."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server_app = ServerApp()
client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    partition = context.node_config["partition-id"]
    if message.content["task"]["slow"] and partition == 1:
        time.sleep(context.run_config["naps"])
    arrays = [a + partition for a in message.content["arrays"].to_numpy_ndarrays(keep_input=False)]
    assert not message.content["arrays"], "the record is this client's own: it may be emptied"
    message.content["task"].clear()
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"partition": partition})})
    return Message(content, reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    found = {"asynchronous": [], "partial": None, "errors": []}
    nodes = sorted(grid.get_node_ids())
    arrays = ArrayRecord([np.zeros(3)])

    def messages(*, slow):
        content = RecordDict({"arrays": arrays, "task": ConfigRecord({"slow": slow})})
        return [Message(content, node, MessageType.TRAIN) for node in nodes]

    ids = set(grid.push_messages(messages(slow=False)))
    first = set(ids)
    while ids:  # asynchronous: whoever is there first
        for reply in grid.pull_messages(ids):
            ids.discard(reply.metadata.reply_to_message_id)
            found["asynchronous"].append(reply.content["arrays"].to_numpy_ndarrays()[0].tolist())
        time.sleep(0.02)
    found["asynchronous"].sort()

    replies = grid.send_and_receive(messages(slow=True), timeout=context.run_config["patience"])
    found["partial"] = sorted(r.content["metrics"]["partition"] for r in replies)
    replies = grid.send_and_receive(messages(slow=False))
    found["after"] = [r.content["metrics"]["partition"] for r in replies]
    found["errors"] = [[e.error.code, e.metadata.message_type] for e in grid.pull_messages([sorted(first)[0]])]
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))
