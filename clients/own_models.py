"""The models that devices answer by, on disk: each with the hash of the global version it was made from.

What a device answers by is kept apart from what it keeps for the rounds of a run (clients/personal.py), so that a run
has the same bits with and without users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clients import personal
from clients.setting import Setting
from clients.state import StateStore
from clients.training import Trained
from fl.messages import EvaluateTask, OwnTraining
from fl.parameters import Parameters
from fl.serving.on_device import Global, Held

HASH = "hash of the version it came from"
FOREVER = 2**31


def save(store: StateStore, client: int, base: Global, own: Parameters) -> None:
    """Keep a device's own model, in place of the one it had. Raises StorageFailed."""
    known = store.load(client, before=FOREVER)
    digest = np.frombuffer(base.hash.encode(), np.uint8)
    store.save(client, {**own, HASH: digest}, round=known[0] + 1 if known else 0)


def restored(store: StateStore, client: int, known: Callable[[str], Global | None]) -> Held | None:
    """The device's own model as it was when the device was switched off; None if it has none, or its version, which
    ``known`` finds by its hash, cannot be had any more.
    """
    kept = store.load(client, before=FOREVER)
    if kept is None:
        return None
    own = dict(kept[1])
    base = known(own.pop(HASH).tobytes().decode())
    return None if base is None else Held(base, own)


def specialised(setting: Setting, base: Global, clients: Sequence[int]) -> dict[int, Parameters | None]:
    """What becomes of a version by each client's training on its own data; None where it could not train."""
    own = OwnTraining("personal", setting.personal_epochs, setting.personal_learning_rate)
    task = EvaluateTask(max(1, base.number), base.number, base.parameters, personal=False)
    made = personal.train_own(setting, task, own, clients)
    return {client: trained.end if isinstance(trained, Trained) else None for client, trained in made}
