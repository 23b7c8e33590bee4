"""The command `fl predict`: answers computed ahead, into a database."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json, Name
from fl import interrupts

if TYPE_CHECKING:
    from fl.serving.precompute import Progress

TELL_SECONDS = 1.0


def predict(
    version: Name,
    source: Annotated[
        str, typer.Option("--input", metavar="FILE|URL", help="A .csv, .parquet or .jsonl file, or a database.")
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="URL", help="sqlite:///FILE, duckdb:///FILE or postgresql://...")
    ],
    table: Annotated[str | None, typer.Option("--table", help="Of the database that --input names.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The column that names a row; left out: the row's number.")
    ] = None,
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Rows in one call of the model.")] = 1000,
    put_aside: Annotated[
        bool, typer.Option("--put-aside", help="Keep rows that cannot be answered, with the reason, and go on.")
    ] = False,
    runtime: Annotated[str, typer.Option("--runtime", help="torch, or onnx: exported first.")] = "torch",
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Answer every row of a file or table ahead, and keep the answers in a database; VERSION may be a bundle.

    Each row has one answer of a version, however often this runs: what a run that was killed has kept is left alone.
    """
    from experiments.serve import Source
    from fl.errors import BadInput
    from fl.serving.precompute import Precompute
    from fl.serving.predictions import open_predictions
    from fl.serving.row_source import batches

    models = Source(registry, runtime)
    rows = batches(source, table=table, size=batch_rows)
    first = next(rows, None)
    if first is None:
        raise BadInput(key="--input", got=f"{source}, which has no rows", allowed="at least one row")
    model = models.load(version)
    opened = open_predictions(output, key="--output", writing=True)
    with interrupts.handled(), contextlib.closing(opened) as predictions:
        work = Precompute(model, predictions, key=key, put_aside=put_aside, tell=_Teller().tell)
        done = work.run(itertools.chain([first], rows))
    if as_json:
        print(json.dumps({"version": model.version, "hash": model.hash, **vars(done)}, indent=2))
    else:
        print(f"{model.version}: {_words(done)}")


class _Teller:
    """A line on standard error now and then."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_SECONDS:
            self._last = now
            print(f"{_words(progress)}; {progress.read / (now - self._began):,.0f} rows/s", file=sys.stderr, flush=True)


def _words(progress: Progress) -> str:
    known, aside = f"{progress.known:,} known before", f"{progress.aside:,} put aside"
    return f"{progress.read:,} rows, {progress.answered:,} answered, {known}, {aside}"
