"""The device's own specialised model.

A device fine-tunes the newest global version for its own user and keeps the result with the version it came from.
Devices outside the cohort are not told of a new version: they pick it up at their next use, and the lag (how many
versions behind they were by then) is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clients.local import Failure, Job, train_clients
from clients.setting import Setting
from clients.training import Trained, TrainingOptions
from fl.algorithms.algorithm import Correction
from fl.messages import EvaluateTask, OwnTraining
from fl.parameters import Array, Parameters, subtract

BASE = "version it came from"
DELTA = "delta/"


@dataclass(frozen=True)
class Personal:
    """A device's own model: its parameters, the version they were specialised from, and the difference to that."""

    parameters: Parameters
    delta: Parameters
    version: int


def load(setting: Setting, client: int, *, before: int) -> Personal | None:
    """The client's own model as it was before round ``before``; None if it has none yet."""
    known = setting.personal.load(client, before=before) if setting.personal else None
    if known is None:
        return None
    arrays = dict(known[1])
    version = int(arrays.pop(BASE))
    delta = {name.removeprefix(DELTA): v for name, v in arrays.items() if name.startswith(DELTA)}
    return Personal({n: v for n, v in arrays.items() if not n.startswith(DELTA)}, delta, version)


def use(setting: Setting, task: EvaluateTask, clients: Sequence[int]) -> dict[int, tuple[Parameters, int] | Failure]:
    """A use of each device: its own model, specialised anew if a newer version is out, and the lag it had."""
    own = {client: load(setting, client, before=task.round + 1) for client in clients}
    behind = [c for c, known in own.items() if known is None or known.version < task.version]
    used: dict[int, tuple[Parameters, int] | Failure] = {
        client: (known.parameters, 0) for client, known in own.items() if known is not None and client not in behind
    }
    for client, trained in specialise(setting, task.parameters, behind, version=task.version, round=task.round):
        known = own[client]
        lag = task.version - known.version if known else 0
        used[client] = (trained.end, lag) if isinstance(trained, Trained) else trained
    return used


def specialise(
    setting: Setting, parameters: Mapping[str, Array], clients: Sequence[int], *, version: int, round: int
) -> Iterator[tuple[int, Trained | Failure]]:
    """Fine-tune ``parameters`` on each client's training part and keep the results.

    No algorithm's correction: this model is for its own user alone.
    """
    for client, trained in _alone(setting, parameters, clients, setting.own_options, round=round, purpose="personal"):
        if isinstance(trained, Trained):
            keep(setting, client, trained.end, parameters, version=version, round=round)
        yield client, trained


def train_own(
    setting: Setting, task: EvaluateTask, own: OwnTraining, clients: Sequence[int]
) -> Iterator[tuple[int, Trained | Failure]]:
    """What becomes of the task's parameters by each client's ``own`` training. Nothing is read of what a device keeps,
    and nothing is kept.
    """
    options = setting.options.specialised(epochs=own.epochs, learning_rate=own.learning_rate)
    return _alone(setting, task.parameters, clients, options, round=task.round, purpose=own.purpose)


def _alone(
    setting: Setting,
    parameters: Mapping[str, Array],
    clients: Sequence[int],
    options: TrainingOptions,
    *,
    round: int,
    purpose: str,
) -> Iterator[tuple[int, Trained | Failure]]:
    jobs = [Job(client, Correction()) for client in clients]
    return train_clients(setting, parameters, jobs, options=options, round=max(round, 1), purpose=purpose)


def keep(
    setting: Setting, client: int, own: Parameters, base: Mapping[str, Array], *, version: int, round: int
) -> None:
    """Write a device's own model to its store, with the version it came from."""
    if setting.personal is None:
        return
    arrays = {**own, BASE: np.array(version, dtype=np.int64)}
    if setting.sends == "personal":
        arrays |= {DELTA + name: value for name, value in subtract(own, base).items()}
    setting.personal.save(client, arrays, round=round)
