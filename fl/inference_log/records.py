"""What is taken down of one request, and the line that it becomes part of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson

from fl.parameters import Array

ANSWER, MIRROR, FEEDBACK = "answer", "mirror", "feedback"
"""Kinds of records: what a user was answered, what a shadow said to the same, what came of it."""

COLUMNS: dict[str, str] = {
    "server": "VARCHAR",
    "number": "UBIGINT",
    "kind": "VARCHAR",
    "id": "VARCHAR",
    "time": "DOUBLE",
    "user": "VARCHAR",
    "context": "VARCHAR",
    "model": "VARCHAR",
    "version": "VARCHAR",
    "release": "VARCHAR",
    "arm": "VARCHAR",
    "status": "SMALLINT",
    "seconds": "DOUBLE",
    "rows": "INTEGER",
    "inputs": "FLOAT[]",
    "inputs_sketch": "STRUCT(missing BIGINT, mean DOUBLE, deviation DOUBLE, smallest DOUBLE, largest DOUBLE)",
    "outputs": "FLOAT[]",
    "places": "INTEGER[]",
    "reward": "DOUBLE",
}
"""Of the Parquet files, with DuckDB's types. ``time`` is seconds since 1970, ``places`` the numbers of the labels that
were answered, ``inputs`` row by row as the model took them; a sketch stands in for more values than MOST_VALUES."""


MOST_VALUES = 256


class Record(NamedTuple):
    """What is taken down of one request, or of feedback. ``user`` is hashed before it is written.

    ``places`` are MOST_VALUES at most.
    """

    kind: str
    id: str
    time: float
    user: str | None = None
    context: str | None = None
    model: str = ""
    version: str = ""
    release: str = ""
    arm: str = ""
    status: int = 200
    seconds: float = 0.0
    inputs: Array | None = None
    outputs: Array | None = None
    places: Sequence[int] | None = None
    reward: float | None = None


Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""What is taken down of several requests: of each field of Record, their values in their order."""


def hash_user(user: str, salt: bytes) -> str:
    """What stands for a user in a folder with this salt: 16 hexadecimal digits."""
    return hashlib.blake2b(user.encode(errors="surrogatepass"), key=salt, digest_size=8).hexdigest()


def columns_of(records: Sequence[Record]) -> Columns:
    """Of at least one record, for ``line_of``."""
    return dict(zip(Record._fields, zip(*records, strict=True), strict=True))


def line_of(numbers: Sequence[int], columns: Columns, *, server: str, salt: bytes) -> bytes:
    """One line for the records of a server with these numbers: their columns, and ``server`` once.

    Who asked is hashed, and what is large is sketched. A line a record took twice as long to make.
    """
    inputs = columns["inputs"]
    return _line(
        {
            **columns,
            "server": server,
            "number": numbers,
            "user": [None if user is None else hash_user(user, salt) for user in columns["user"]],
            "rows": [None if one is None else len(one) for one in inputs],
            "inputs": [_few(one) for one in inputs],
            "inputs_sketch": _sketches_of(inputs),
            "outputs": [_few(one) for one in columns["outputs"]],
        }
    )


def _few(values: Array | None) -> Array | None:
    """Row by row, unless there are more than MOST_VALUES."""
    return None if values is None or values.size > MOST_VALUES else values.reshape(-1)


def _line(columns: dict[str, Any]) -> bytes:
    """As JSON; no number stands in for one that is not finite."""
    dumps = partial(
        orjson.dumps, default=np.ndarray.tolist, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    )
    try:
        return dumps(columns)
    except TypeError:  # a text that no UTF-8 can say, which would cost all records of the line
        return dumps({name: _said(values) for name, values in columns.items()})


def _said(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_said(one) for one in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _sketches_of(inputs: Sequence[Array | None]) -> list[dict[str, float] | None]:
    """Of those inputs that are large; those of a size at once."""
    found: list[dict[str, float] | None] = [None] * len(inputs)
    large: dict[int, dict[int, Array]] = {}
    for place, one in enumerate(inputs):
        if one is not None and one.size > MOST_VALUES:
            large.setdefault(one.size, {})[place] = one
    for size, some in large.items():
        values = np.concatenate(list(some.values()), axis=None)
        for place, sketch in zip(some, _sketches(values.reshape(-1, size)), strict=True):
            found[place] = sketch
    return found


def _sketches(values: Array) -> list[dict[str, float]]:
    """Of each row (N, n), which are overwritten: all at once, since a call of NumPy for each took longer than the
    model's answer.
    """
    smallest, largest = np.minimum.reduce(values, axis=1), np.maximum.reduce(values, axis=1)
    if not (np.isfinite(smallest).all() and np.isfinite(largest).all()):  # a NaN is the smallest and the largest
        return [_sketch(row[np.isfinite(row)], row.size) for row in values]
    if values.dtype != np.float32 or not _is_plain(smallest, largest):
        values = values.astype(np.float64)
    means = np.add.reduce(values, axis=1) / values.shape[1]
    values -= means[:, None]
    deviations = np.sqrt(np.einsum("ij,ij->i", values, values) / values.shape[1])
    told = (column.tolist() for column in (means, deviations, smallest, largest))
    return [
        {"missing": 0, "mean": mean, "deviation": deviation, "smallest": low, "largest": high}
        for mean, deviation, low, high in zip(*told, strict=True)
    ]


def _is_plain(smallest: Array, largest: Array) -> bool:
    """Whether float32 is enough to add up such numbers and their squares: neither near its ends, nor far from 0 and
    close together.
    """
    peaks = np.maximum(largest, -smallest)
    near = peaks * np.float32(1e-3) < largest - smallest
    return bool(near.all()) and bool(1e-12 < peaks.min() <= peaks.max() < 1e12)


def _sketch(known: Array, size: int) -> dict[str, float]:
    """Of ``size`` numbers, those of which are finite."""
    if not known.size:
        return {"missing": size}
    return {"missing": size - known.size} | {k: v for k, v in _sketches(known[None])[0].items() if k != "missing"}
