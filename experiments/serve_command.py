"""The command `fl serve`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder
from fl.errors import BadInput


class Engine(StrEnum):
    """Where the application runs."""

    PROCESS = "process"
    RAY = "ray"


def serve(
    versions: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]VERSION...",
            help="A version, an alias that is followed, or a bundle's folder; without a name it is `model`.",
            show_default=False,
        ),
    ],
    registry: Folder = REGISTRY,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    runtime: Annotated[
        str, typer.Option("--runtime", help="torch, or onnx: exported first, answered by onnxruntime.")
    ] = "torch",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Whoever asks has to bear one of these, a line each.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="For TLS, PEM; with --key.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Of the certificate, PEM.")] = None,
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Examples in one call of the model.")] = 64,
    batch_wait: Annotated[
        float, typer.Option("--batch-wait", min=0.0, max=1.0, help="Seconds a request may wait for company.")
    ] = 0.0,
    queue_rows: Annotated[int, typer.Option("--queue-rows", min=1, help="Examples that may wait; then 429.")] = 4096,
    body_bytes: Annotated[int, typer.Option("--body-bytes", min=1, help="Of one request; then 413.")] = 32 * 2**20,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, help="Seconds to an answer; then 503.")] = 30.0,
    lookup: Annotated[
        str | None, typer.Option("--lookup", metavar="URL", help="Answers of fl predict, at /lookup/KEY.")
    ] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="At a time; then 503.")] = 1000,
    engine: Annotated[
        Engine, typer.Option("--engine", help="process: one; ray: replicas on Ray Serve (extra cluster).")
    ] = Engine.PROCESS,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Of the application, with --engine ray.")] = 1,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="DIR", help="Every request one record there, as Parquet.")
    ] = None,
    releases: Annotated[
        bool, typer.Option("--releases/--no-releases", help="Follow the releases that `fl deploy` orders.")
    ] = True,
) -> None:
    """Serve versions over HTTP: the Open Inference Protocol, and rows by the names of their columns.

    An alias is followed: after `fl versions promote` the server answers with the new champion within a second.
    So are the releases of `fl deploy`: each request goes to the version that the release's policy says.
    """
    from experiments.serve import serve as run
    from fl.serving.batching import Batcher
    from fl.serving.server import Tls
    from fl.serving.service import Limits

    if (certificate is None) != (key is None):
        given, missing = ("--certificate", "--key") if key is None else ("--key", "--certificate")
        raise BadInput(key=missing, got="nothing", allowed=f"a PEM file, since {given} is given")
    for name, path in (("--certificate", certificate), ("--key", key)):
        if path is not None and not path.is_file():
            raise BadInput(key=name, got=str(path), allowed="a PEM file that is there")
    tls = Tls(certificate, key) if certificate and key else None
    limits = Limits(body_bytes=body_bytes, answer_seconds=timeout)
    if engine is Engine.RAY:
        from experiments.serve_ray import serve_on_ray

        serve_on_ray(
            versions,
            registry=registry,
            host=host,
            port=port,
            runtime=runtime,
            token_file=token_file,
            tls=tls,
            limits=limits,
            releases=releases,
            batching={"most_rows": batch_rows, "most_waiting": queue_rows, "wait_seconds": batch_wait},
            replicas=replicas,
            lookup=lookup,
            log=log,
        )
        return
    run(
        versions,
        registry=registry,
        host=host,
        port=port,
        runtime=runtime,
        token_file=token_file,
        tls=tls,
        limits=limits,
        batcher=Batcher(most_rows=batch_rows, most_waiting=queue_rows, wait_seconds=batch_wait),
        most_connections=connections,
        lookup=lookup,
        log=log,
        releases=releases,
    )
