"""uvicorn: impatient with those who connect and send nothing, patient with what it has accepted."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SILENT_SECONDS = 10.0
"""How long a connection may take over the head of a request: a thousand that send a byte a second cost nothing."""

DRAIN_SECONDS = 8
"""How long what was accepted may take once the server is told to end."""

FEW_COLLECTIONS = 20_000
"""Objects that come to be between two collections."""

HAND_BACK_SECONDS = 0.0005
"""How long another thread may hold the interpreter while answers wait for it."""


@dataclass(frozen=True)
class Tls:
    """Files of a certificate and of its key, PEM."""

    certificate: Path
    key: Path


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection that is open for SILENT_SECONDS and has no whole head of a request under way."""

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The first head is due."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """A new head may begin: it is due from its first byte."""
        answering: Any = self.cycle  # None before the first request, whatever its type says
        if self._silence is None and (answering is None or answering.response_complete):
            self._expect()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there; its body is the application's to wait for."""
        self._relax()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to wait for."""
        self._relax()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._relax()
        self._silence = self.loop.call_later(SILENT_SECONDS, self.transport.close)

    def _relax(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


def serve(
    app: FastAPI, *, host: str, port: int, tls: Tls | None, most_connections: int, started: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; then answer what was accepted, for DRAIN_SECONDS at most.

    ``started`` is told the address once the server listens; ``port`` 0 takes a free one. Raises OSError where the
    address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(2048)
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        loop="auto",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nothing here asks where a request comes from
        limit_concurrency=most_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=str(tls.certificate) if tls else None,
        ssl_keyfile=str(tls.key) if tls else None,
        server_header=False,
    )
    server = _Server(config, lambda: started(f"{'https' if tls else 'http'}://{_name(host)}:{_port(listening)}"))
    with listening:
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then said."""
        await super().startup(sockets)
        _answer_first()
        if self.started:
            self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's. A signal that ended the server has done all it was for, and is not raised again."""
        await super().shutdown(sockets)
        self._captured_signals.clear()


def _answer_first() -> None:
    """Let nothing come between requests and their answers for long.

    What is loaded is left out of garbage collections, and they are rare: a request leaves no cycles behind. At Python's
    own thresholds one came every 30 requests and looked at each number of those being answered. And a thread that
    works beside, for a release or a log, hands the interpreter back at once, not after Python's own 5 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(FEW_COLLECTIONS, *gc.get_threshold()[1:])
    sys.setswitchinterval(HAND_BACK_SECONDS)


def _name(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
