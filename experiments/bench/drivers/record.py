"""What every driver is given, and what it leaves behind.

given   a JSON file named by the environment variable TASK, and two .npz files named in it: ``data`` with x, y and
        client (rows sorted by client, the same number each), ``start`` with the initial parameters in model order
left    one .npz file: the time at the end of each round, and the parameters after the last
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

TASK = "MEADOW_BENCH_TASK"
ROUND_ENDS = "round_ends"
PARAMETERS = "parameters/"
NOTHING = "nothing"
"""The model of a client that does nothing: it sends back what it gets."""

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Task:
    """FedAvg with plain SGD on given arrays. ``processes`` is how many may train, where the peer has a say in it."""

    data: str
    start: str
    output: str
    model: str
    clients: int
    cohort: int
    rounds: int
    batch_size: int
    epochs: int
    learning_rate: float
    processes: int
    seed: int


def read_task() -> Task:
    """The task of this process; also read by the workers that it starts, which inherit the environment."""
    return Task(**json.loads(Path(os.environ[TASK]).read_text()))


def examples(task: Task) -> tuple[Array, Array]:
    """x and y as (clients, examples a client, ...)."""
    with np.load(task.data) as held:
        x, y = held["x"], held["y"]
    return x.reshape(task.clients, -1, *x.shape[1:]), y.reshape(task.clients, -1, *y.shape[1:])


def start(task: Task) -> dict[str, Array]:
    """The initial parameters by name, in model order."""
    with np.load(task.start) as held:
        return {name: held[name] for name in held.files}


class Rounds:
    """When each round ended, by the clock of the machine (seconds since the epoch)."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def end(self) -> None:
        """A round ends now."""
        self.ends.append(time.time())

    def save(self, task: Task, parameters: Mapping[str, Array]) -> None:
        """Leave the times and the final parameters where the bench looks for them."""
        named = {PARAMETERS + name: value for name, value in parameters.items()}
        np.savez(task.output, **{ROUND_ENDS: np.array(self.ends)}, **named)  # type: ignore[arg-type]
