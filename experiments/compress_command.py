"""The commands `fl compress`, and `fl formats`, which measures what every format makes of a version."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json, Name


def compress(
    version: Name,
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[model=NAME [model.KEY=VALUE]...]",
            help="A smaller model that learns from the version's answers.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        float | None, typer.Option("--prune", metavar="SHARE", help="Set the smallest weights to zero: this share.")
    ] = None,
    prune_units: Annotated[
        float | None,
        typer.Option("--prune-units", metavar="SHARE", help="Take out this share of every layer's hidden units."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help="Of learning from the original on public examples: 20, or 100 for a new model."),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the soft labels.")] = 2.0,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Left out: server.seeding_batch_size of the run.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Left out: server.seeding_learning_rate of the run.")
    ] = None,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Make a smaller version of a version, and tell what that costs.

    Where success criteria are set, it is held against them too: exit status 4 if it does not fulfil them.
    """
    from experiments.compress import Training, run_compress
    from fl.registry import Registry

    training = Training(epochs, temperature, batch_size, learning_rate)
    status = run_compress(
        version,
        registry=Registry.existing(registry),
        as_json=as_json,
        model=model or (),
        prune=prune,
        prune_units=prune_units,
        training=training,
    )
    raise typer.Exit(status)


def formats(
    versions: Annotated[
        list[str], typer.Argument(metavar="[LABEL=]VERSION...", help="A column each.", show_default=False)
    ],
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option("--format", help="Those of fl export, with commas; left out: all of them.")
    ] = "",
    shown: Annotated[
        str, typer.Option("--show", help="What stands in a cell: bytes, load, row, difference, score.")
    ] = "bytes,load,row,difference",
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Measure versions in every export format by the format's own reader, as a Markdown table.

    bytes, seconds from the file to the first answer, seconds a row, largest difference to the model on held-back
    examples, and the score of the file's own answers. What a format cannot express is refused with the reason.
    """
    from experiments.format_table import chosen, labelled, measure, show

    names = chosen(shown)
    rows = measure(labelled(versions), formats=format.split(","), registry=registry, score="score" in names)
    show(rows, shown=names, as_json=as_json)
