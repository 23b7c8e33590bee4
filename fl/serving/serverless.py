"""One function for a platform that runs functions: rows in, labels or values out, by onnxruntime and a bundle alone.

It is called with the rows themselves, ``{"rows": [...]}``, or with an HTTP request as API Gateway hands it on, whose
body is that. The bundle is opened, and every file of it verified, when the first request comes; then it is kept.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fl.bundle import open_bundle
from fl.onnx_session import read
from fl.serving import rows
from fl.serving.model import Model, Unanswerable

FOLDER = "MEADOW_BUNDLE"
"""The environment variable that names the bundle's folder; without it: ``bundle`` beside the package ``fl``."""


def answer(event: Any, context: object = None) -> dict[str, Any]:
    """The answer to one request. A request over HTTP that cannot be answered gets a 400 that says why.

    Raises Unanswerable for rows that came without HTTP; BadInput, CorruptFile where the bundle is not as it should be.
    """
    del context  # what the platform tells of itself
    if not isinstance(event, Mapping) or "body" not in event:
        return _predicted(event)
    try:
        return _http(200, _predicted(_body(event)))
    except Unanswerable as error:
        return _http(400, {"error": str(error)})


@cache
def _model() -> Model:
    bundle = open_bundle(Path(os.environ.get(FOLDER) or Path(__file__).resolve().parents[2] / "bundle"))
    return Model(bundle.id[:12], bundle.id, bundle.signature, read(bundle.path("onnx")))


def _predicted(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, Mapping) or asked.keys() != {"rows"}:
        raise Unanswerable("expected an object with rows, and nothing else")
    model = _model()
    outputs = model.answer(model.inputs(rows.values_of(asked["rows"], model), stored=True))
    if not np.isfinite(outputs).all():
        raise Unanswerable("the model's answer to this is no finite number")
    return {"version": model.version, "hash": model.hash, "predictions": rows.answers_of(outputs, model.signature)}


def _body(event: Mapping[str, Any]) -> Any:
    body = event["body"]
    try:
        return json.loads(base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body)
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise Unanswerable(f"the body is not JSON: {error}") from error


def _http(status: int, told: Mapping[str, Any]) -> dict[str, Any]:
    content = json.dumps(told, allow_nan=False)
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": content}
