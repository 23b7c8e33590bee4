"""What is taken down of one request, and the line that it becomes."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

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
    """What is taken down of one request, or of feedback. ``user`` is hashed before it is written."""

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
    places: Array | None = None
    reward: float | None = None


def hash_user(user: str, salt: bytes) -> str:
    """What stands for a user in a folder with this salt: 16 hexadecimal digits."""
    return hashlib.blake2b(user.encode(errors="surrogatepass"), key=salt, digest_size=8).hexdigest()


def line_values(record: Record, salt: bytes) -> dict[str, Any]:
    """The JSON values of a record, by the names of COLUMNS; who asked is hashed, and what is large is sketched."""
    values = record._asdict()
    values["user"] = None if record.user is None else hash_user(record.user, salt)
    values["places"] = None if record.places is None else record.places.reshape(-1)[:MOST_VALUES].tolist()
    inputs, outputs = values.pop("inputs"), values.pop("outputs")
    if inputs is not None:
        values["rows"] = len(inputs)
        whole = inputs.size <= MOST_VALUES
        values["inputs" if whole else "inputs_sketch"] = _numbers(inputs) if whole else _sketch(inputs)
    if outputs is not None and outputs.size <= MOST_VALUES:
        values["outputs"] = _numbers(outputs)
    return values


def _numbers(values: Array) -> list[float | None]:
    flat = values.reshape(-1)
    found: list[float | None] = flat.tolist()
    finite = np.isfinite(flat)
    return found if finite.all() else [v if good else None for v, good in zip(found, finite, strict=True)]


def _sketch(values: Array) -> dict[str, float]:
    """By sums of our own: NumPy's mean and std take several times as long, and this is done for every request."""
    flat = values.reshape(-1).astype(np.float64)
    finite = np.isfinite(flat)
    known = flat if finite.all() else flat[finite]
    if not known.size:
        return {"missing": values.size}
    mean = float(np.add.reduce(known)) / known.size
    known_less_mean = known - mean
    return {
        "missing": values.size - known.size,
        "mean": mean,
        "deviation": math.sqrt(float(known_less_mean @ known_less_mean) / known.size),
        "smallest": float(np.minimum.reduce(known)),
        "largest": float(np.maximum.reduce(known)),
    }
