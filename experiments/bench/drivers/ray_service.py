"""The plain service of its neighbour behind Ray Serve: one replica, as its documentation shows it."""

from __future__ import annotations

import importlib
import logging
import signal
import socket
import sys
import threading
from typing import Any

from fastapi import FastAPI

from experiments.bench.drivers.plain_service import application


def main() -> None:
    """The ONNX file; prints the address."""
    import ray

    serve: Any = importlib.import_module("ray.serve")  # half of it has no types
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ending = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: ending.set())
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    model = sys.argv[1]

    def build() -> FastAPI:  # Ray asks for a function, and a partial is none
        return application(model)

    service = serve.deployment(serve.ingress(build)(), name="plain")
    serve.run(service.options(max_ongoing_requests=100).bind(), route_prefix="/")
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    ending.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
