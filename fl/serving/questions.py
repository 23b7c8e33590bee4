"""What is asked, and how it is answered: tensors of the Open Inference Protocol, or rows for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response

from fl.parameters import Array
from fl.serving import rows, tensors
from fl.serving.model import Model, Unanswerable
from fl.serving.visit import Visit

INPUT, OUTPUT, LABEL = "input", "output", "label"


@dataclass(frozen=True, slots=True)
class Question:
    """What is left of a body once it is read: ``inputs`` of the model, and how its outputs are told.

    While the model is waited for, nothing else is kept: thirty lists of a picture's numbers fill a processor's cache.
    """

    inputs: Array
    tell: Callable[[Array, Visit], Response]


Read = Callable[[Request, bytes, Model], Question]
"""Of a kind of request: a body as a question to a model. Raises Unanswerable."""


def read_tensors(request: Request, body: bytes, model: Model) -> Question:
    """As the Open Inference Protocol has it. Raises Unanswerable."""
    asked, behind = tensors.parse(body, request.headers.get(tensors.HEADER_LENGTH))
    known = [OUTPUT] if model.signature.task == "regression" else [OUTPUT, LABEL]
    wanted = tensors.outputs_wanted(asked, known)
    number = asked.get("id", "")
    if not isinstance(number, str):
        raise Unanswerable("id: expected a text")
    given = tensors.input_of(asked, behind, name=INPUT)
    if not given.ndim:
        raise Unanswerable("shape: the first axis is that of the examples")
    stored = given.dtype.kind in "biu" and model.signature.input_dtype != "int64"
    binary = [one for one in wanted if tensors.as_bytes(asked, one)]
    return Question(model.inputs(given, stored=stored), partial(_told_tensors, wanted, binary, number))


def _told_tensors(wanted: Sequence[str], binary: Sequence[str], number: str, outputs: Array, visit: Visit) -> Response:
    model = visit.lane.model
    found = {OUTPUT: outputs, **({LABEL: rows.labels_of(outputs, model.signature)} if LABEL in wanted else {})}
    about = {"model_name": visit.name, "model_version": model.version, **({"id": number} if number else {})}
    content, length = tensors.encode(about, {one: found[one] for one in wanted}, binary)
    if length is None:
        return Response(content, media_type="application/json")
    headers = {tensors.HEADER_LENGTH: str(length)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def read_rows(request: Request, body: bytes, model: Model) -> Question:
    """{"rows": [...]}. Raises Unanswerable."""
    asked, _ = tensors.parse(body, None)
    if strange := sorted(asked.keys() - {"rows"}):
        raise Unanswerable(f"got {strange[0]!r}, allowed: rows")
    return Question(model.inputs(rows.values_of(asked.get("rows"), model), stored=True), _told_rows)


def _told_rows(outputs: Array, visit: Visit) -> Response:
    model = visit.lane.model
    told = rows.answers_of(outputs, model.signature)
    return json_answer({"model": visit.name, "version": model.version, "hash": model.hash, "predictions": told})


def json_answer(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is a JSON object."""
    return Response(json.dumps(value, allow_nan=False), status, headers, media_type="application/json")
