"""The commands that judge a version: how good it is, whether it may go out, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json, Name


def evaluate(
    version: Name,
    column: Annotated[
        list[str] | None, typer.Option("--slice", help="Slice a table by this column, not by all; may be repeated.")
    ] = None,
    sensitive: Annotated[
        str | None, typer.Option("--sensitive", help="The column whose groups are to be treated alike.")
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Resamples of the bootstrap.")] = 1000,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the intervals.")] = 0.95,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Measure a version on held-back examples, with intervals, by class and by slice, and against the champion."""
    from experiments.evaluation import evaluate_version

    evaluate_version(
        version,
        registry=registry,
        columns=column,
        sensitive=sensitive,
        resamples=resamples,
        confidence=confidence,
        as_json=as_json,
    )


def accept(
    version: Name,
    success: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUCCESS]...",
            help="accuracy=0.8, size_bytes=100000, no_worse_than_champion ...; left out: what it was trained for.",
            show_default=False,
        ),
    ] = None,
    business: Annotated[
        str | None, typer.Option("--business", metavar="NAME|YAML", help="Criteria as in a section `business`.")
    ] = None,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Hold a version against success criteria: accepted, or refused with every reason and exit status 4."""
    from experiments.acceptance import run_accept

    raise typer.Exit(run_accept(version, success or (), business=business, registry=registry, as_json=as_json))


def report(
    version: Name,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Where the files go; outputs/reports/... if not said."),
    ] = None,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Write the model card of a version and the report of its experiment: Markdown and HTML, with plots."""
    from experiments.report import report as write

    write(version, registry=registry, output=output, as_json=as_json)
