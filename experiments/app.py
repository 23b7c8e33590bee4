"""`fl app`: Flower apps of others, unmodified, on our engine."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder
from fl.errors import BadInput

app = typer.Typer(
    help="Run Flower apps of others, unmodified.", no_args_is_help=True, rich_markup_mode="rich", add_completion=False
)


@app.callback()
def options() -> None:
    """Run Flower apps of others, unmodified."""


@app.command()
def run(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="A folder with a Flower pyproject.toml.", show_default=False)
    ] = None,
    num_clients: Annotated[int, typer.Option("--num-clients", "-n", help="Simulated clients: partitions.")] = 10,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run goes.", show_default="a new folder in outputs/")
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config", "-c", help="Settings of the app to override: \"lr=0.1 name='text'\", or a TOML file."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of every draw of randomness.")] = 1,
    engine: Annotated[
        str, typer.Option("--engine", help="auto, inprocess (one process for all clients) or ray (actors).")
    ] = "auto",
    num_actors: Annotated[
        int | None, typer.Option("--num-actors", help="Processes for the clients.", show_default="one a core")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="A Ray cluster to run on.")] = None,
    max_reply_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-reply-bytes",
            help="A larger reply of a client is refused.",
            show_default="4 times what it was sent, and 1 GiB in any case",
        ),
    ] = None,
    registry: Folder = REGISTRY,
    resume: Annotated[bool, typer.Option("--resume", help="Go on behind the last version in --run-dir.")] = False,
    server: Annotated[str | None, typer.Option("--server", help="A ServerApp as MODULE:OBJECT.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="A ClientApp as MODULE:OBJECT.")] = None,
) -> None:
    """Run a Flower app's ServerApp and ClientApp; the run's folder is the last line on stdout."""
    from experiments.app_run import Options, run_app
    from experiments.app_spec import AppSpec, check_reference, read_app, read_overrides

    if resume and run_dir is None:
        raise BadInput(key="--run-dir", got="nothing", allowed="the folder of the run to go on with")
    if server is None and client is None:
        if path is None:
            raise BadInput(key="PATH", got="nothing", allowed="the folder of a Flower app, or --server and --client")
        spec = read_app(path, *(run_config or ()))
    else:
        for key, reference in (("--server", server), ("--client", client)):
            check_reference(reference, key=key)
        folder = (path or Path()).expanduser().resolve()
        spec = AppSpec(folder, str(server), str(client), read_overrides(*(run_config or ())))
    fresh = Path("outputs") / f"{spec.folder.name}-{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}"
    options = Options(
        num_clients=num_clients,
        run_dir=run_dir or fresh,
        registry_dir=registry,
        seed=seed,
        engine=engine,
        num_actors=num_actors,
        address=address,
        max_reply_bytes=max_reply_bytes,
        resume=resume,
    )
    typer.echo(run_app(spec, options))
