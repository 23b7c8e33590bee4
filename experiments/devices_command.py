"""The commands `fl devices ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments import completion
from experiments.versions import REGISTRY, Folder, Json, Name
from fl.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Devices that answer their users by their own models.")


@app.command()
def serve(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP=CHOICE | KEY=VALUE]...",
            autocompletion=completion.complete,
            help="What `fl simulate` takes: the run whose rounds go on meanwhile.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN_DIR", help="In place of a new run: one that is there, or begins elsewhere."),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="Questions a second, of all users together.")] = 200.0,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="How long they go on when the rounds are over.")
    ] = 2.0,
    follow: Annotated[
        str | None,
        typer.Option(
            "--follow", metavar="VERSION", help="With --run: an alias or a version to answer by; left out: the newest."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let simulated devices answer simulated users, each by its own model, while rounds go on.

    Every device specialises the newest version on its own data and answers on the spot. Figures are sums over all
    devices, asked by query rounds; what a user asks stays on its device.
    """
    from experiments.devices import serve_run, show, simulate_and_serve

    if run is None:
        for name, given in (("--follow", follow), ("--json", as_json)):
            if given:
                raise BadInput(key=name, got=given, allowed="only with --run")
        simulate_and_serve(overrides or [], rate=rate, seconds=seconds)
        return
    if overrides:
        raise BadInput(key="--run", got=" ".join(overrides), allowed="no settings beside it: the run has its own")
    found = serve_run(run, rate=rate, seconds=seconds, follow=follow)
    if as_json:
        import json

        print(json.dumps(found))
    else:
        show(found)


@app.command()
def build(
    version: Name,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The program.")] = Path("device.pyz"),
    registry: Folder = REGISTRY,
) -> None:
    """Write a program for a real machine that has flwr, torch and safetensors: it answers, trains, joins rounds.

    `python device.pyz --help` says how it is run.
    """
    from experiments.device_program import build as write

    print(write(version, registry=registry, output=output))
