"""What the side of the devices holds in one process: partitions, a scratch model, the algorithm's client half.

Opened once a process, from plain values and two folders; serves every client whose turn it is there. The partitions
are opened by whoever first needs an example: a driver whose actors do the work never opens them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clients import schedule
from clients.boosting import Trees, trees_of
from clients.memory import keep_freed_memory
from clients.stacking import goes_alone
from clients.state import StateStore
from clients.training import TrainingOptions
from clients.vectorized import why_one_by_one
from fl.algorithms import fedavg
from fl.algorithms.algorithm import Algorithm, load_algorithm
from fl.cohorts import unseen_clients
from fl.data.dataset import Examples
from fl.data.store import PartitionStore, open_store, stored_signature
from fl.data.training_part import Treatment, read_treatment
from fl.errors import BadInput
from fl.messages import Boundary
from fl.models import arrays
from fl.models.build import build_model
from fl.models.frozen import freeze
from fl.parameters import Parameters, num_bytes
from fl.signature import Signature

SENDS = ("fresh", "personal")
WEIGHTINGS = ("examples", "uniform")
PATHS = ("auto", "stacked", "one_by_one")

STACK_BYTES = 2**22
"""Parameters of stacked clients together: with their activations this stays in a core's share of the cache."""

MOST_STACKED = 32

MOST_KEPT = 256
"""Clients whose training examples a process keeps at hand, where they are other than their training parts."""


@dataclass(frozen=True)
class Setting:
    """Everything a client needs to do a task, but the task.

    partitions the folder of the partition store, whose examples are as ``signature`` says
    states     the algorithm's client states;  personal  the devices' own models, None unless ``client.personal``
    treatment  what a client does to its training part before it trains
    sends      "fresh": trained from the newest version; "personal": the device's own model, as it is by then
    weighting  "examples" or "uniform": what a client weighs in a sum
    dropout_fraction   share of the devices that are gone when they should train, others every round
    holds_out  ``unseen_clients`` of the run's settings
    stack      clients that train at once, where a unit has more of them
    one_by_one   why clients train one after the other; None: a unit's clients are stacked and train at once
    trees      how the model's trees are grown; None: it is a network
    """

    partitions: Path
    signature: Signature
    module: nn.Module
    algorithm: Algorithm
    options: TrainingOptions
    seed: int
    states: StateStore
    treatment: Treatment
    personal: StateStore | None = None
    personal_epochs: int | None = None
    personal_learning_rate: float | None = None
    sends: str = "fresh"
    weighting: str = "examples"
    max_update_norm: float | None = None
    dropout_fraction: float = 0.0
    holds_out: float | list[int] | None = None
    stack: int = 1
    one_by_one: str | None = "asked for"
    trees: Trees | None = None

    @cached_property
    def store(self) -> PartitionStore:
        """The private partitions, opened at first use."""
        return open_store(self.partitions)

    def kept(self, client: int) -> Examples:
        """What is left of a client's training part in every round."""
        return self._kept(client) if self.treatment.lasts else self.store.train(client)

    def num_kept(self, client: int) -> int:
        """The length of that, by which an update is weighed; nothing is read to tell it."""
        return len(self._kept(client)) if self.treatment.lasts else self.store.num_train(client)

    @cached_property
    def _kept(self) -> Callable[[int], Examples]:
        return lru_cache(maxsize=MOST_KEPT)(lambda client: self.treatment.kept(self.store.train(client)))

    def trained_on(self, client: int, *, round: int, purpose: str) -> Examples:
        """The examples that a client trains on in a round."""
        part = self.kept(client)
        return self.treatment.drawn(part, seed=self.seed, round=round, client=client, purpose=purpose)

    @cached_property
    def unseen(self) -> frozenset[int]:
        """Clients that never train."""
        return frozenset(unseen_clients(self.holds_out, self.store.num_clients, seed=self.seed))

    @cached_property
    def own_options(self) -> TrainingOptions:
        """How a device trains for its own user: a schedule that ends at nothing must not end that too."""
        return self.options.specialised(epochs=self.personal_epochs, learning_rate=self.personal_learning_rate)

    @cached_property
    def model(self) -> Parameters:
        """Arrays of the model's names, shapes and dtypes; their values mean nothing."""
        return {name: value.copy() for name, value in arrays.parameters_of(self.module).items()}

    @cached_property
    def trainable(self) -> tuple[str, ...]:
        """Names of the arrays that training moves, in the model's order."""
        return tuple(name for name in self.model if name in set(arrays.trainable_names(self.module)))

    @cached_property
    def boundary(self) -> Boundary:
        """What may leave a client of this setting."""
        like = self.algorithm.extra_like(self.trainable_of(self.model))
        boundary = Boundary(delta=self.model, extra=like, max_norm=self.max_update_norm)
        trees = self.trees
        if trees is None:
            return boundary
        return replace(boundary, unlike=lambda sent, _: trees.why_not(sent, self.module))

    def trainable_of(self, parameters: Parameters) -> Parameters:
        """Those of ``parameters`` that training moves."""
        return {name: parameters[name] for name in self.trainable}

    def weight(self, num_examples: int) -> float:
        """What an update over ``num_examples`` weighs."""
        return float(num_examples) if self.weighting == "examples" else 1.0


def open_setting(
    values: Mapping[str, Any], *, partitions: Path, states: Path, signature: Signature | None = None
) -> Setting:
    """The setting of this process from the nested settings of a run and the two folders of the devices' side.

    The signature is read from the partitions, unless the caller knows it and leaves them closed.

    From here on this process computes with one thread: numbers that are kept must not depend on how many there are.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    signature = signature or stored_signature(partitions)
    client, model, seed = dict(values["client"]), dict(values["model"]), int(values["seed"])
    module = build_model(target=model.pop("_target_"), arguments=model, signature=signature, seed=seed)
    sends, weighting = str(client.get("sends", "fresh")), str(values["server"].get("weighting", "examples"))
    for key, got, allowed in (("client.sends", sends, SENDS), ("server.weighting", weighting, WEIGHTINGS)):
        if got not in allowed:
            raise BadInput(key=key, got=got, allowed=", ".join(allowed))
    freeze(module, client.get("frozen") or ())
    options = training_options(client, num_rounds=int(values["num_rounds"]))
    trees, treatment = trees_of(module, values), read_treatment(client, signature)
    if trees and treatment.balance == "weights":
        wanted = "oversample, undersample or null: XGBoost's trees are grown by rows"
        raise BadInput(key="client.balance", got="weights", allowed=wanted)
    reason = "XGBoost grows its trees" if trees else treatment.why_one_by_one or why_one_by_one(module, options)
    keeps_personal = bool(client.get("personal", False)) or sends == "personal"
    return Setting(
        partitions=partitions,
        signature=signature,
        module=module,
        algorithm=load_algorithm(values["algorithm"]),
        options=options,
        seed=seed,
        states=StateStore(states / "algorithm"),
        treatment=treatment,
        personal=StateStore(states / "personal") if keeps_personal else None,
        personal_epochs=client.get("personal_epochs"),
        personal_learning_rate=client.get("personal_learning_rate"),
        sends=sends,
        weighting=weighting,
        max_update_norm=client.get("max_update_norm"),
        dropout_fraction=float(client.get("dropout_fraction", 0.0)),
        holds_out=values.get("unseen_clients"),
        stack=stack_size(module),
        one_by_one=_path(str(client.get("path", "auto")), reason),
        trees=trees,
    )


def query_setting(*, partitions: Path, signature: Signature, seed: int) -> Setting:
    """A setting whose clients answer queries and train nothing: no model and no way to train one is needed."""
    return Setting(
        partitions=partitions,
        signature=signature,
        module=nn.Identity(),
        algorithm=fedavg.build(),
        options=TrainingOptions(),
        seed=seed,
        states=StateStore(partitions / "states"),
        treatment=Treatment(signature),
    )


def stack_size(module: nn.Module) -> int:
    """How many clients to stack: as many as fit a core's share of the cache, and one of a model with convolutions."""
    if goes_alone(module):
        return 1
    bytes_each = max(1, num_bytes(arrays.parameters_of(module, views=True)))
    return max(1, min(MOST_STACKED, STACK_BYTES // bytes_each))


def _path(asked: str, reason: str | None) -> str | None:
    """Why clients train one by one, given what ``client.path`` asks for and what stands against stacking them."""
    if asked not in PATHS:
        raise BadInput(key="client.path", got=asked, allowed=", ".join(PATHS))
    if asked == "stacked" and reason:
        raise BadInput(key="client.path", got=asked, allowed=f"auto or one_by_one, because {reason}")
    return "asked for" if asked == "one_by_one" else reason


def training_options(client: Mapping[str, Any], *, num_rounds: int) -> TrainingOptions:
    """The training options in the ``client`` section; BadInput names what is wrong."""
    plain = {
        name: client[name] for name in TrainingOptions.__dataclass_fields__ if name in client and name != "schedule"
    }
    return TrainingOptions(**plain, schedule=schedule.from_values(client.get("schedule") or {}, num_rounds=num_rounds))
