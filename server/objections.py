"""What keeps a reply from being aggregated, in words; "" where nothing does.

Numbers and sizes are looked at first, bytes after them, values last. What cannot be read at all raises, whatever its
reader raises: server/guard.py, which asks, takes that for an objection too.

Of one client's parameters the distance to the global model is known, and bounded. Of a sum it is not: what can be
checked is that no device claims a norm above the bound, and that the sum divided by its weight is not longer than the
bound. A longer update hides in a sum of several only where the others outweigh it, and our own devices, which alone
are added up before the server sees them, hold each to the bound themselves (fl/messages.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl import parameters as P
from fl import wire
from fl.messages import MAX_NORM, MAX_NUM_EXAMPLES, check_report
from fl.metrics import Confusion, Histogram, Mean, values
from fl.models.tasks import derived
from fl.parameters import Array, Parameters

MAX_NUMBER = 2.0**64
"""A metric above this is taken for garbage."""

MAX_BESIDE = 2**20
"""Numbers and letters of a reply beside its arrays."""

MAX_GROWN_BYTES = 2**26
"""Of arrays whose shapes nobody knows beforehand: trees."""

MAX_HEADER_BYTES = 4096
"""What npy may add to an array's own bytes."""

ROW = (wire.CLIENT, "weight", wire.NUM_EXAMPLES, "update-norm", "base-version", "loss.total", "loss.weight")
"""What the row of a sum must tell of a client."""


def no_longer(norm: float, loss: float) -> float:
    """What most strategies make of an update of ``norm``: they average it as it is."""
    return norm


@dataclass(frozen=True)
class Needs:
    """What a strategy computes with beside arrays.

    weight   the metric it weighs a client by;   loss   the metric it takes for the training loss, None: none
    length   (norm, loss) -> the norm of what it makes of an update;   divides   it divides by an update's norm
    """

    weight: str = wire.NUM_EXAMPLES
    loss: str | None = None
    length: Callable[[float, float], float] = no_longer
    divides: bool = False


@dataclass(frozen=True)
class Declared:
    """What training replies may hold.

    model     arrays of the global model's names, shapes and dtypes, and its values;   version   its number
    extra     the names, shapes and dtypes of the algorithm's extra arrays
    grown     what keeps arrays from being of the model, in words, where their shapes say nothing: trees
    max_norm  an update may not be longer; None: MAX_NORM
    """

    model: Parameters
    extra: Parameters = field(default_factory=dict)
    grown: Callable[[Parameters], str | None] | None = None
    version: int | None = None
    max_norm: float | None = None
    needs: Needs = Needs()

    @property
    def limit(self) -> float:
        """The norm an update may have."""
        return MAX_NORM if self.max_norm is None else min(self.max_norm, MAX_NORM)

    @cached_property
    def reach(self) -> float:
        """A bound on the norm of the model."""
        return _reach(self.model, self.model)


def to_parameters(content: RecordDict, declared: Declared) -> str:
    """Against one client's parameters, where those were asked for. Arrays that came as bytes are left decoded."""
    arrays, (place, numbers) = of_kind(content, ArrayRecord), _metrics(content)
    if "sum" in arrays or place == "clients":
        return "a sum, where a client's own parameters were asked for"
    if len(arrays) != 1:
        return f"{len(arrays)} array records, not one"
    ((name, record),) = arrays.items()
    needs = declared.needs
    if why := _weight(numbers.get(needs.weight), needs.weight) or _numbers(numbers) or _base(numbers, declared):
        return why
    loss = numbers.get(needs.loss) if needs.loss is not None else 0.0
    if isinstance(loss, list) or loss is None or loss < 0:
        return f"{needs.loss} is {loss}, allowed: a number from 0"
    if declared.grown is not None:
        each = MAX_GROWN_BYTES // max(1, len(record))
        grown = {n: _values(n, array, each) for n, array in record.items()}
        why = declared.grown(grown) or ""
        content[name] = wire.array_record(grown)
        return why
    if why := _names(record, declared.model):
        return why
    found = _read(record, declared.model)
    if why := _too_far(found, declared, float(loss)):
        return why
    _keep_decoded(content, name, found)
    return ""


def _too_far(found: Parameters, declared: Declared, loss: float) -> str:
    """Against the difference of a client's parameters to the global model."""
    needs, limit = declared.needs, declared.limit
    most = _reach(found, declared.model) + declared.reach
    if most <= limit and needs.length(most, loss) <= MAX_NORM and not needs.divides:  # not so with a NaN
        return ""
    if name := P.not_finite(found):
        return f"array {name!r} holds a NaN or an infinity"
    norm, rounding = _distance(found, declared.model, minus=True), _epsilon(declared.model)
    if norm > limit and (norm == math.inf or norm > limit * (1 + 4 * rounding) + P.norm(found) * rounding):
        return f"its update has norm {norm:.6g}, at most {limit:.6g}"
    if needs.divides and norm == 0.0:
        return "it is the global model itself, and the strategy divides by how far it is from that"
    if not (length := needs.length(norm, loss)) <= MAX_NORM:
        return f"{needs.loss} is {loss}: the strategy makes an update of norm {length:.6g} of it, at most {MAX_NORM:g}"
    return ""


def to_sum(content: RecordDict, declared: Declared) -> str:
    """Against the sum of a unit, where that was asked for. Arrays that came as bytes are left decoded."""
    arrays, (place, numbers) = of_kind(content, ArrayRecord), _metrics(content)
    if "sum" not in arrays or place != "clients":
        return "a client's own parameters, where a sum was asked for"
    if unknown := sorted(arrays.keys() - {"sum", "extra"}):
        return f"an array record {unknown[0]!r} was not asked for"
    rows = rows_of(content)
    why = next((why for row in rows if (why := _row(row, declared))), "") or _numbers(numbers)
    if why:
        return why
    most = len(rows) * (P.num_bytes(declared.model) + P.num_bytes(declared.extra))
    moved = numbers.get("bytes-up")
    if isinstance(moved, list) or moved is None or not 0 <= moved <= most:
        return f"bytes-up is {moved}, allowed: 0 to {most}"
    like = {"sum": declared.model, "extra": declared.extra}
    weights = {"sum": sum(row["weight"] for row in rows), "extra": float(len(rows))}
    limits = {"sum": declared.limit, "extra": MAX_NORM}
    found: dict[str, Parameters] = {}
    for name in like:
        record = arrays.get(name, ArrayRecord())
        if why := _names(record, like[name]):
            return why
        found[name] = _read(record, like[name], summed=True)
        if why := _too_long(found[name], like[name], limits[name], weight=weights[name], terms=len(rows)):
            return why
    for name in arrays:
        _keep_decoded(content, name, found[name])
    return ""


def to_report(content: RecordDict, *, averaged: bool) -> str:
    """Against an evaluation. ``averaged``: a stock strategy averages its metrics, and statistics may be missing."""
    _, numbers = _metrics(content)
    if why := _weight(numbers.get(wire.NUM_EXAMPLES), wire.NUM_EXAMPLES) or _numbers(numbers):
        return why
    if "statistics" not in of_kind(content, ConfigRecord):
        return "" if averaged else "it has no statistics"
    report = check_report(wire.report_of(content, client=0, round=0))
    plain = values(report.statistics)
    for name, statistic in report.statistics.items():
        if not isinstance(statistic, Mean | Histogram | Confusion):
            return f"{name} is a {type(statistic).__name__}, which belongs to no evaluation"
        if isinstance(statistic, Mean) and not statistic.weight <= MAX_NUM_EXAMPLES:
            return f"the weight of {name} is {statistic.weight}, at most {MAX_NUM_EXAMPLES}"
    if why := next((f"{name} is {v}" for name, v in plain.items() if not abs(v) <= MAX_NUMBER), ""):
        return why
    told = numbers.keys() - {wire.CLIENT, wire.NUM_EXAMPLES}
    if odd := sorted(told ^ plain.keys()):
        return f"{odd[0]} is not in both its metrics and its statistics"
    for name in plain:
        if name.startswith("personal_") and name.removeprefix("personal_") not in plain:
            return f"{name} has no {name.removeprefix('personal_')} to be compared with"
    derived(plain)  # a negative mean square, say
    return ""


def _too_long(found: Parameters, like: Parameters, limit: float, *, weight: float, terms: int) -> str:
    """Against a sum of ``terms`` that is to be divided by ``weight``."""
    if _reach(found, like) <= limit * weight:
        return ""
    if name := P.not_finite(found):
        return f"array {name!r} holds a NaN or an infinity"
    norm = _distance(found, like, minus=False) / weight
    if not norm <= limit * (1 + (terms + 4) * _epsilon(like)):
        return f"its update has norm {norm:.6g}, at most {limit:.6g}"
    return ""


def rows_of(content: RecordDict) -> list[dict[str, float]]:
    """The rows of a sum, one a client. Raises ValueError where its columns differ in length."""
    numbers = content["clients"]
    columns = {name: value for name, value in numbers.items() if isinstance(value, list)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        raise ValueError("a sum over no client")
    return rows


def of_kind(content: RecordDict, kind: type[Any]) -> dict[str, Any]:
    """Records of one kind by name; RecordDict's own views cost more."""
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def _metrics(content: RecordDict) -> tuple[str, MetricRecord]:
    """The one metric record of a reply, and its name. Raises ValueError for several, or for a reply that is too large
    beside its arrays.
    """
    size = 0
    for record in content.values():
        if not isinstance(record, ArrayRecord):
            size += sum(len(name) + _size(value) for name, value in record.items())
    if size > MAX_BESIDE:
        raise ValueError(f"{size} numbers and letters beside its arrays, at most {MAX_BESIDE}")
    metrics = of_kind(content, MetricRecord)
    if len(metrics) != 1:
        raise ValueError(f"{len(metrics)} metric records, not one")
    return next(iter(metrics.items()))


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_size, value)) if value and isinstance(value[0], str | bytes) else len(value)
    return len(value) if isinstance(value, str | bytes) else 1


def _row(row: Mapping[str, float], declared: Declared) -> str:
    if missing := [name for name in ROW if name not in row]:
        return f"{missing[0]} is missing"
    for name in ("weight", wire.NUM_EXAMPLES, "loss.weight"):
        if why := _weight(row[name], name):
            return why
    if not 0 <= row["update-norm"] <= declared.limit:
        return f"update-norm is {row['update-norm']}, allowed: 0 to {declared.limit:g}"
    return _base(row, declared)


def _base(numbers: Mapping[str, Any], declared: Declared) -> str:
    base, version = numbers.get("base-version", 0), declared.version
    if isinstance(base, list) or (version is not None and not 0 <= base <= version):
        return f"base-version is {base}, allowed: 0 to {version}"
    return ""


def _weight(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is {value!r}, not a number"
    if not 0 < value <= MAX_NUM_EXAMPLES:
        return f"{name} is {value}, allowed: above 0, at most {MAX_NUM_EXAMPLES}"
    return ""


def _numbers(record: Mapping[str, Any]) -> str:
    for name, value in record.items():
        for number in value if isinstance(value, list) else (value,):
            if not -MAX_NUMBER <= number <= MAX_NUMBER:
                return f"{name} is {number}, allowed: at most {MAX_NUMBER:g} either way"
    return ""


def _names(record: Mapping[str, Any], like: Parameters) -> str:
    """Against what an array record says of itself: nothing is decoded for it."""
    for name in like:
        if name not in record:
            return f"array {name!r} is missing"
    if unknown := sorted(record.keys() - like.keys()):
        return f"array {unknown[0]!r} was not asked for"
    return ""


def _read(record: Mapping[str, Any], like: Parameters, *, summed: bool = False) -> Parameters:
    """The arrays of a record in the order of ``like``, whatever order they came in: some strategies pair them so."""
    found = {}
    for name, array in like.items():
        # Whole numbers are added up in float64.
        dtype = array.dtype if not summed or _is_float(array) else np.dtype(np.float64)
        given = record[name]
        told = given.view() if isinstance(given, wire.Array) else given  # or else what it claims to be
        if tuple(told.shape) != array.shape:
            raise ValueError(f"array {name!r} has shape {tuple(told.shape)}, expected {array.shape}")
        if told.dtype != dtype:  # numpy compares names too
            raise ValueError(f"array {name!r} has dtype {told.dtype}, expected {dtype}")
        found[name] = told if told is not given else _values(name, given, array.size * dtype.itemsize)
    return found


def _values(name: str, array: Any, most_bytes: int) -> Array:
    """What an array holds. Raises ValueError if it is too large, cannot be decoded, or is not what it claims to be."""
    if isinstance(array, wire.Array):
        found: Array = array.view()
        if found.nbytes > most_bytes:
            raise ValueError(f"array {name!r} has {found.nbytes} bytes, at most {most_bytes}")
        return found
    if len(array.data) > most_bytes + MAX_HEADER_BYTES:
        raise ValueError(f"array {name!r} has {len(array.data)} bytes, at most {most_bytes + MAX_HEADER_BYTES}")
    try:
        value: Any = array.numpy()
    except Exception as error:  # bytes of anybody's making: zip files, headers that are no Python, ends too early
        raise ValueError(f"array {name!r} cannot be decoded: {type(error).__name__}: {error}") from error
    if not isinstance(value, np.ndarray):  # np.load opens zip files too
        raise TypeError(f"array {name!r} holds no array but a {type(value).__name__}")
    if value.shape != tuple(array.shape) or str(value.dtype) != array.dtype:
        claims = f"{array.dtype} of shape {tuple(array.shape)}"
        raise ValueError(f"array {name!r} is {value.dtype} of shape {value.shape} and claims to be {claims}")
    return value


def _keep_decoded(content: RecordDict, name: str, found: Parameters) -> None:
    record = content[name]
    if list(record) != list(found) or not all(isinstance(array, wire.Array) for array in record.values()):
        content[name] = wire.array_record(found)


def _distance(found: Parameters, like: Parameters, *, minus: bool) -> float:
    """The exact norm of ``found`` in the arrays that are floats in ``like``, less ``like`` itself where ``minus``."""
    floats = {name: found[name] for name, value in like.items() if _is_float(value)}
    if minus:
        floats = {name: np.subtract(value, like[name], dtype=np.float64) for name, value in floats.items()}
    return P.norm(floats)


def _reach(found: Parameters, like: Parameters) -> float:
    """A bound on the norm of ``found``; infinite or NaN where an array holds such. A quick pass that in nearly every
    case tells all there is to know.
    """
    sides = [0.0]
    with np.errstate(invalid="ignore", over="ignore"):
        for name, value in found.items():
            if not value.size or not _is_float(value):
                continue
            side = _bound(value)
            if _is_float(like[name]) or not math.isfinite(side):  # counters, added up, have no part in the norm
                sides.append(side)
    return math.hypot(*sides)


BLOCK = 2**20
"""Numbers whose squares are added up at once: in float32 that is wrong by 7 % at the most."""


def _bound(value: Array) -> float:
    """At least the norm of ``value``. Infinite too where its squares are, NaN where it holds one."""
    if value.dtype.itemsize < 4 or not value.flags.c_contiguous:
        return max(abs(float(value.max())), abs(float(value.min()))) * math.sqrt(value.size)
    flat, smallest = value.reshape(-1), float(np.finfo(value.dtype).tiny)  # a square below that may be lost
    parts = [flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK)]
    return math.sqrt(sum(float(np.dot(part, part)) for part in parts) * 1.1 + value.size * smallest)


def _epsilon(like: Parameters) -> float:
    """What a rounding may change, relative to the number."""
    return max((float(np.finfo(value.dtype).eps) for value in like.values() if _is_float(value)), default=0.0)


def _is_float(value: Array) -> bool:
    return value.dtype.kind == "f"


def layout(content: RecordDict) -> tuple[Any, ...]:
    """What must be alike in all that a stock strategy adds up: names of records and of metrics, lengths of lists."""
    arrays, metrics = of_kind(content, ArrayRecord), of_kind(content, MetricRecord)
    columns = sorted(
        (name, key, len(value) if isinstance(value, list) else -1)
        for name, record in metrics.items()
        for key, value in record.items()
    )
    return tuple(sorted(arrays)), tuple(columns)


def shapes(content: RecordDict) -> dict[str, tuple[Any, ...]]:
    """What must be alike in statistics of one name for them to be merged: their kind, size and edges."""
    record = of_kind(content, ConfigRecord).get("statistics", {})
    found: dict[str, tuple[Any, ...]] = {}
    for key, numbers in record.items():
        kind, _, name = key.partition(":")
        edges: Sequence[Any] = numbers[: len(numbers) // 2 + 1] if kind == "histogram" else ()
        found[name] = (*found.get(name, ()), kind, len(numbers), *edges)
    return found
