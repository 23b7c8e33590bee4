"""`fl broker`: answers on demand through queues. A worker answers, whoever asks gathers, and dead letters are told."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.versions import REGISTRY, Folder, Json, Name
from fl import interrupts
from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.serving.on_demand.queues import Broker

app = typer.Typer(no_args_is_help=True, help="Answers on demand, through the queues of a broker.")

Url = Annotated[
    str,
    typer.Option(
        "--url", help="filesystem:///FOLDER, sqlalchemy+sqlite:///FILE, redis://HOST:PORT/0 or amqp://USER@HOST//."
    ),
]
Queue = Annotated[str, typer.Option("--queue", help="The name of the queues.")]
Visible = Annotated[
    float, typer.Option("--visible-seconds", min=0.5, help="After which what a worker took may be another's.")
]


@app.command()
def worker(
    version: Name,
    url: Url,
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            metavar="URL",
            help="Where answers are kept: sqlite:///FILE or postgresql://...; left out: beside the broker's files.",
        ),
    ] = None,
    queue: Queue = "meadow",
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Requests in one call of the model.")] = 64,
    tries: Annotated[int, typer.Option("--tries", min=1, help="Of one request; then it is a dead letter.")] = 5,
    visible_seconds: Visible = 30.0,
    until_idle: Annotated[
        float | None, typer.Option("--until-idle", min=0.0, help="End when nothing came for so many seconds.")
    ] = None,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0.0, help="How long answers are kept.")] = 7.0,
    runtime: Annotated[str, typer.Option("--runtime", help="torch, or onnx: exported first.")] = "torch",
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Answer the requests of a queue by a version, or by what an alias means at the time of each batch."""
    from experiments.serve import Source
    from fl.serving.on_demand.ledger import Ledger
    from fl.serving.on_demand.queues import Broker
    from fl.serving.on_demand.worker import Worker
    from fl.serving.slots import Slot, Slots

    source = Source(registry, runtime)
    broker = Broker(url, visible_seconds)
    slot = Slot(version, source.load(version))
    ledger = Ledger(answers or _beside(broker))
    work = Worker(broker, ledger, Slots({queue: slot}, source.look, source.load), slot, queue, batch_rows, tries)
    print(f"{slot.current.version} answers {queue} at {url}", file=sys.stderr, flush=True)
    with interrupts.handled(), contextlib.closing(broker), contextlib.closing(ledger):
        ledger.forget(older_than_seconds=keep_days * 86400)
        done = work.run(idle_seconds=until_idle)
    if as_json:
        print(json.dumps(vars(done) | {"version": slot.current.version}, indent=2))
    else:
        print(f"{done.answered} answered, {done.known} known before, {done.dead} dead letters")


@app.command()
def ask(
    url: Url,
    source: Annotated[str, typer.Option("--input", metavar="FILE", help="A .csv, .parquet or .jsonl file.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Of JSON lines: an answer a row.")],
    key: Annotated[
        str | None, typer.Option("--key", help="The column that names a row; left out: the row's number.")
    ] = None,
    queue: Queue = "meadow",
    again_seconds: Annotated[
        float, typer.Option("--again-seconds", min=0.1, help="Without an answer: what is missing is asked again.")
    ] = 10.0,
    patience: Annotated[
        float, typer.Option("--patience", min=0.1, help="Seconds without an answer; then the end.")
    ] = 120,
    visible_seconds: Visible = 30.0,
    as_json: Json = False,
) -> None:
    """Ask for every row of a file, and wait for the answers; started again, only for those that are missing."""
    from fl.serving.on_demand.asking import Asker
    from fl.serving.on_demand.queues import Broker

    asked = _asked(source, key)
    with interrupts.handled(), contextlib.closing(Broker(url, visible_seconds)) as broker:
        asker = Asker(broker, queue, output, again_seconds, patience, _tell)
        before = asker.ask(asked)
    if as_json:
        print(json.dumps({"asked": len(asked), "before": before, "output": str(output)}, indent=2))
    else:
        print(f"{len(asked)} answers in {output}, {before} of them from before")


@app.command()
def dead(url: Url, queue: Queue = "meadow") -> None:
    """Take the dead letters out of their queue: a JSON line each, with the row, the reason and the tries."""
    from fl.serving.on_demand.queues import Broker, all_of, queue_names

    with interrupts.handled(), contextlib.closing(Broker(url)) as broker:
        broker.recover()
        for letter in all_of(broker, queue_names(queue)[1]):
            print(json.dumps(letter), flush=True)


def _beside(broker: Broker) -> str:
    place = broker.place
    if place is None:
        allowed = "sqlite:///FILE or postgresql://..., shared by all workers: this broker keeps no files of its own"
        raise BadInput(key="--answers", got="nothing", allowed=allowed)
    folder, name = (place.parent, f"{place.name}.answers") if place.suffix else (place, "answers")
    return f"sqlite:///{folder / name}.db"


def _asked(source: str, key: str | None) -> dict[str, dict[str, object]]:
    """Each row by its key. All of them are held: it is for requests, not for tables; see fl predict."""
    from fl.serving.row_source import batches

    found: dict[str, dict[str, object]] = {}
    for row in itertools.chain.from_iterable(batches(source, table=None, size=1000)):
        name = str(row.number) if key is None else row.cells.pop(key, None)
        if row.trouble or name is None or str(name) in found:
            got = row.trouble or (f"no {key}" if name is None else f"{name!r} again")
            raise BadInput(key="--input", got=f"row {row.number}: {got}", allowed="rows, each with a key of its own")
        found[str(name)] = row.cells
    if not found:
        raise BadInput(key="--input", got=f"{source}, which has no rows", allowed="at least one row")
    return found


def _tell(answered: int, asked: int) -> None:
    print(f"{answered:,} of {asked:,} answers", file=sys.stderr, flush=True)
