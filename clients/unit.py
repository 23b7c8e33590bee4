"""A work unit done: a task and some clients in, replies out. Every engine, and a real SuperNode, comes through here.

What a client does with a training task:

    fresh       y_i trained from the newest version; sends y_i - x
    personal    sends its own model minus the version that came from, then specialises the newest version anew

Nothing leaves before the boundary has let it; a client that fails or is refused answers with the reason, and the
others of its unit are not touched by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Error, RecordDict

from clients import personal
from clients.evaluation import evaluate
from clients.setting import Setting
from clients.training import Trained, train
from fl import wire
from fl.aggregators.mean import WeightedSum
from fl.algorithms.algorithm import Correction, LocalRun
from fl.errors import ClientFailed, RefusedUpdate
from fl.messages import TrainTask, Update
from fl.parameters import Parameters, norm, num_bytes, scale, subtract


@dataclass(frozen=True)
class Reply:
    """An answer of one client, or the sum over ``clients`` of a unit; ``content`` or else ``error``."""

    clients: tuple[int, ...]
    content: RecordDict | None = None
    error: Error | None = None


def answer(setting: Setting, kind: str, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    """Do the task in ``content`` ("train" or "evaluate") for ``clients``, in the order given."""
    return ANSWERS[kind](setting, content, clients)


def _train(setting: Setting, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    task, kind = wire.read_train_task(content)
    if kind == "sum":
        return _summed(setting, task, clients)
    return [_guarded(client, lambda c=client: _alone(setting, task, c)) for client in clients]  # type: ignore[misc]


def _evaluate(setting: Setting, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    task = wire.read_evaluate_task(content)
    return [_guarded(c, lambda c=c: wire.report_reply(evaluate(setting, task, c))) for c in clients]  # type: ignore[misc]


ANSWERS: dict[str, Callable[[Setting, RecordDict, Sequence[int]], list[Reply]]] = {
    "train": _train,
    "evaluate": _evaluate,
}


def _guarded(client: int, work: Callable[[], RecordDict]) -> Reply:
    try:
        return Reply((client,), content=work())
    except (RefusedUpdate, ClientFailed) as failure:
        return Reply((client,), error=wire.error_of(failure))
    except Exception as error:  # noqa: BLE001  a device's fault of any kind is that device's alone
        failed = ClientFailed(client=client, reason=f"{type(error).__name__}: {error}")
        return Reply((client,), error=wire.error_of(failed))


def _alone(setting: Setting, task: TrainTask, client: int) -> RecordDict:
    """One client's reply for a stock Flower strategy; honours what Flower's own client-side mods would."""
    update = make_update(setting, task, client)
    limit = task.options.get("clipping_norm")
    if limit is None:
        return wire.parameters_reply(update, task)
    length = norm(update.delta)
    clipped = update if length <= limit else _replace_delta(update, scale(update.delta, limit / length))
    return wire.parameters_reply(clipped, task, norm_bit=int(length <= limit))


def _replace_delta(update: Update, delta: Parameters) -> Update:
    return Update(**{**update.__dict__, "delta": delta})


def _summed(setting: Setting, task: TrainTask, clients: Sequence[int]) -> list[Reply]:
    """The unit's clients added up, one update in memory at a time, and an error for each that has none."""
    total, extra, rows, answered, failed, moved = WeightedSum(), WeightedSum(), [], [], [], 0
    for client in clients:
        updates: list[Update] = []

        def work(client: int = client, updates: list[Update] = updates) -> RecordDict:
            updates.append(make_update(setting, task, client))
            return RecordDict()

        reply = _guarded(client, work)
        if reply.error is not None:
            failed.append(reply)
            continue
        update = updates[0]
        weight = setting.weight(update.num_examples)
        total.add(update.delta, weight)
        extra.add(update.extra, 1.0)
        rows.append(wire.update_row(update, weight))
        moved += num_bytes(update.delta) + num_bytes(update.extra)
        answered.append(client)
    if not answered:
        return failed
    content = wire.sum_reply(total.arrays, extra.arrays, rows, moved)
    return [Reply(tuple(answered), content=content), *failed]


def make_update(setting: Setting, task: TrainTask, client: int) -> Update:
    """Train as ``task`` says and let the result through the boundary; keeps the client's state only if it passes."""
    began = time.perf_counter()
    if setting.sends == "personal":
        trained, delta, base = personal.hand_over(setting, task, client)
        state: Parameters = {}
        extra = setting.boundary.extra
    else:
        known = setting.states.load(client, before=task.round) if setting.algorithm.keeps_client_state else None
        trained, state, extra = _fresh(setting, task, client, known[1] if known else None)
        delta, base = subtract(trained.end, task.parameters), task.version
    update = setting.boundary.release(
        Update(
            client=client,
            round=task.round,
            base_version=base,
            delta=delta,
            extra=extra,
            num_examples=len(setting.store.partition(client).train.y),
            statistics={"loss": trained.loss},
            seconds=time.perf_counter() - began,
        )
    )
    if state:
        setting.states.save(client, state, round=task.round)
    if setting.personal is not None and setting.sends == "fresh":
        personal.keep(setting, task, client, trained)
    return update


def _fresh(
    setting: Setting, task: TrainTask, client: int, state: Parameters | None
) -> tuple[Trained, Parameters, Parameters]:
    """Train from the newest version with the algorithm's correction: the run, the new state, the extra arrays."""
    algorithm, start = setting.algorithm, {name: task.parameters[name] for name in setting.trainable}
    state = algorithm.init_client(start) if state is None else state
    correction = algorithm.correction(task.shared, state, start)
    if mu := task.options.get("proximal-mu"):  # Flower's own FedProx asks for it this way
        correction = Correction(proximal=correction.proximal + mu, constant=correction.constant)
    trained = train(
        setting.module,
        task.parameters,
        setting.store.partition(client).train,
        setting.store.signature,
        setting.options,
        correction=correction,
        seed=setting.seed,
        round=task.round,
        client=client,
    )
    end = {name: trained.end[name] for name in setting.trainable}
    run = LocalRun(start, end, trained.num_steps, trained.learning_rate, task.shared, state)
    new_state, extra = algorithm.client_update(run)
    return trained, new_state, extra
