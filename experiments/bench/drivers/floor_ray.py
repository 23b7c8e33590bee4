"""The rounds of ``floor_rounds`` by Ray actors: what Ray leaves of the machine. A call an actor and round, no more.

Parameters and sums pass through files that all processes map, so that a call carries the numbers of clients alone.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.bench.drivers import record
from experiments.bench.drivers.floor_rounds import Shared, train
from experiments.bench.drivers.record import Task


def mapped(file: Path, size: int) -> Tensor:
    """A vector that every process has that maps ``file``."""
    return torch.from_file(str(file), shared=True, size=size)


class Trainer:
    """An actor: its share of a cohort in, done out."""

    def __init__(self, task: Task, number: int, folder: str) -> None:
        torch.set_num_threads(1)
        self.shared = Shared(task)
        size = len(self.shared.flat)
        self.shared.flat = mapped(Path(folder, "parameters"), size)
        self.total = mapped(Path(folder, str(number)), size)
        self.generator = torch.Generator().manual_seed(task.seed * 1000 + number)

    def train(self, clients: Sequence[int]) -> None:
        """The sum of their local parameters into the actor's file."""
        train(self.shared, clients, self.total, self.generator)


def main() -> None:
    """Run the task of this process."""
    import ray

    torch.set_num_threads(1)
    task, noted = record.read_task(), record.Rounds()
    choose = np.random.default_rng(task.seed)
    start = {name: torch.from_numpy(value) for name, value in record.start(task).items()}
    size = sum(value.numel() for value in start.values())
    ray.init(
        "local", num_cpus=task.processes, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        parameters = mapped(Path(folder, "parameters"), size)
        torch.cat([value.reshape(-1) for value in start.values()], out=parameters)
        sums = [mapped(Path(folder, str(number)), size) for number in range(task.processes)]
        remote = ray.remote(num_cpus=1)(Trainer)
        actors = [remote.remote(task, number, folder) for number in range(task.processes)]
        for _ in range(task.rounds):
            cohort = choose.choice(task.clients, task.cohort, replace=False).tolist()
            shares = [cohort[i :: len(actors)] for i in range(len(actors))]
            ray.get([actor.train.remote(share) for actor, share in zip(actors, shares, strict=True)])  # type: ignore[attr-defined]
            torch.sum(torch.stack(sums), 0, out=parameters).div_(task.cohort)
            noted.end()
        lengths = [value.numel() for value in start.values()]
        parts = zip(start.items(), parameters.split(lengths), strict=True)
        noted.save(task, {name: part.reshape(value.shape).numpy() for (name, value), part in parts})
    ray.shutdown()


if __name__ == "__main__":
    main()
