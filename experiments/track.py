"""`fl track`: the registry mirrored into what other people look at."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json
from fl import interrupts

app = typer.Typer(no_args_is_help=True, help="Mirror runs and versions into other tracking systems.")


@app.command()
def mlflow(
    uri: Annotated[
        str, typer.Option("--uri", help="http://HOST:PORT of a server, or a database such as sqlite:///FILE.")
    ],
    registry: Folder = REGISTRY,
    experiment: Annotated[str, typer.Option("--experiment", help="MLflow's experiment for the runs.")] = "meadow",
    model: Annotated[str, typer.Option("--model", help="MLflow's registered model for the versions.")] = "meadow",
    every: Annotated[
        float | None,
        typer.Option("--every", metavar="SECONDS", min=0.1, help="Go on mirroring until stopped, so often."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring MLflow up to date: runs, versions and aliases (extra tracking). Nothing is read back."""
    from fl.mlflow_mirror import mirror
    from fl.registry import Registry

    store = Registry.existing(Path(registry))
    with interrupts.handled():
        while True:
            # A signal waits for the end of a pass: one that is raised in what MLflow calls may be lost there.
            with interrupts.deferred() if every is not None else contextlib.nullcontext():
                added = mirror(store, uri=uri, experiment=experiment, model=model)
            if as_json:
                print(json.dumps(vars(added)), flush=True)
            elif every is None or any(vars(added).values()):
                words = (f"{number} {name}" for name, number in vars(added).items())
                print(f"added: {', '.join(words)}", flush=True)
            if every is None:
                return
            time.sleep(every)
