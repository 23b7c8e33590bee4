"""What clients send: their training task done, and the result let through the boundary.

    fresh       y_i trained from the newest version; sends y_i - x
    personal    sends its own model minus the version that came from, then specialises the newest version anew

Nothing leaves before the boundary has let it, and a client's state is kept only if its update passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from clients import personal
from clients.setting import Setting
from clients.training import Trained, train
from clients.vectorized import train_stacked
from fl.algorithms.algorithm import Correction, LocalRun
from fl.data.dataset import Examples
from fl.errors import ClientFailed, RefusedUpdate
from fl.messages import TrainTask, Update
from fl.parameters import Parameters, subtract

Outcome: TypeAlias = Update | RefusedUpdate | ClientFailed
T = TypeVar("T")


@dataclass(frozen=True)
class _Ready:
    """A client about to train from the newest version."""

    client: int
    examples: Examples
    start: Parameters
    state: Parameters
    correction: Correction


def make_updates(setting: Setting, task: TrainTask, clients: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Each of ``clients`` with its update, or with why it has none, in the order given."""
    if setting.sends == "personal":
        for client in clients:
            yield client, _attempt(client, lambda c=client: _own_model(setting, task, c))  # type: ignore[misc]
        return
    ready = {client: _attempt(client, lambda c=client: _prepare(setting, task, c)) for client in clients}  # type: ignore[misc]
    together = _train_together(setting, task, [one for one in ready.values() if isinstance(one, _Ready)])
    for client, one in ready.items():
        yield (
            client,
            one
            if not isinstance(one, _Ready)
            else _attempt(
                client,
                lambda r=one: _finish(setting, task, r, together),  # type: ignore[misc]
            ),
        )


def _attempt(client: int, work: Callable[[], T]) -> T | RefusedUpdate | ClientFailed:
    try:
        return work()
    except (RefusedUpdate, ClientFailed) as failure:
        return failure
    except Exception as error:  # noqa: BLE001  a device's fault of any kind is that device's alone
        return ClientFailed(client=client, reason=f"{type(error).__name__}: {error}")


def _prepare(setting: Setting, task: TrainTask, client: int) -> _Ready:
    algorithm, start = setting.algorithm, {name: task.parameters[name] for name in setting.trainable}
    known = setting.states.load(client, before=task.round) if algorithm.keeps_client_state else None
    state = known[1] if known else algorithm.init_client(start)
    correction = algorithm.correction(task.shared, state, start)
    if mu := task.options.get("proximal-mu"):  # Flower's own FedProx asks for it this way
        correction = Correction(proximal=correction.proximal + mu, constant=correction.constant)
    return _Ready(client, setting.store.partition(client).train, start, state, correction)


def _train_together(setting: Setting, task: TrainTask, ready: Sequence[_Ready]) -> dict[int, Trained]:
    """The whole unit at once, where the setting stacks; {} where each is to train by itself.

    If the stack fails as a whole, each trains by itself too, so that only whoever is at fault fails.
    """
    if setting.one_by_one is not None or not ready:
        return {}
    began = time.perf_counter()
    try:
        trained = train_stacked(
            setting.module,
            task.parameters,
            [one.examples for one in ready],
            setting.store.signature,
            setting.options,
            corrections=[one.correction for one in ready],
            seed=setting.seed,
            round=task.round,
            clients=[one.client for one in ready],
        )
    except Exception:  # noqa: BLE001  one client's bad examples must not take the others down
        return {}
    seconds = (time.perf_counter() - began) / len(ready)
    return {one.client: result.timed(seconds) for one, result in zip(ready, trained, strict=True)}


def _train_alone(setting: Setting, task: TrainTask, ready: _Ready) -> Trained:
    began = time.perf_counter()
    trained = train(
        setting.module,
        task.parameters,
        ready.examples,
        setting.store.signature,
        setting.options,
        correction=ready.correction,
        seed=setting.seed,
        round=task.round,
        client=ready.client,
    )
    return trained.timed(time.perf_counter() - began)


def _finish(setting: Setting, task: TrainTask, ready: _Ready, together: dict[int, Trained]) -> Update:
    """The algorithm's client update, the boundary, and what the device keeps."""
    trained = together.get(ready.client) or _train_alone(setting, task, ready)
    end = {name: trained.end[name] for name in setting.trainable}
    run = LocalRun(ready.start, end, trained.num_steps, trained.learning_rate, task.shared, ready.state)
    state, extra = setting.algorithm.client_update(run)
    delta = subtract(trained.end, task.parameters)
    update = _release(setting, task, ready.client, trained, delta=delta, extra=extra, base=task.version)
    if state:
        setting.states.save(ready.client, state, round=task.round)
    if setting.personal is not None:
        personal.keep(setting, task, ready.client, trained)
    return update


def _own_model(setting: Setting, task: TrainTask, client: int) -> Update:
    began = time.perf_counter()
    trained, delta, base = personal.hand_over(setting, task, client)
    trained = trained.timed(time.perf_counter() - began)
    return _release(setting, task, client, trained, delta=delta, extra=setting.boundary.extra, base=base)


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
            num_examples=len(setting.store.partition(client).train.y),
            statistics={"loss": trained.loss},
            seconds=trained.seconds,
        )
    )
