"""`/lookup`: an answer that was computed ahead, by its key. It is that of the version which answers now, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response

from fl.errors import MeadowError
from fl.serving.predictions import Predictions
from fl.serving.questions import json_answer
from fl.serving.slots import Slot


def lookup_routes(predictions: Predictions, slots: Mapping[str, Slot]) -> APIRouter:
    """The route, for a server of ``slots``; the first is asked where no model is named."""
    router = APIRouter()

    async def lookup(key: str, model: str | None = None) -> Response:
        slot = slots.get(model or next(iter(slots)))
        if slot is None:
            return _said({"error": f"there is no model {model!r}, only {', '.join(slots)}"}, 404)
        now = slot.current
        try:
            found = await asyncio.to_thread(predictions.find, key, now.hash)
            if found is not None and found.answer is not None:
                about = {"key": key, "version": found.version, "hash": found.hash}
                return _said({**about, "prediction": found.answer}, 200)
            if found is not None:
                why = f"{now.version} has no answer to {key!r}: {found.reason}"
            else:
                others = await asyncio.to_thread(predictions.versions, key)
                told = f"only of {', '.join(others)}" if others else "nor of any other version"
                why = f"no answer of {now.version} is stored for {key!r}, {told}"
        except MeadowError as error:
            return _said({"error": str(error)}, 503)
        return _said({"error": why, "version": now.version}, 404)

    described: dict[int | str, dict[str, Any]] = {
        404: {"description": "No answer, and why"},
        503: {"description": "The store cannot be read now"},
    }
    router.get("/lookup/{key:path}", summary="An answer computed ahead, by its key", responses=described)(lookup)
    return router


def _said(value: Mapping[str, Any], status: int) -> Response:
    return json_answer(value, status, {"Retry-After": "1"} if status == 503 else {})
