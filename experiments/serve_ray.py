"""`fl serve --engine ray`: the same application in replicas on Ray Serve."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.serve import Source, application_of, is_bundle, named, need, tokens_of
from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.serving.server import Tls
    from fl.serving.service import Limits

NEEDED = {"fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve", "orjson": "serve", "aiohttp": "cluster"}


def serve_on_ray(
    versions: Sequence[str],
    *,
    registry: Path,
    host: str,
    port: int,
    runtime: str,
    token_file: Path | None,
    tls: Tls | None,
    limits: Limits,
    releases: bool,
    batching: Mapping[str, float],
    replicas: int,
    lookup: str | None = None,
    log: Path | None = None,
) -> None:
    """Serve ``versions`` in ``replicas`` processes until a signal; the address is the one line of standard output.

    ``registry``, ``lookup`` and ``log`` are opened by each replica, on whichever machine it is.

    Raises BadInput or MissingExtra before Ray is started.
    """
    need(NEEDED, key="fl serve --engine ray")
    registry = registry.expanduser().absolute()
    means, tokens = named(versions), tokens_of(token_file)
    source = Source(registry, runtime)
    for name, meaning in means.items():
        source.look(meaning)  # what there is not is told at once, not by every replica
        means[name] = str(Path(meaning).absolute()) if is_bundle(meaning) else meaning
    if lookup is not None:
        from fl.serving.predictions import open_predictions

        open_predictions(lookup, key="--lookup", writing=False).close()
    if log is not None:
        from fl.files import writable_folder
        from fl.inference_log.files import needs_duckdb

        needs_duckdb()
        log = writable_folder(log.expanduser().absolute(), key="--log")

    from clients.ray_session import start_ray, stop_ray
    from fl.serving.ray_serve import serve

    build = partial(_application, means, registry, runtime, tokens, limits, releases, dict(batching), lookup, log)
    ending = threading.Event()
    start_ray(num_cpus=replicas, address=None)
    try:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, lambda *_: ending.set())
        serve(build, host=host, port=port, tls=tls, replicas=replicas, started=_say, ending=ending)
    except OSError as error:
        allowed = f"an address that can be listened at ({error.strerror})"
        raise BadInput(key="--port", got=f"{host}:{port}", allowed=allowed) from error
    finally:
        stop_ray()


def _application(
    means: Mapping[str, str],
    registry: Path,
    runtime: str,
    tokens: Sequence[str],
    limits: Limits,
    releases: bool,
    batching: Mapping[str, float],
    lookup: str | None,
    log: Path | None,
) -> Any:
    """What a replica serves: made in its own process."""
    from fl.serving.batching import Batcher

    batcher = Batcher(
        most_rows=int(batching["most_rows"]),
        most_waiting=int(batching["most_waiting"]),
        wait_seconds=batching["wait_seconds"],
    )
    app, _ = application_of(
        means,
        Source(registry, runtime),
        batcher=batcher,
        limits=limits,
        tokens=tokens,
        releases=releases,
        lookup=lookup,
        log=log,
        tells_ids=False,  # Ray's proxy makes them, and tells them
    )
    return app


def _say(address: str) -> None:
    print(address, flush=True)
    print(f"{address}/docs says what can be asked; Ctrl-C ends it", file=sys.stderr, flush=True)
