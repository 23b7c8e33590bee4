"""What is taken down of one request, and the line that it becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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


def lines_of(records: Sequence[Record], salt: bytes) -> list[dict[str, Any]]:
    """The JSON values of records, by the names of COLUMNS; who asked is hashed, and what is large is sketched."""
    lines = [_values(record, salt) for record in records]
    large: dict[int, list[int]] = {}
    for place, record in enumerate(records):
        if record.inputs is not None and record.inputs.size > MOST_VALUES:
            large.setdefault(record.inputs.size, []).append(place)
    for places in large.values():
        inputs = np.stack([records[place].inputs.reshape(-1) for place in places])  # type: ignore[union-attr]
        for place, sketch in zip(places, _sketches(inputs), strict=True):
            lines[place]["inputs_sketch"] = sketch
    return lines


def _values(record: Record, salt: bytes) -> dict[str, Any]:
    """Of a record, but for a sketch."""
    values = record._asdict()
    values["user"] = None if record.user is None else hash_user(record.user, salt)
    values["places"] = None if record.places is None else record.places.reshape(-1)[:MOST_VALUES].tolist()
    inputs, outputs = values.pop("inputs"), values.pop("outputs")
    if inputs is not None:
        values["rows"] = len(inputs)
        if inputs.size <= MOST_VALUES:
            values["inputs"] = _numbers(inputs)
    if outputs is not None and outputs.size <= MOST_VALUES:
        values["outputs"] = _numbers(outputs)
    return values


def _numbers(values: Array) -> list[float | None]:
    flat = values.reshape(-1)
    found: list[float | None] = flat.tolist()
    finite = np.isfinite(flat)
    return found if finite.all() else [v if good else None for v, good in zip(found, finite, strict=True)]


def _sketches(values: Array) -> list[dict[str, float]]:
    """Of each row (N, n), all at once: a call of NumPy for each took longer than the model's answer."""
    rows = values.astype(np.float64)
    if not np.isfinite(rows).all():
        return [_sketch(row[np.isfinite(row)], row.size) for row in rows]
    means = np.add.reduce(rows, axis=1) / rows.shape[1]
    spread = rows - means[:, None]
    columns = {
        "mean": means,
        "deviation": np.sqrt(np.einsum("ij,ij->i", spread, spread) / rows.shape[1]),
        "smallest": np.minimum.reduce(rows, axis=1),
        "largest": np.maximum.reduce(rows, axis=1),
    }
    names = ("missing", *columns)
    told = (column.tolist() for column in columns.values())
    return [dict(zip(names, (0, *numbers), strict=True)) for numbers in zip(*told, strict=True)]


def _sketch(known: Array, size: int) -> dict[str, float]:
    """Of ``size`` numbers, those of which are finite."""
    if not known.size:
        return {"missing": size}
    return {"missing": size - known.size} | {k: v for k, v in _sketches(known[None])[0].items() if k != "missing"}
