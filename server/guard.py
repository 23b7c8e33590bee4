"""What may reach a strategy: every reply is held against what was asked for, before anything is added up.

Our own devices hold themselves to the boundary (fl/messages.py) and this finds nothing. A reply of a real SuperNode is
whatever its owner's code sends, and Flower's strategies would average a NaN, broadcast an array of another shape and
weigh a client by a negative number. A refused reply becomes a Flower Error with the reason, which every strategy sets
aside: the result is that of the other replies, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Error, Message, MetricRecord
from flwr.app.message import make_message

from fl import wire
from fl.errors import RefusedUpdate
from fl.messages import MAX_NUM_EXAMPLES, check_report
from fl.parameters import Array, Parameters


@dataclass(frozen=True)
class Declared:
    """What training replies may hold.

    model   arrays of the global model's names, shapes and dtypes;   extra   the same for the algorithm's extra arrays
    grown   what keeps arrays from being of the model, in words, where their shapes say nothing: trees
    """

    model: Parameters
    extra: Parameters = field(default_factory=dict)
    grown: Callable[[Parameters], str | None] | None = None


def guarded(messages: Sequence[Message], replies: Iterable[Message], declared: Declared) -> list[Message]:
    """``replies`` to ``messages``, with an Error in the place of each that may not be aggregated."""
    asked = {message.metadata.dst_node_id for message in messages}
    seen: set[int] = set()
    out = []
    for reply in replies:
        try:
            why = "" if reply.has_error() else _objection(reply, asked, seen, declared)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            why = f"it cannot be read: {type(error).__name__}: {error}"
        out.append(refused(reply, why) if why else reply)
    return out


def refused(reply: Message, why: str) -> Message:
    """An Error in the place of ``reply``."""
    client = wire.client_of(reply.metadata.src_node_id)
    reason = f"client {client}: refused by the server: {why}"[: wire.MAX_REASON]
    return make_message(metadata=reply.metadata, error=Error(code=wire.REFUSED, reason=reason))


def sound_reports(replies: Sequence[Message], *, round: int) -> tuple[list[Message], list[dict[str, Any]]]:
    """Evaluation replies that may be merged, and the others as {"client", "reason"}."""
    sound, unsound = [], []
    for reply in replies:
        why = ""
        if reply.has_error():
            continue
        try:
            if "statistics" in reply.content.config_records:
                check_report(wire.read_report(reply, round=round))
            else:
                why = next((f"{n} is {v}" for n, v in _numbers(reply) if not math.isfinite(v)), "")
        except (RefusedUpdate, TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            why = str(error)
        if why:
            unsound.append({"client": wire.client_of(reply.metadata.src_node_id), "reason": why[: wire.MAX_REASON]})
        else:
            sound.append(reply)
    return sound, unsound


def _objection(reply: Message, asked: set[int], seen: set[int], declared: Declared) -> str:
    records, metrics = reply.content.array_records, reply.content.metric_records
    if len(metrics) != 1:
        return f"{len(metrics)} metric records, not one"
    (numbers,) = metrics.values()
    is_sum = "sum" in records
    rows = _columns(numbers) if is_sum else []
    node = reply.metadata.src_node_id
    if node not in asked:
        return f"client {wire.client_of(node)} was not asked"
    # Of several clients each has a node of its own here; one that answers for itself may be any SuperNode's.
    answers_for = [int(row[wire.CLIENT]) for row in rows] if is_sum else [wire.client_of(node)]
    if strangers := [c for c in answers_for if len(answers_for) > 1 and wire.node_of(c) not in asked]:
        return f"it answers for client {strangers[0]}, who was not asked"
    if len(set(answers_for)) < len(answers_for) or seen & set(answers_for):
        return "its client has answered already"
    if not is_sum and (why := _weight(numbers.get(wire.NUM_EXAMPLES), wire.NUM_EXAMPLES)):
        return why
    for name, value in numbers.items():
        if not isinstance(value, list) and not math.isfinite(value):
            return f"{name} is {value}"
    why = _of_sum(records, rows, declared) if is_sum else _of_one(records, declared)
    if not why:
        seen.update(answers_for)
    return why


def _of_one(records: Mapping[str, ArrayRecord], declared: Declared) -> str:
    if len(records) != 1:
        return f"{len(records)} array records, not one"
    (arrays,) = (wire.arrays_of(record) for record in records.values())
    return _arrays(arrays, declared.model) if declared.grown is None else declared.grown(arrays) or ""


def _of_sum(records: Mapping[str, ArrayRecord], rows: Sequence[Mapping[str, float]], declared: Declared) -> str:
    if unknown := sorted(records.keys() - {"sum", "extra"}):
        return f"an array record {unknown[0]!r} was not asked for"
    if not rows:
        return "a sum over no client"
    extra = wire.arrays_of(records["extra"]) if "extra" in records else {}
    return (
        _arrays(wire.arrays_of(records["sum"]), declared.model, summed=True)
        or _arrays(extra, declared.extra, summed=True)
        or next((why for row in rows if (why := _weight(row.get("weight"), "weight"))), "")
        or next((f"{n} is {v}" for row in rows for n, v in row.items() if not math.isfinite(v)), "")
    )


def _arrays(arrays: Parameters, like: Parameters, *, summed: bool = False) -> str:
    for name in like:
        if name not in arrays:
            return f"array {name!r} is missing"
    for name, value in arrays.items():
        if name not in like:
            return f"array {name!r} was not asked for"
        if value.shape != like[name].shape:
            return f"array {name!r} has shape {value.shape}, expected {like[name].shape}"
        dtype = like[name].dtype
        if summed and not np.issubdtype(dtype, np.floating):
            dtype = np.dtype(np.float64)  # whole numbers are added up so
        if value.dtype != dtype:
            return f"array {name!r} has dtype {value.dtype}, expected {dtype}"
        if not _finite(value):
            return f"array {name!r} holds a NaN or an infinity"
    return ""


def _finite(value: Array) -> bool:
    """One pass over the numbers in nearly every case: a sum is finite if all of them are, or has overflowed."""
    if not np.issubdtype(value.dtype, np.floating):
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(value.sum())) or bool(np.isfinite(value).all())


def _weight(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is {value!r}, not a number"
    if not math.isfinite(value) or not 0 < value <= MAX_NUM_EXAMPLES:
        return f"{name} is {value}, allowed: above 0, at most {MAX_NUM_EXAMPLES}"
    return ""


def _columns(record: MetricRecord) -> list[dict[str, float]]:
    columns = {name: [float(v) for v in value] for name, value in record.items() if isinstance(value, list)}
    return [dict(zip(columns, numbers, strict=True)) for numbers in zip(*columns.values(), strict=True)]


def _numbers(reply: Message) -> list[tuple[str, float]]:
    found = (record.items() for record in reply.content.metric_records.values())
    return [(name, float(value)) for items in found for name, value in items if isinstance(value, int | float)]
