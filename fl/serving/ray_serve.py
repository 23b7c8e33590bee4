"""The same application on Ray Serve: replicas of it behind Ray's proxy, on one machine or over a cluster.

Ray itself is started and ended by whoever calls; each replica builds an application of its own, follows the aliases by
itself and batches what it is asked. The server of one process (server.py) starts forty times as quickly.
"""

from __future__ import annotations

import importlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from fl.serving.server import Tls

NAME = "meadow"
AT_ONCE = 1000
"""Requests that a replica may have under way; its own queue says when that is too much."""


def serve(
    build: Callable[[], FastAPI],
    *,
    host: str,
    port: int,
    tls: Tls | None,
    replicas: int,
    started: Callable[[str], None],
    ending: threading.Event,
) -> None:
    """Serve what ``build`` makes, in ``replicas`` processes, until ``ending`` is set. Ray is there already.

    build    is pickled, and called in each replica
    started  is told the address once every replica answers; ``port`` 0 takes a free one

    Raises OSError where the address cannot be had.
    """
    api: Any = importlib.import_module("ray.serve")  # half of it has no types
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((host, port))
        port = int(tried.getsockname()[1])
    files = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)} if tls else {}
    quiet = {"enable_access_log": False, "log_level": "ERROR"}

    def application() -> FastAPI:  # Ray asks for a function, and what is handed over may be another kind of callable
        return build()

    api.start(http_options={"host": host, "port": port, **files}, logging_config=quiet)
    try:
        deployment = api.deployment(
            api.ingress(application)(),
            name=NAME,
            num_replicas=replicas,
            max_ongoing_requests=AT_ONCE,
            graceful_shutdown_timeout_s=10,
        )
        api.run(deployment.bind(), name=NAME, route_prefix="/")
        started(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}")
        ending.wait()
    finally:
        api.shutdown()
