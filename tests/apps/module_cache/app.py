"""Clients that load their data once into a cache of the module, and keep a counter in their state."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

server_app = ServerApp()
client_app = ClientApp()
cache = {}


def data(partition):
    if partition not in cache:
        cache[partition] = np.random.default_rng(partition).normal(partition, 1, (50, 3))
    return cache[partition]


@client_app.train()
def train(message: Message, context: Context) -> Message:
    x = data(context.node_config["partition-id"])
    (w,) = message.content["arrays"].to_numpy_ndarrays()
    counter = context.state.setdefault("counter", MetricRecord({"rounds": 0}))
    counter["rounds"] += 1
    momentum = context.state.get("momentum", ArrayRecord([np.zeros(3)])).to_numpy_ndarrays()[0]
    momentum = 0.5 * momentum + x.mean(0) - w
    context.state["momentum"] = ArrayRecord([momentum])
    metrics = MetricRecord({"num-examples": len(x), "rounds": counter["rounds"]})
    return Message(RecordDict({"arrays": ArrayRecord([w + 0.1 * momentum]), "metrics": metrics}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAdam(fraction_evaluate=0.0, min_available_nodes=5)
    result = strategy.start(grid, ArrayRecord([np.zeros(3)]), num_rounds=context.run_config["rounds"])
    found = {
        "arrays": result.arrays.to_numpy_ndarrays()[0].tolist(),
        "rounds": [record["rounds"] for record in result.train_metrics_clientapp.values()],
    }
    Path(os.environ["APP_RESULT"]).write_text(json.dumps(found))
