"""The device's own specialised model.

A device fine-tunes the newest global version for its own user and keeps the result with the version it came from.
Devices outside the cohort are not told of a new version: they pick it up at their next use, and the lag (how many
versions behind they were by then) is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clients.setting import Setting
from clients.training import Trained, train
from fl.algorithms.algorithm import Correction
from fl.messages import EvaluateTask, TrainTask
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


def keep(setting: Setting, task: TrainTask, client: int, trained: Trained) -> None:
    """After fresh training: the same local model is the device's own, unless it trains longer for itself."""
    if setting.personal_epochs is None:
        _save(setting, client, trained.end, task.parameters, version=task.version, round=task.round)
    else:
        specialise(setting, client, task.parameters, version=task.version, round=task.round)


def hand_over(setting: Setting, task: TrainTask, client: int) -> tuple[Trained, Parameters, int]:
    """What a device sends when asked for its own model: how it differs from the version it came from, and which.

    A device asked for the first time specialises the newest version first. Afterwards it specialises the newest
    version, for its user and for the next time.
    """
    own = load(setting, client, before=task.round)
    trained = specialise(setting, client, task.parameters, version=task.version, round=task.round)
    if own is None:
        return trained, subtract(trained.end, task.parameters), task.version
    return trained, own.delta, own.version


def use(setting: Setting, task: EvaluateTask, client: int) -> tuple[Parameters, int]:
    """A use of the device: its own model, specialised anew if a newer version is out, and the lag it had."""
    own = load(setting, client, before=task.round + 1)
    if own is not None and own.version >= task.version:
        return own.parameters, 0
    trained = specialise(setting, client, task.parameters, version=task.version, round=task.round)
    return trained.end, task.version - own.version if own else 0


def specialise(setting: Setting, client: int, parameters: Mapping[str, Array], *, version: int, round: int) -> Trained:
    """Fine-tune ``parameters`` on the client's training part and keep the result. No algorithm's correction: this
    model is for its own user alone.
    """
    trained = train(
        setting.module,
        parameters,
        setting.store.partition(client).train,
        setting.store.signature,
        setting.options.for_epochs(setting.personal_epochs),
        correction=Correction(),
        seed=setting.seed,
        round=max(round, 1),
        client=client,
        purpose="personal",
    )
    _save(setting, client, trained.end, parameters, version=version, round=round)
    return trained


def _save(
    setting: Setting, client: int, own: Parameters, base: Mapping[str, Array], *, version: int, round: int
) -> None:
    if setting.personal is None:
        return
    arrays = {**own, BASE: np.array(version, dtype=np.int64)}
    if setting.sends == "personal":
        arrays |= {DELTA + name: value for name, value in subtract(own, base).items()}
    setting.personal.save(client, arrays, round=round)
