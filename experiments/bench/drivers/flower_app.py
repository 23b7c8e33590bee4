"""A Flower app as people write them: the same two objects run under Flower's own engine and under `fl app run`.

``client`` trains; ``idle`` does nothing, and sends back the arrays it got.
"""

from __future__ import annotations

from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from experiments.bench.drivers import networks, record

client, idle, server = ClientApp(), ClientApp(), ServerApp()


@cache
def private_examples() -> tuple[Tensor, Tensor]:
    """Every partition, loaded once a process."""
    x, y = record.examples(record.read_task())
    return torch.from_numpy(x), torch.from_numpy(y)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Plain SGD on one partition."""
    torch.set_num_threads(1)
    task = record.read_task()
    every_x, every_y = private_examples()
    partition = int(context.node_config["partition-id"])
    model = networks.NETWORKS[task.model]()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    networks.fit(model, every_x[partition], every_y[partition], task)
    return _reply(message, ArrayRecord(model.state_dict()), len(every_x[partition]))


@idle.train()
def do_nothing(message: Message, context: Context) -> Message:
    """What it costs to ask."""
    return _reply(message, message.content.array_records["arrays"], 1)


def _reply(message: Message, arrays: ArrayRecord, num_examples: int) -> Message:
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": num_examples})})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's FedAvg by its own loop; the time at the end of each round is noted where it would evaluate."""
    task, rounds = record.read_task(), record.Rounds()
    initial = ArrayRecord({name: torch.from_numpy(value) for name, value in record.start(task).items()})
    latest = [initial]

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        latest[0] = arrays
        if server_round:
            rounds.end()
        return MetricRecord({})

    strategy = FedAvg(
        fraction_train=task.cohort / task.clients,
        fraction_evaluate=0.0,
        min_train_nodes=task.cohort,
        min_available_nodes=task.clients,
    )
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=task.rounds, evaluate_fn=after_round)
    rounds.save(task, {name: array.numpy() for name, array in latest[0].items()})
