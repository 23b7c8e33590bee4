"""A work unit done: a task and some clients in, replies out. Every engine, and a real SuperNode, comes through here.

A client that fails or is refused answers with the reason, and the others of its unit are not touched by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Error, RecordDict

from clients.evaluation import evaluate_clients
from clients.query import query_clients
from clients.setting import Setting
from clients.updates import Outcome, make_updates
from fl import wire
from fl.aggregators.mean import WeightedSum
from fl.cohorts import drops_out
from fl.errors import ClientFailed, StorageFailed
from fl.messages import EvaluationReport, QueryReport, TrainTask, Update
from fl.parameters import num_bytes, scale


@dataclass(frozen=True)
class Reply:
    """An answer of one client, or the sum over ``clients`` of a unit; ``content`` or else ``error``."""

    clients: tuple[int, ...]
    content: RecordDict | None = None
    error: Error | None = None


def answer(setting: Setting, kind: str, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    """Do the task in ``content`` ("train", "evaluate" or "query") for ``clients``, in the order given. Where the
    task itself cannot be read, every client answers with that. Raises StorageFailed and nothing else.
    """
    if kind not in ANSWERS:
        return _all_failed(clients, f"there is no task {kind!r}, only {', '.join(ANSWERS)}")
    try:
        return ANSWERS[kind](setting, content, clients)
    except StorageFailed:
        raise
    except Exception as error:  # noqa: BLE001  what comes from outside must not end the process that serves others
        return _all_failed(clients, f"{type(error).__name__}: {error}")


def turned_away(clients: Sequence[int], quarantined: Mapping[int, str]) -> list[Reply]:
    """The answers of those of ``clients`` that are quarantined: an error at once, with the reason."""
    known = [client for client in clients if client in quarantined]
    return [Reply((c,), error=Error(code=wire.QUARANTINED, reason=quarantined[c][: wire.MAX_REASON])) for c in known]


def _all_failed(clients: Sequence[int], reason: str) -> list[Reply]:
    failures = [ClientFailed(client=client, reason=reason) for client in clients]
    return [Reply((failure.client,), error=wire.error_of(failure)) for failure in failures]


def _train(setting: Setting, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    task, kind = wire.read_train_task(content)
    fraction, seed = setting.dropout_fraction, setting.seed
    gone = {client: "dropped out" for client in clients if drops_out(task.round, client, fraction=fraction, seed=seed)}
    # The server does not ask them; where it cannot tell who they are, they say no themselves.
    gone |= {client: "is held out of training" for client in clients if client in setting.unseen}
    outcomes = make_updates(setting, task, [client for client in clients if client not in gone])
    replies = _summed(setting, outcomes) if kind == "sum" else [_alone(setting, task, *one) for one in outcomes]
    return [*replies, *(_gone(client, why) for client, why in gone.items())]


def _gone(client: int, why: str) -> Reply:
    return Reply((client,), error=Error(code=wire.UNAVAILABLE, reason=f"client {client} {why}"))


def _evaluate(setting: Setting, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    return [
        Reply((client,), content=wire.report_reply(outcome))
        if isinstance(outcome, EvaluationReport)
        else Reply((client,), error=wire.error_of(outcome))
        for client, outcome in evaluate_clients(setting, wire.read_evaluate_task(content), clients)
    ]


def _query(setting: Setting, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    return [
        Reply(who, content=wire.query_reply(outcome))
        if isinstance(outcome, QueryReport)
        else Reply(who, error=wire.error_of(outcome))
        for who, outcome in query_clients(setting, wire.read_query(content), clients)
    ]


ANSWERS: dict[str, Callable[[Setting, RecordDict, Sequence[int]], list[Reply]]] = {
    "train": _train,
    "evaluate": _evaluate,
    "query": _query,
}


def _alone(setting: Setting, task: TrainTask, client: int, outcome: Outcome) -> Reply:
    """One client's reply for a stock Flower strategy; honours what Flower's own client-side mods would."""
    if not isinstance(outcome, Update):
        return Reply((client,), error=wire.error_of(outcome))
    # What Flower's strategies weigh a client by.
    weight = {} if setting.weighting == "examples" else {wire.NUM_EXAMPLES: 1}
    limit = task.options.get("clipping_norm")
    if limit is None:
        return Reply((client,), content=wire.parameters_reply(outcome, task, **weight))
    length = outcome.norm
    clipped = outcome if length <= limit else replace(outcome, delta=scale(outcome.delta, limit / length))
    return Reply((client,), content=wire.parameters_reply(clipped, task, norm_bit=int(length <= limit), **weight))


def _summed(setting: Setting, outcomes: Iterable[tuple[int, Outcome]]) -> list[Reply]:
    """The unit's clients added up in client order, and an error for each that has no update."""
    total, extra, moved = WeightedSum(), WeightedSum(), 0
    rows: list[dict[str, float]] = []
    answered: list[int] = []
    failed: list[Reply] = []
    for client, outcome in outcomes:
        if not isinstance(outcome, Update):
            failed.append(Reply((client,), error=wire.error_of(outcome)))
            continue
        weight = setting.weight(outcome.num_examples)
        total.add(outcome.delta, weight)
        if outcome.extra:
            extra.add(outcome.extra, 1.0)
        rows.append(wire.update_row(outcome, weight))
        moved += num_bytes(outcome.delta) + num_bytes(outcome.extra)
        answered.append(client)
    if not answered:
        return failed
    content = wire.sum_reply(total.arrays, extra.arrays, rows, moved)
    return [Reply(tuple(answered), content=content), *failed]
