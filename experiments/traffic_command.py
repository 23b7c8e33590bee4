"""The command `fl traffic`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json


def traffic(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `fl serve` listens.", show_default=False)],
    registry: Folder = REGISTRY,
    users: Annotated[int, typer.Option("--users", min=1, help="Who ask, each by an id of its own.")] = 1000,
    requests: Annotated[int, typer.Option("--requests", min=1, help="In all.")] = 2000,
    connections: Annotated[int, typer.Option("--connections", min=1, max=1000, help="At a time.")] = 8,
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, help="Requests a second over a day; 0: as fast as they are answered.")
    ] = 0.0,
    day: Annotated[float, typer.Option("--day", min=0.1, help="Seconds of a day, with its night.")] = 60.0,
    feedback: Annotated[
        float, typer.Option("--feedback", min=0.0, max=1.0, help="The share of answers that somebody reacts to.")
    ] = 0.5,
    delay: Annotated[float, typer.Option("--delay", min=0.0, help="Seconds until then, on average.")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Of who asks what, and when.")] = 1,
    as_json: Json = False,
) -> None:
    """Ask a server as its users do: sticky ids, day and night, feedback that comes late or never.

    What is asked are the test examples of the served version's run.
    """
    from experiments.traffic import Plan, show
    from experiments.traffic import traffic as run

    plan = Plan(
        users=users,
        requests=requests,
        connections=connections,
        rate=rate,
        day_seconds=day,
        feedback=feedback,
        delay_seconds=delay,
        seed=seed,
    )
    seen = run(url, registry=registry, plan=plan)
    if as_json:
        typer.echo(json.dumps(seen.to_dict()))
    else:
        show(seen)
