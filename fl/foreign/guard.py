"""Which training replies may be aggregated: those that have the names and shapes that were sent, and finite numbers.

A refused reply becomes a Flower Error with the reason, which every strategy sets aside, as it does with those of
clients that failed. Numeric dtypes may change, as they do in published apps. Trees are left alone: they grow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.serverapp.strategy import Strategy

from .records import Array
from .refused import REFUSED

MAX_WEIGHT = 2**40
TREES = ("FedXgbBagging", "FedXgbCyclic")

Layout: TypeAlias = Mapping[str, tuple[int, ...]]


def guarded(strategy: Strategy, sent: Sequence[Message], replies: Sequence[Message]) -> list[Message]:
    """``replies`` with an Error in the place of each that may not be aggregated.

    Where the app has a way of its own to aggregate, it may agree with its clients on other names and shapes than the
    server sent: there a reply must look like what its client was sent, or like more than half of its round, where so
    many look alike.
    """
    innermost = _innermost(strategy)
    if any(kind.__name__ in TREES for kind in type(innermost).__mro__):
        return list(replies)
    strict = _aggregates_as_flower(strategy) and _aggregates_as_flower(innermost)
    weight = getattr(innermost, "weighted_by_key", None) if strict else None
    contents = {message.metadata.dst_node_id: message.content for message in sent if message.has_content()}
    shared = {id(content): layout_of(content) for content in {id(c): c for c in contents.values()}.values()}
    expected = {node: shared[id(content)] for node, content in contents.items()}
    usual = None if strict else _usual(replies)
    whys = []
    for reply in replies:
        layout = expected.get(reply.metadata.src_node_id) or None
        if not strict and reply.has_content() and layout_of(reply.content) != layout:
            layout = usual
        whys.append("" if reply.has_error() else objection(reply.content, layout, weight, strict=strict))
    taken = [reply.content for reply, why in zip(replies, whys, strict=True) if reply.has_content() and not why]
    if weight is not None and not any(_number(content, weight) for content in taken):
        whys = [why or f"{weight} is 0, as in every reply that could be taken" for why in whys]
    return [
        _refused(reply, why) if why and reply.has_content() else reply for reply, why in zip(replies, whys, strict=True)
    ]


def _refused(reply: Message, why: str) -> Message:
    return make_message(metadata=reply.metadata, error=Error(REFUSED, f"refused: {why}"))


def objection(content: RecordDict, layout: Layout | None, weight: str | None, *, strict: bool) -> str:
    """Why a reply may not be aggregated, "" if it may. ``layout``: the shapes it must have, by name, if any."""
    arrays = content.array_records.values()
    if strict and len(arrays) != 1:
        return f"{len(arrays)} array records, not one"
    found_layout = None if layout is None else layout_of(content)
    if layout is not None and found_layout is not None and found_layout != layout:
        return _difference(found_layout, layout)
    for record in arrays:
        for name, array in record.items():
            if not strict and array.stype != "numpy.ndarray":
                continue  # bytes that only the app can read
            if why := _objection_to_values(array):
                return f"array {name!r} {why}"
    if weight is not None:
        if len(content.metric_records) != 1:
            return f"{len(content.metric_records)} metric records, not one"
        return _objection_to_weight(weight, _number(content, weight))
    return ""


def layout_of(content: RecordDict) -> Layout | None:
    """Shapes by name of the one array record; None if there is none, or several."""
    records = list(content.array_records.values())
    return {name: tuple(array.shape) for name, array in records[0].items()} if len(records) == 1 else None


def _objection_to_values(array: Any) -> str:
    try:
        view = array.view() if isinstance(array, Array) else None
        values = array.numpy() if view is None else view
    except Exception as error:  # noqa: BLE001  whatever bytes a client sent
        return f"cannot be read: {error}"
    if tuple(values.shape) != tuple(array.shape):
        return f"has the shape {values.shape} and claims {tuple(array.shape)}"
    if values.dtype.kind not in "biufc":
        return f"holds {values.dtype}, not numbers"
    if values.dtype.kind in "fc" and not (_squares_are_finite(values) or np.isfinite(values).all()):
        return "holds a NaN or an infinity"
    return ""


def _squares_are_finite(values: np.ndarray[Any, Any]) -> bool:
    """Whether the sum of squares is finite: then every value is, and one pass without a table of truths has told."""
    flat = values.reshape(-1)
    return math.isfinite(abs(np.dot(flat, flat)))


def _number(content: RecordDict, name: str) -> Any:
    """The number of that name in the one metric record."""
    (record,) = content.metric_records.values()
    return record.get(name)


def _objection_to_weight(name: str, value: Any) -> str:
    """A client without examples may say so: it adds nothing to a mean, and is one of those that a median is of."""
    if value is None:
        return f"no {name!r} among its metrics"
    if isinstance(value, list) or not 0 <= value <= MAX_WEIGHT:
        return f"{name} is {value}, allowed: 0 to {MAX_WEIGHT}"
    return ""


def _difference(found: Layout, expected: Layout) -> str:
    for name in expected:
        if name not in found:
            return f"array {name!r} is missing"
        if found[name] != expected[name]:
            return f"array {name!r} has the shape {found[name]}, not {expected[name]}"
    return f"array {next(name for name in found if name not in expected)!r} was not asked for"


def _usual(replies: Sequence[Message]) -> Layout | None:
    """The layout that more than half of the replies have, if any: where each has its own, none is the usual one."""
    found = [layout_of(reply.content) for reply in replies if reply.has_content()]
    layouts = [layout for layout in found if layout is not None]
    counts = Counter(tuple(sorted(layout.items())) for layout in layouts)
    return next((dict(layout) for layout, times in counts.items() if 2 * times > len(layouts)), None)


def _innermost(strategy: Strategy) -> Strategy:
    """The strategy that aggregates, behind those that wrap it."""
    inner = getattr(strategy, "strategy", None)
    return _innermost(inner) if isinstance(inner, Strategy) else strategy


def _aggregates_as_flower(strategy: Strategy) -> bool:
    return str(type(strategy).aggregate_train.__module__).startswith("flwr.")
