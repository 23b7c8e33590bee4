"""A client whose app raises keeps the state that it had before; so does one whose process dies, once."""

import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server_app = ServerApp()
client_app = ClientApp()


@client_app.query()
def query(message: Message, context: Context) -> Message:
    counter = context.state.setdefault("counter", MetricRecord({"asked": 0}))
    counter["asked"] += 1
    if message.content["do"]["raise"]:
        raise RuntimeError("after the state has changed")
    return Message(RecordDict({"counter": MetricRecord(dict(counter))}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    found = []
    while len(list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)
    for raises in (False, True, False):
        content = RecordDict({"do": ConfigRecord({"raise": raises})})
        replies = grid.send_and_receive([Message(content, node, "query") for node in grid.get_node_ids()])
        found.append([r.error.code if r.has_error() else r.content["counter"]["asked"] for r in replies])
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))
