"""What is taken down of one request, and the line that it becomes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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


def hash_user(user: str, salt: bytes) -> str:
    """What stands for a user in a folder with this salt: 16 hexadecimal digits."""
    return hashlib.blake2b(user.encode(errors="surrogatepass"), key=salt, digest_size=8).hexdigest()


def lines_of(records: Sequence[tuple[int, Record]], *, server: str, salt: bytes) -> bytes:
    """The lines of numbered records of a server; who asked is hashed, and what is large is sketched."""
    sketches = _sketches_of([record for _, record in records])
    return b"".join(
        _line(
            {
                "server": server,
                "number": number,
                "kind": one.kind,
                "id": one.id,
                "time": one.time,
                "user": None if one.user is None else hash_user(one.user, salt),
                "context": one.context,
                "model": one.model,
                "version": one.version,
                "release": one.release,
                "arm": one.arm,
                "status": one.status,
                "seconds": one.seconds,
                "rows": None if one.inputs is None else len(one.inputs),
                "inputs": _few(one.inputs),
                "inputs_sketch": sketch,
                "outputs": _few(one.outputs),
                "places": one.places,
                "reward": one.reward,
            }
        )
        for (number, one), sketch in zip(records, sketches, strict=True)
    )


def _few(values: Array | None) -> Array | None:
    """Row by row, unless there are more than MOST_VALUES."""
    return None if values is None or values.size > MOST_VALUES else values.reshape(-1)


def _line(values: dict[str, Any]) -> bytes:
    """As JSON; no number stands in for one that is not finite."""
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a text that no UTF-8 can say
        plain = {name: _numbers(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}
        return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _numbers(values: Array) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _sketches_of(records: Sequence[Record]) -> list[dict[str, float] | None]:
    """Of each record's inputs, where they are large; those of a size at once."""
    found: list[dict[str, float] | None] = [None] * len(records)
    large: dict[int, list[int]] = {}
    for place, record in enumerate(records):
        if record.inputs is not None and record.inputs.size > MOST_VALUES:
            large.setdefault(record.inputs.size, []).append(place)
    for size, places in large.items():
        inputs = np.concatenate([records[place].inputs for place in places], axis=None)
        for place, sketch in zip(places, _sketches(inputs.reshape(-1, size)), strict=True):
            found[place] = sketch
    return found


def _sketches(values: Array) -> list[dict[str, float]]:
    """Of each row (N, n), all at once: a call of NumPy for each took longer than the model's answer."""
    smallest, largest = np.minimum.reduce(values, axis=1), np.maximum.reduce(values, axis=1)
    if not (np.isfinite(smallest).all() and np.isfinite(largest).all()):  # a NaN is the smallest and the largest
        return [_sketch(row[np.isfinite(row)], row.size) for row in values]
    apart = values.astype(np.float64)
    means = np.add.reduce(apart, axis=1) / values.shape[1]
    apart -= means[:, None]
    deviations = np.sqrt(np.einsum("ij,ij->i", apart, apart) / values.shape[1])
    told = (column.tolist() for column in (means, deviations, smallest, largest))
    return [
        {"missing": 0, "mean": mean, "deviation": deviation, "smallest": low, "largest": high}
        for mean, deviation, low, high in zip(*told, strict=True)
    ]


def _sketch(known: Array, size: int) -> dict[str, float]:
    """Of ``size`` numbers, those of which are finite."""
    if not known.size:
        return {"missing": size}
    return {"missing": size - known.size} | {k: v for k, v in _sketches(known[None])[0].items() if k != "missing"}
