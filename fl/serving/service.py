"""The web application: the Open Inference Protocol, version 2, and rows by the names of their columns.

Every request has one model from beginning to end, and every answer names its version. What cannot be asked gets a 4xx
that says why; a full queue 429 and a server that is ending 503, both with Retry-After.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from fl.inference_log.writer import InferenceLog
from fl.serving import documents, tensors
from fl.serving.batching import Batcher, Overloaded
from fl.serving.gateway import Gateway, Unknown
from fl.serving.measures import Measures
from fl.serving.model import Model, Unanswerable
from fl.serving.questions import INPUT, LABEL, OUTPUT, Question, Read, json_answer, read_rows, read_tensors
from fl.serving.router import ARM_SECONDS, Closed
from fl.serving.slots import Slot, Slots
from fl.serving.steering import Steering
from fl.serving.visit import Visit

RETRY_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """Of one request: bytes of its body, seconds until all of it has come, and until it is answered."""

    body_bytes: int = 32 * 2**20
    body_seconds: float = 10.0
    answer_seconds: float = 30.0


class Refused(Exception):
    """An answer that is no success: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def application(
    slots: Slots,
    *,
    batcher: Batcher,
    limits: Limits,
    tokens: Sequence[str] = (),
    follow: bool = True,
    steering: Sequence[Steering] = (),
    log: InferenceLog | None = None,
    beside: Sequence[APIRouter] = (),
    tells_ids: bool = True,
) -> FastAPI:
    """The application that serves ``slots``.

    tokens     whoever asks has to bear one, if there are any
    steering   of the names whose releases are followed
    log        where every request is taken down; closed with the application
    beside     other paths, behind the same tokens
    tells_ids  an answer has the X-Request-Id of its request; a proxy in front may add it by itself
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for one in steering:  # a server that is started again begins where the release stands
            await one.step()
        tasks = [asyncio.create_task(one.follow()) for one in (*([slots] if follow else ()), *steering)]
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            for task in tasks:
                task.cancel()
            app.state.whole = False not in [one.close() for one in steering]
            await asyncio.to_thread(batcher.close)
            gateway.books.settle()
            if log is not None:
                await asyncio.to_thread(log.close)

    gateway = Gateway(slots, batcher, log)
    app = _Application(title="Meadow", summary="A model of a federation, behind HTTP.", lifespan=lifespan)
    app.state.ready, app.state.whole = False, True
    given = tuple(token.encode() for token in tokens)
    app.service = _Service(app, slots, gateway, limits, given, Measures.new(), tells_ids)
    app.service.route(beside)
    return app


class _Application(FastAPI):
    """Answers requests to models itself: FastAPI's own way to them takes longer than a small model.

    What they are is in its routes too, for the document that describes them.
    """

    service: _Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.service.asked(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if asked is None:
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            await self.service.let_in(request)
            response = await self.service.answered(request, *asked)
        except Refused as refused:
            response = await _refusal(request, refused)
        await response(scope, receive, send)


@dataclass(frozen=True)
class _Service:
    app: FastAPI
    slots: Slots
    gateway: Gateway
    limits: Limits
    tokens: tuple[bytes, ...]
    measures: Measures
    tells_ids: bool

    def route(self, beside: Sequence[APIRouter]) -> None:
        """Put every path into the application."""
        app = self.app
        app.exception_handler(Refused)(_refusal)
        guarded = APIRouter(dependencies=[Depends(self.let_in)], responses=documents.ERRORS)
        app.get("/v2/health/live", summary="Whether the process answers")(self._live)
        app.get("/v2/health/ready", summary="Whether it takes requests", responses=documents.ERRORS)(self._ready)
        for path, answer, summary in (
            ("/v2", self._about_server, "The server"),
            ("/metrics", self._metrics, "Figures for Prometheus"),
            ("/v2/models/{model}", self._about, "What goes in and comes out"),
            ("/v2/models/{model}/versions/{version}", self._about, "What goes in and comes out"),
            ("/v2/models/{model}/ready", self._model_ready, "Whether the model can be asked"),
            ("/v2/models/{model}/versions/{version}/ready", self._model_ready, "Whether the model can be asked"),
        ):
            guarded.get(path, summary=summary)(answer)
        for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
            guarded.post(path, summary="Tensors in, tensors out", openapi_extra=documents.INFER)(self._infer)
        for path in ("/predict", "/v2/models/{model}/predict"):
            guarded.post(path, summary="Rows in, labels or values out", openapi_extra=documents.PREDICT)(self._predict)
        guarded.post("/feedback", summary="What came of an answer", openapi_extra=documents.FEEDBACK)(self._feedback)
        guarded.get("/v2/models/{model}/release", summary="The release that is open")(self._release)
        for router in beside:
            guarded.include_router(router)
        app.include_router(guarded)

    async def let_in(self, request: Request) -> None:
        """Refused with 401, unless the request bears a token of this server or none is asked for."""
        if not self.tokens:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        known = [hmac.compare_digest(given.encode(), token) for token in self.tokens]
        if kind.lower() != "bearer" or not any(known):
            raise Refused(401, "Authorization: expected Bearer and a token of this server")

    # --- what is there

    async def _about_server(self) -> dict[str, Any]:
        return {"name": "meadow", "version": "2", "extensions": ["binary_tensor_data"]}

    async def _live(self) -> dict[str, bool]:
        return {"live": True}

    async def _ready(self) -> Response:
        return json_answer({"ready": self.app.state.ready}, 200 if self.app.state.ready else 503)

    async def _metrics(self) -> Response:
        self.measures.look(self.gateway)
        return Response(generate_latest(self.measures.registry), media_type=CONTENT_TYPE_LATEST)

    async def _about(self, model: str, version: str | None = None) -> Response:
        found = self._find(model, version)[0].current
        signature = found.signature
        dtype = tensors.NAMES[signature.input_dtype]
        outputs = [
            {"name": OUTPUT, "datatype": "FP64" if dtype == "FP64" else "FP32", "shape": [-1, *found.output_shape]}
        ]
        if signature.task != "regression":
            outputs.append({"name": LABEL, "datatype": "BYTES", "shape": [-1, *found.output_shape[:-1]]})
        return json_answer(
            {
                "name": model,
                "versions": [found.version],
                "platform": "meadow",
                "inputs": [{"name": INPUT, "datatype": dtype, "shape": [-1, *signature.input_shape]}],
                "outputs": outputs,
                "parameters": {
                    "task": signature.task,
                    "columns": list(signature.feature_names),
                    "labels": list(signature.class_names),
                    "hash": found.hash,
                },
            }
        )

    async def _model_ready(self, model: str, version: str | None = None) -> Response:
        slot, _ = self._find(model, version)
        return json_answer({"name": model, "version": slot.current.version, "ready": True, "trouble": slot.trouble})

    def _find(self, name: str, version: str | None = None) -> tuple[Slot, Model | None]:
        """The name, and the model if one was asked for by its version."""
        slot = self.slots.by_name.get(name)
        if slot is None:
            raise Refused(404, f"there is no model {name!r}, only {', '.join(self.slots.by_name)}")
        if version is None or version == slot.means:
            return slot, None
        if version == slot.current.version:
            return slot, slot.current
        raise Refused(404, f"version {version!r} is not served, but {slot.current.version}")

    # --- what is asked

    def asked(self, path: str) -> tuple[str, str | None, Read] | None:
        """Of a path that is POSTed to: the model's name, its version where one is named, and how it is read."""
        match path.split("/"):
            case ["", "predict"]:
                return next(iter(self.slots.by_name)), None, read_rows
            case ["", "v2", "models", model, "predict"] if model:
                return model, None, read_rows
            case ["", "v2", "models", model, "infer"] if model:
                return model, None, read_tensors
            case ["", "v2", "models", model, "versions", version, "infer"] if model and version:
                return model, version, read_tensors
        return None

    async def _infer(self, request: Request, model: str, version: str | None = None) -> Response:
        return await self.answered(request, model, version, read_tensors)

    async def _predict(self, request: Request, model: str | None = None) -> Response:
        return await self.answered(request, model or next(iter(self.slots.by_name)), None, read_rows)

    async def answered(self, request: Request, name: str, version: str | None, read: Read) -> Response:
        """The answer to a request. Raises Refused."""
        began = time.perf_counter()
        slot, model = self._find(name, version)
        try:
            visit = self.gateway.enter(_headers(request), name, slot, model)
        except Closed:
            self.measures.count(name, "", 503, time.perf_counter() - began)
            raise Refused(503, "one version is being replaced by another") from None
        status = 500
        try:
            response = await self._by_whom(request, visit, read)
            status = response.status_code
        except Unanswerable as error:
            status = 400
            raise Refused(status, str(error)) from error
        except Overloaded as error:
            status = 429
            raise Refused(status, f"more than {visit.lane.batcher.most_waiting} examples wait already") from error
        except TimeoutError as error:
            status = 503
            raise Refused(status, f"not answered within {self.limits.answer_seconds:g} s") from error
        except Refused as refused:
            status = refused.status
            raise
        finally:
            self.measures.count(name, visit.lane.model.version, status, time.perf_counter() - began)
            self.gateway.leave(visit, status, began)
        response.raw_headers.extend(visit.headers(with_id=self.tells_ids))
        return response

    async def _by_whom(self, request: Request, visit: Visit, read: Read) -> Response:
        """The answer of whom the request was given to, or of the champion where a challenger fails."""
        router, first = visit.router, visit.lane
        instead = router.instead(first) if router else None
        if router is None or instead is None:
            question = read(request, await self._body(request), first.model)
            async with asyncio.timeout(self.limits.answer_seconds):
                return await self._answer(visit, question)
        instead.busy += 1  # it is not taken away either, though the release may end meanwhile
        try:
            body = await self._body(request)
            asked = time.perf_counter()
            try:
                async with asyncio.timeout(min(ARM_SECONDS, self.limits.answer_seconds / 2)):
                    return await self._answer(visit, read(request, body, first.model))
            except Exception:  # noqa: BLE001  whatever a challenger does, its users are answered
                seconds = time.perf_counter() - asked
            visit.move(instead)
            async with asyncio.timeout(self.limits.answer_seconds):
                response = await self._answer(visit, read(request, body, instead.model))
            router.answered(first, user=visit.user, seconds=seconds, failed=True)  # it is not the asker's fault
            return response
        finally:
            instead.busy -= 1

    async def _answer(self, visit: Visit, question: Question) -> Response:
        lane = visit.lane
        outputs = await lane.batcher.ask(lane.model, question.inputs)
        if not np.isfinite(outputs).all():
            raise Unanswerable("the model's answer to this is no finite number")
        visit.inputs, visit.outputs = question.inputs, outputs
        self.measures.answered(visit.name, lane.model.version, rows=len(outputs))
        return question.tell(outputs, visit)

    async def _feedback(self, request: Request) -> Response:
        try:
            told, _ = tensors.parse(await self._body(request), None)
            self.gateway.feedback(told)
        except Unanswerable as error:
            raise Refused(400, str(error)) from error
        except Unknown as error:
            raise Refused(409 if error.again else 404, str(error)) from error
        return json_answer({"joined": True})

    async def _release(self, model: str) -> Response:
        router = self._find(model)[0].router
        if router is None:
            raise Refused(404, f"no release of {model} is open")
        return json_answer(router.about())

    async def _body(self, request: Request) -> bytes:
        """All of it. Refused with 413 as soon as it is seen to be too large, and with 408 where it does not come."""
        most = self.limits.body_bytes
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > most:
            raise Refused(413, f"the body has {told} bytes, at most {most}")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refused(413, f"the body has more than {most} bytes")
                    parts.append(part)
        except TimeoutError as error:
            raise Refused(408, f"the body did not come within {self.limits.body_seconds:g} s") from error
        return b"".join(parts)


def _headers(request: Request) -> dict[str, str]:
    """By name, in lower case. Starlette's own mapping reads all of them for each name that it is asked for."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}


async def _refusal(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused), "what it is registered for"
    status = refused.status
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (408, 413):  # what is left of the body is not waited for
        headers["Connection"] = "close"
    return json_answer({"error": refused.why}, status, headers)
