"""What clients send: their training task done, and the result let through the boundary.

    fresh       y_i trained from the newest version; sends y_i - x
    personal    sends its own model minus the version that came from, then specialises the newest version anew

Nothing leaves before the boundary has let it, and a client's state is kept only if its update passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

from clients import personal
from clients.local import Failure, Job, attempt, train_clients
from clients.setting import Setting
from clients.training import Trained
from fl.algorithms.algorithm import Correction, LocalRun
from fl.messages import TrainTask, Update
from fl.parameters import Parameters, subtract

Outcome: TypeAlias = Update | Failure


def make_updates(setting: Setting, task: TrainTask, clients: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Each of ``clients`` with its update, or with why it has none, in the order given."""
    return _own_models(setting, task, clients) if setting.sends == "personal" else _fresh(setting, task, clients)


def _fresh(setting: Setting, task: TrainTask, clients: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    states: dict[int, Parameters] = {}
    outcomes: dict[int, Failure] = {}
    jobs: list[Job] = []
    for client in clients:
        job = attempt(client, partial(_prepare, setting, task, client, states))
        if isinstance(job, Job):
            jobs.append(job)
        else:
            outcomes[client] = job
    yield from outcomes.items()
    for client, trained in train_clients(
        setting, task.parameters, jobs, options=setting.options, round=task.round
    ):  # fmt: skip
        if isinstance(trained, Trained):
            yield client, attempt(client, partial(_finish, setting, task, client, trained, states[client]))
        else:
            yield client, trained


def _prepare(setting: Setting, task: TrainTask, client: int, states: dict[int, Parameters]) -> Job:
    """The client's state, into ``states``, and the correction that follows from it."""
    algorithm, start = setting.algorithm, setting.trainable_of(task.parameters)
    known = setting.states.load(client, before=task.round) if algorithm.keeps_client_state else None
    states[client] = known[1] if known else algorithm.init_client(start)
    correction = algorithm.correction(task.shared, states[client], start)
    if mu := task.options.get("proximal-mu"):  # Flower's own FedProx asks for it this way
        correction = Correction(proximal=correction.proximal + mu, constant=correction.constant)
    return Job(client, correction)


def _finish(setting: Setting, task: TrainTask, client: int, trained: Trained, state: Parameters) -> Update:
    """The algorithm's client update, the boundary, and what the device keeps."""
    start, end = setting.trainable_of(task.parameters), setting.trainable_of(trained.end)
    run = LocalRun(start, end, trained.num_steps, trained.learning_rate, task.shared, state)
    new_state, extra = setting.algorithm.client_update(run)
    delta = setting.trees.sent(trained.end, setting.module) if setting.trees else subtract(trained.end, task.parameters)
    update = _release(setting, task, client, trained, delta=delta, extra=extra, base=task.version)
    if new_state:
        setting.states.save(client, new_state, round=task.round)
    if setting.personal is not None and setting.own_options == setting.options:
        # The same local model is the device's own, unless it trains for itself by other rules (see personal.use).
        personal.keep(setting, client, trained.end, task.parameters, version=task.version, round=task.round)
    return update


def _own_models(setting: Setting, task: TrainTask, clients: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """A device asked for the first time specialises the newest version and sends that."""
    own = {client: personal.load(setting, client, before=task.round) for client in clients}
    for client, trained in personal.specialise(
        setting, task.parameters, clients, version=task.version, round=task.round
    ):
        if not isinstance(trained, Trained):
            yield client, trained
            continue
        known = own[client]
        delta = known.delta if known else subtract(trained.end, task.parameters)
        base = known.version if known else task.version
        work = partial(_release, setting, task, client, trained, delta=delta, extra=setting.boundary.extra, base=base)
        yield client, attempt(client, work)


def _release(
    setting: Setting, task: TrainTask, client: int, trained: Trained, *, delta: Parameters, extra: Parameters, base: int
) -> Update:
    return setting.boundary.release(
        Update(
            client=client,
            round=task.round,
            base_version=base,
            delta=delta,
            extra=extra,
            num_examples=setting.num_kept(client),
            statistics={"loss": trained.loss},
            seconds=trained.seconds,
            whole=setting.trees is not None,
        )
    )
