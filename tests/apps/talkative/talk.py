"""Says what it does on both sides, asks a client several things at once, and measures what is no number."""

import json
import os
from logging import INFO
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server_app = ServerApp()
client_app = ClientApp()
ASKED = 4


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Answers with as many ones as its number says: no two clients' arrays are alike."""
    number = int(context.node_config["partition-id"]) + 1
    print(f"client {number - 1} trains")
    content = RecordDict(
        {"arrays": ArrayRecord([np.ones(number)]), "metrics": MetricRecord({"num-examples": number, "loss": 0.5})}
    )
    return Message(content, reply_to=message)


@client_app.query()
def query(message: Message, context: Context) -> Message:
    """How often it was asked, by its own account."""
    before = context.state.get("asked", MetricRecord({"times": 0}))["times"]
    context.state["asked"] = MetricRecord({"times": before + 1})
    return Message(RecordDict({"asked": MetricRecord({"times": before + 1})}), reply_to=message)


class Longest(FedAvg):
    """Keeps the longest reply: its clients need not agree on a shape."""

    def aggregate_train(self, server_round, replies):
        log(INFO, "round %s has %s replies", server_round, len(replies))
        found = [reply.content["arrays"].to_numpy_ndarrays()[0] for reply in replies if reply.has_content()]
        return ArrayRecord([max(found, key=len)]), MetricRecord({"replies": len(found)})


def measured(server_round: int, arrays: ArrayRecord) -> dict:
    """What an app may return: nobody held it to numbers."""
    return {"length": len(arrays.to_numpy_ndarrays()[0]), "note": "fine", "none": None, "ratio": float("nan")}


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = sorted(grid.get_node_ids())
    questions = [
        Message(RecordDict({"q": ConfigRecord({"n": n})}), node, "query") for n in range(ASKED) for node in nodes
    ]
    times = {node: [] for node in nodes}
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.send_and_receive(questions)}
    for question in questions:
        times[question.metadata.dst_node_id].append(replies[question.metadata.message_id].content["asked"]["times"])
    strategy = Longest(fraction_evaluate=0.0, min_available_nodes=len(nodes))
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(1)]), num_rounds=2, evaluate_fn=measured)
    found = {"times": list(times.values()), "arrays": result.arrays.to_numpy_ndarrays()[0].tolist()}
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))
