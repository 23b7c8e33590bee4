"""Which engine a run uses: the same bits whichever it is; only time differs.

inprocess   the calling process
forked      processes forked from it, on Linux: nothing to start, half a millisecond a round
ray         Ray actors, here or on a cluster: seconds to start, some milliseconds a round
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients import transport
from fl.errors import BadInput
from fl.parameters import num_bytes

if TYPE_CHECKING:
    from clients.dispatch import Pool
    from clients.grid import Executor, UnitGrid
    from clients.setting import Setting

ENGINES = ("auto", "forked", "inprocess", "ray")

READERS = {"inprocess": "this process", "forked": "processes forked from this one", "ray": "actors"}
"""Who reads private examples. With engine=auto this process has read some as well, to time their training."""

RAY_START_SECONDS = 6.0
"""What starting Ray and its actors costs on two quiet cores."""

START_SHARE = 0.05
"""Of a run's time, what starting Ray may cost where forking would do."""

DISPATCH_SECONDS = 0.002
"""What sharing a round out among processes costs, above what it saves."""


@dataclass(frozen=True)
class Engine:
    """The engine chosen, why, and how many actors it has (0: none)."""

    name: str
    reason: str
    num_actors: int


def choose(
    settings: Mapping[str, Any], setting: Setting, *, num_rounds: int, cohort_size: int, deadline: bool = False
) -> Engine:
    """The engine that ``engine.name`` asks for; "auto" takes the quickest.

    Some clients' training is timed, and multiplied by the cohort and the rounds. Where rounds have a ``deadline``
    clients train in processes that can be ended.
    """
    name, cores = str(settings["name"]), available_cores()
    num_actors = settings.get("num_actors")
    if name not in ENGINES:
        raise BadInput(key="engine", got=name, allowed=", ".join(ENGINES))
    if num_actors is not None and num_actors < 1:
        raise BadInput(key="engine.num_actors", got=num_actors, allowed="at least 1, or null for one a core")
    can_fork = transport.available()
    if name == "forked" and not can_fork:
        raise BadInput(key="engine", got=name, allowed="auto, inprocess or ray: this system has no memory files")
    actors = int(num_actors or cores)
    if name == "ray" or settings.get("address"):
        return Engine("ray", "asked for", actors)
    if name != "auto":
        return Engine(name, "asked for", actors if name == "forked" else 0)
    if deadline:
        why = "rounds have a deadline, and a client that hangs can be ended in a process of its own alone"
        return Engine("forked" if can_fork else "ray", why, actors)
    size = unit_size(settings.get("unit_size"), setting, cohort_size=cohort_size)
    busy = _busy(actors, cohort_size, size)
    a_round = client_seconds(setting, together=size) * cohort_size
    estimate, saved = a_round * num_rounds, a_round * (1 - 1 / busy)
    if saved < DISPATCH_SECONDS:
        return Engine("inprocess", f"about {1000 * a_round:.1f} ms of training a round: too little to share", 0)
    if estimate - estimate / busy > RAY_START_SECONDS / (START_SHARE if can_fork else 0.5):
        return Engine("ray", f"about {estimate:.0f} s of training, shared by {actors} actors", actors)
    if can_fork:
        return Engine("forked", f"about {estimate:.1f} s of training, shared by {actors} processes", actors)
    return Engine("inprocess", f"about {estimate:.1f} s of training: too little to start Ray for", 0)


TIMED_STEPS = 4

SMALL_MODEL_BYTES = 2**16
"""Parameters of a model whose steps cost what calling torch costs."""

MOST_UNITS = 64
"""Work units a round at the most: enough to balance many actors, few enough to merge in no time."""


@contextmanager
def open_grid(
    engine: Engine,
    setting: Setting,
    values: Mapping[str, Any],
    *,
    run_id: str,
    partitions: Path,
    states: Path,
    quarantined: Mapping[int, str],
) -> Iterator[UnitGrid]:
    """The grid of a run over its clients; what does their work is ended with the block.

    values        the settings of the run, with ``num_clients`` and ``cohort_size`` as they have come out
    quarantined   clients that ended their processes before, and why
    """
    from clients.grid import UnitGrid

    executor = open_executor(engine, setting, values, partitions=partitions, states=states, quarantined=quarantined)
    try:
        asked, cohort_size = values["engine"].get("unit_size"), values["cohort_size"]
        yield UnitGrid(
            run_id=run_id,
            num_clients=values["num_clients"],
            unit_size=unit_size(asked, setting, cohort_size=cohort_size),
            executor=executor,
        )
    finally:
        executor.close()


def open_executor(
    engine: Engine,
    setting: Setting,
    values: Mapping[str, Any],
    *,
    partitions: Path,
    states: Path,
    quarantined: Mapping[int, str],
) -> Executor:
    """Start what does the work units. ``quarantined``: clients that ended their processes before, and why."""
    if engine.name == "inprocess":
        from clients.inprocess import InProcess

        setting.store  # noqa: B018  opened now: what is damaged ends the run, rather than every client's task
        return InProcess(setting, quarantined=quarantined)
    from clients.dispatch import Dispatcher

    pool = _pool(engine, setting, values, partitions=partitions, states=states)
    return Dispatcher(pool, num_workers=engine.num_actors, quarantined=quarantined)


def _pool(engine: Engine, setting: Setting, values: Mapping[str, Any], *, partitions: Path, states: Path) -> Pool:
    if engine.name == "forked":
        from clients.forked import ForkedPool

        return ForkedPool(setting)
    from clients.ray_session import prepare

    prepare(values["engine"].get("address"))
    from clients.actor import RayPool

    return RayPool(
        num_actors=engine.num_actors,
        values=values,
        partitions=partitions,
        states=states,
        address=values["engine"].get("address"),
    )


def unit_size(asked: int | None, setting: Setting, *, cohort_size: int) -> int:
    """Clients a work unit: what was asked for, or what suits the model. It depends on that and the cohort alone.

    Clients that are stacked stay together, but a cohort makes two units at least, so that two actors can share it,
    unless the model is so small that a step takes as long for a few clients as for many; clients that train one by
    one gain nothing from being together. A large cohort makes larger units, since the
    server merges one sum a unit.
    """
    if asked is not None:
        return asked
    small = num_bytes(setting.model) <= SMALL_MODEL_BYTES
    if setting.one_by_one is not None:
        together = 1
    else:
        together = min(setting.stack, cohort_size if small else -(-cohort_size // 2))
    return max(together, -(-cohort_size // MOST_UNITS))


def cores_at_work(engine: Engine, setting: Setting, values: Mapping[str, Any]) -> int:
    """Cores that a round's training takes at a time, of this machine or of others. ``values``: as of ``open_grid``."""
    cohort_size = values["cohort_size"]
    size = unit_size(values["engine"].get("unit_size"), setting, cohort_size=cohort_size)
    return _busy(max(1, engine.num_actors), cohort_size, size)


def _busy(workers: int, cohort_size: int, size: int) -> int:
    return min(workers, -(-cohort_size // size))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def client_seconds(setting: Setting, *, together: int) -> float:
    """Seconds of an average client's training among ``together`` in a unit: the best of three timings.

    Of a network a few steps are timed, and multiplied by the steps of an average client.
    """
    from dataclasses import replace

    from clients.local import Job, train_clients
    from fl.algorithms.algorithm import Correction

    short = replace(setting.options, local_epochs=None, local_steps=TIMED_STEPS)
    jobs = [Job(client, Correction()) for client in range(min(together, setting.store.num_clients, setting.stack))]
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in train_clients(setting, setting.model, jobs, options=short, round=1):
            pass
        best = min(best, (time.perf_counter() - began) / len(jobs))
    return best if setting.trees else best / TIMED_STEPS * average_steps(setting)


def average_steps(setting: Setting) -> float:
    """Local steps of an average client, from the sizes of up to 50 of them."""
    clients = range(0, setting.store.num_clients, max(1, setting.store.num_clients // 50))
    steps = [setting.options.num_steps(max(1, setting.store.num_train(client))) for client in clients]
    return sum(steps) / len(steps)
