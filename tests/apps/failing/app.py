"""Everything that can go wrong in somebody's app."""

import os
import signal
import sys
import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server_app = ServerApp()
client_app = ClientApp()

POISONS = {
    2: lambda w: [np.full_like(w, np.nan)],
    3: lambda w: [np.zeros(1)],
    4: lambda w: [w, w],
    5: lambda w: [np.array(["a", "b", "c"])],
}
WEIGHTS = {6: 0, 7: -5, 8: float("nan")}


@client_app.train()
def train(message: Message, context: Context) -> Message:
    what, partition = context.run_config["what"], context.node_config["partition-id"]
    (w,) = message.content["arrays"].to_numpy_ndarrays()
    arrays, weight = [w + 1 + partition], 10
    if partition == 2:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            sys.exit("enough")
        if what == "hang":
            time.sleep(1000)
        if what == "raise":
            raise ValueError("no")
    if what == "poison":
        arrays = POISONS.get(partition, lambda _: arrays)(w)
        weight = WEIGHTS.get(partition, weight)
    if what == "dtype":
        arrays = [a.astype(np.float32) for a in arrays]
    metrics = MetricRecord({"num-examples": weight})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    if context.run_config["what"] == "server":
        raise RuntimeError("the app's own fault")
    strategy = FedAvg(fraction_evaluate=0.0)
    timeout = 3 if context.run_config["what"] == "hang" else 3600
    strategy.start(grid, ArrayRecord([np.zeros(3)]), num_rounds=context.run_config["rounds"], timeout=timeout)
