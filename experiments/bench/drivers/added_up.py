"""A cohort's replies added up, every one of them in memory: `ours` in the server, `numpy` as one would by hand.

A round is the adding up alone. Ours is what the server does with the replies to a strategy of Flower's that wants them
all: they are held against what was asked for, counted, and aggregated by Flower's FedAvg.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import numpy as np

from experiments.bench.drivers import record
from experiments.bench.drivers.record import Array, Task

Updates = Iterator[tuple[dict[str, Array], int]]


def updates_of(task: Task, start: dict[str, Array]) -> Updates:
    """A model a client, each a little off the start by another number, and what it weighs."""
    draw = np.random.default_rng(task.seed)
    shifts = draw.normal(scale=1e-3, size=task.cohort).astype(np.float32)
    weights = draw.integers(20, 100, size=task.cohort)
    for shift, weight in zip(shifts, weights, strict=True):
        yield {name: value + shift for name, value in start.items()}, int(weight)


def by_numpy(task: Task, start: dict[str, Array]) -> Callable[[], dict[str, Array]]:
    """The weighted sum as it is written in numpy."""
    updates = list(updates_of(task, start))
    total = sum(weight for _, weight in updates)

    def add_up() -> dict[str, Array]:
        mean = {name: np.zeros_like(value) for name, value in start.items()}
        for update, weight in updates:
            for name, value in update.items():
                mean[name] += value * np.float32(weight / total)
        return mean

    return add_up


def by_ours(task: Task, start: dict[str, Array]) -> Callable[[], dict[str, Array]]:
    """What server/rounds.py does with the replies, and Flower's FedAvg."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from clients.flower_internals import begin_run, identify
    from fl import wire
    from fl.messages import TrainTask, Update
    from fl.metrics import Mean
    from fl.parameters import subtract
    from server.guard import Declared, guarded
    from server.replies import tally
    from server.stock import build_stock

    logging.getLogger("flwr").setLevel(logging.ERROR)
    begin_run("bench")
    asked = TrainTask(round=1, version=0, parameters=start)
    content = RecordDict({"arrays": wire.array_record(start), "config": ConfigRecord({"server-round": 1})})
    messages, replies = [], []
    for client, (update, weight) in enumerate(updates_of(task, start)):
        message = Message(content, wire.node_of(client), "train")
        identify(message)
        sent = Update(client, 1, 0, subtract(update, start), weight, statistics={"loss": Mean(1.0, 1.0)})
        messages.append(message)
        replies.append(Message(wire.parameters_reply(sent, asked), reply_to=message))
    strategy = build_stock(
        {"_target_": "flwr.serverapp.strategy.FedAvg"},
        num_clients=task.clients,
        cohort_size=task.cohort,
        learning_rate=task.learning_rate,
        evaluate=False,
    )

    def add_up() -> dict[str, Array]:
        sound = guarded(messages, replies, Declared(model=start))
        assert tally(messages, sound, version=0).answered == len(replies)
        arrays, _ = strategy.aggregate_train(1, sound)
        assert arrays is not None
        return wire.arrays_of(arrays)

    return add_up


def main(who: str) -> None:
    """Run the task of this process."""
    task, noted = record.read_task(), record.Rounds()
    start = record.start(task)
    add_up = {"ours": by_ours, "numpy": by_numpy}[who](task, start)
    mean = start
    noted.end()
    for _ in range(task.rounds):
        mean = add_up()
        noted.end()
    noted.save(task, mean)


if __name__ == "__main__":
    main(*sys.argv[1:])
