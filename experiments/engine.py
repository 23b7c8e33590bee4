"""Which engine a run uses: Ray actors, or the calling process. The same bits either way; only time differs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from clients.grid import Executor
    from clients.setting import Setting

ENGINES = ("auto", "inprocess", "ray")

RAY_START_SECONDS = 6.0
"""What starting Ray and its actors costs on two quiet cores."""


@dataclass(frozen=True)
class Engine:
    """The engine chosen, why, and how many actors it has (0: none)."""

    name: str
    reason: str
    num_actors: int


def choose(settings: Mapping[str, Any], setting: Setting, *, num_rounds: int, cohort_size: int) -> Engine:
    """The engine that ``engine.name`` asks for; "auto" takes Ray where it would win back the time it takes to start.

    One training step is timed, and multiplied by the steps of an average client, the cohort and the rounds.
    """
    name, cores = str(settings["name"]), available_cores()
    num_actors = settings.get("num_actors")
    if name not in ENGINES:
        raise BadInput(key="engine", got=name, allowed=", ".join(ENGINES))
    if num_actors is not None and num_actors < 1:
        raise BadInput(key="engine.num_actors", got=num_actors, allowed="at least 1, or null for one a core")
    actors = int(num_actors or cores)
    if name == "ray" or settings.get("address"):
        return Engine("ray", "asked for", actors)
    if name == "inprocess":
        return Engine("inprocess", "asked for", 0)
    estimate = step_seconds(setting) * average_steps(setting) * cohort_size * num_rounds
    saved = estimate * (1 - 1 / actors)
    if saved > 2 * RAY_START_SECONDS:
        return Engine("ray", f"about {estimate:.0f} s of training, shared by {actors} actors", actors)
    return Engine("inprocess", f"about {estimate:.1f} s of training: too little to share", 0)


MOST_UNITS = 64
"""Work units a round at the most: enough to balance many actors, few enough to merge in no time."""


def open_executor(
    engine: Engine, setting: Setting, values: Mapping[str, Any], *, partitions: Path, states: Path
) -> Executor:
    """Start what does the work units."""
    if engine.name == "inprocess":
        from clients.inprocess import InProcess

        return InProcess(setting)
    from clients.actor import RayActors

    return RayActors(
        num_actors=engine.num_actors,
        values=values,
        partitions=partitions,
        states=states,
        address=values["engine"].get("address"),
    )


def unit_size(asked: int | None, setting: Setting, *, cohort_size: int) -> int:
    """Clients a work unit: what was asked for, or what suits the model. It depends on that and the cohort alone.

    Clients that are stacked stay together, but a cohort makes two units at least, so that two actors can share it;
    clients that train one by one gain nothing from being together. A large cohort makes larger units, since the
    server merges one sum a unit.
    """
    if asked is not None:
        return asked
    together = 1 if setting.one_by_one is not None else min(setting.stack, -(-cohort_size // 2))
    return max(together, -(-cohort_size // MOST_UNITS))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def average_steps(setting: Setting) -> float:
    """Local steps of an average client, from the sizes of up to 50 of them."""
    clients = range(0, setting.store.num_clients, max(1, setting.store.num_clients // 50))
    steps = [setting.options.num_steps(max(1, setting.store.num_train(client))) for client in clients]
    return sum(steps) / len(steps)


def step_seconds(setting: Setting) -> float:
    """Seconds of one local step, timed on the first client: the best of a few short runs."""
    from dataclasses import replace

    from clients.training import train
    from fl.algorithms.algorithm import Correction

    examples = setting.store.partition(0).train
    options = replace(setting.options, local_epochs=None, local_steps=3)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        train(
            setting.module,
            setting.model,
            examples,
            setting.signature,
            options,
            correction=Correction(),
            seed=setting.seed,
            round=1,
            client=0,
        )
        best = min(best, time.perf_counter() - began)
    return best / 3
