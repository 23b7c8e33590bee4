"""The command `fl`. Nothing heavy is imported before a command that needs it runs, so that help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from experiments import app as foreign
from experiments import (
    broker,
    completion,
    compress_command,
    data,
    deploy,
    devices_command,
    judging,
    learn,
    precompute,
    serve_command,
    track,
    traffic_command,
    versions,
)
from experiments import bundle as bundles
from experiments.versions import REGISTRY, Folder, Json, Name
from fl import garbage

# Before anything that reads them is imported: nobody calls home, and one thread computes what is kept.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
}
INTERRUPTED = 130
FIRST = ("simulate", "resume", "versions", "export")
AROUND = "Around the rounds"

app = typer.Typer(
    name="fl",
    help="Meadow: federated learning as it is really operated.",
    epilog="Exit status: 0 done, 2 bad input, 3 stopped by faults, 4 not accepted, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    suggest_commands=False,
    rich_markup_mode="rich",
)
app.add_typer(versions.app, name="versions")
app.add_typer(data.app, name="data", rich_help_panel=AROUND)
app.add_typer(foreign.app, name="app", rich_help_panel=AROUND)
for one in (compress_command.compress, compress_command.formats, bundles.package, traffic_command.traffic):
    app.command(rich_help_panel=AROUND)(one)
app.add_typer(bundles.app, name="bundle", rich_help_panel=AROUND)
for each in (judging.evaluate, judging.accept, judging.report, serve_command.serve, precompute.predict, learn.learn):
    app.command(rich_help_panel=AROUND)(each)
for name, part in (("broker", broker), ("devices", devices_command), ("deploy", deploy), ("track", track)):
    app.add_typer(part.app, name=name, rich_help_panel=AROUND)


def main() -> None:
    """The console script: runs a command and exits with its status. A polite kill is an interrupt, as Ctrl-C is."""
    garbage.loading()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors that have a name are told in one line on stderr.

    Any other exception is raised: it is a fault of the program, and its traceback says where.
    """
    from fl.errors import Interrupted, MeadowError

    try:
        status = command().main(arguments, prog_name="fl", standalone_mode=False)
    except MeadowError as error:
        _say("interrupted" if isinstance(error, Interrupted) else "error", str(error))
        return error.exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        place = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "fl"
        _say("error", f"{error.format_message()} See: {place} --help")
        return error.exit_code
    if status == INTERRUPTED:  # Typer's answer to a KeyboardInterrupt
        _say("interrupted", "stopped by a signal")
    return status if isinstance(status, int) else 0


def command() -> click.Group:
    """The whole command, with the commands of a run in front."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    later = [name for name in group.commands if name not in FIRST]
    group.commands = {name: group.commands[name] for name in (*FIRST, *later)}
    return group


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"meadow-fl {version('meadow-fl')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Meadow: federated learning as it is really operated."""


def _simulate_help(wanted: bool) -> None:
    if wanted:
        from rich.console import Console

        from experiments.simulate_help import show

        show(Console())
        raise typer.Exit


@app.command(add_help_option=False)
def simulate(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP=CHOICE | KEY=VALUE]...", autocompletion=completion.complete)
    ] = None,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", help="Run every combination of values.")] = False,
    cfg: Annotated[str | None, typer.Option("--cfg", "-c", help="Print the settings: job, hydra or all.")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="With --cfg: fill in references.")] = False,
    package: Annotated[str | None, typer.Option("--package", "-p", help="With --cfg: only this part.")] = None,
    info: Annotated[str | None, typer.Option("--info", "-i", help="What Hydra knows: defaults, plugins ...")] = None,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", help="Look for more YAML files in this folder.")
    ] = None,
    help: Annotated[  # noqa: A002 - the option's name
        bool, typer.Option("--help", callback=_simulate_help, is_eager=True, help="Groups, settings and examples.")
    ] = False,
) -> None:
    """Train a global model over simulated clients."""
    from experiments.selection.search import run_search, wanted
    from experiments.simulate import run_many, run_one, search_path, show

    given = [*search_path(config_dir), *(overrides or [])]
    if cfg is not None or info is not None:
        show(given, cfg=cfg, resolve=resolve, package=package, info=info)
    elif multirun and wanted(given):
        run_search(given)
    elif multirun:
        run_many(given)
    else:
        run_one(given)


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of the run.", show_default=False)],
) -> None:
    """Go on with a run after its last committed round."""
    from experiments.resume import resume as go_on

    typer.echo(go_on(run_dir))


@app.command()
def export(
    version: Name,
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            "--format",
            help="safetensors, pt2, onnx, onnx_int8, torchscript, executorch, c, whl, pyz, pmml, pfa; with commas.",
        ),
    ] = "safetensors,pt2,onnx",
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the files go.")] = Path("exports"),
    measure: Annotated[bool, typer.Option("--measure", help="Also how long each format's reader takes.")] = False,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Write a version as files that others can use, each proved against the model on real test examples."""
    from experiments.export import export as write
    from experiments.export import show

    files = write(version, formats=format.split(","), output=output, registry=registry, measure=measure)
    show(files, as_json=as_json)


@app.command(rich_help_panel=AROUND)
def lifecycle(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[stage=NAME] [GROUP=CHOICE | KEY=VALUE]...",
            autocompletion=completion.complete,
            help="What `fl simulate` takes; run_dir is the pipeline's folder.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take data to a registered version, stage by stage; only what changed runs again.

    In this order: understand, ingest, profile, validate, wrangle, split, train, evaluate, accept, register.

    Its own settings: stage=NAME stops after one; rules=FILE is what validate asks of every client, else
    RUN_DIR/validate/rules.yaml, which is inferred first and then yours to edit; business.* is what the model is for;
    keep_runs=false removes older runs that nothing needs.
    """
    from experiments.lifecycle.command import run_lifecycle

    raise typer.Exit(run_lifecycle(overrides or [], as_json=as_json))


@app.command(rich_help_panel=AROUND)
def cv(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP=CHOICE | KEY=VALUE]...",
            autocompletion=completion.complete,
            help="What `fl simulate` takes; run_dir is the folder of all folds.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="How many folds.")] = 5,
    over: Annotated[
        str, typer.Option("--over", help="examples of each client, clients, public (the server's), or bootstrap.")
    ] = "examples",
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Folds that run at the same time.")] = 1,
    as_json: Json = False,
) -> None:
    """Cross-validate settings: a run a fold, measured on what it left out; mean and deviation."""
    from experiments.selection.cross_validation import cross_validate, show

    show(cross_validate(overrides or [], folds=folds, over=over, at_once=at_once), as_json=as_json)


@app.command(rich_help_panel=AROUND)
def shortlist(
    versions: Annotated[
        list[str],
        typer.Argument(
            metavar="VERSION VERSION...", help="Versions of one data set, of any model.", show_default=False
        ),
    ],
    seed: Annotated[int, typer.Option("--seed", help="Which half of the test examples chooses.")] = 1,
    registry: Folder = REGISTRY,
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="HTML", help="The page; outputs/shortlist.html if not said.")
    ] = None,
) -> None:
    """Compare the errors of versions: who errs differently, and whether an ensemble beats its best member."""
    from experiments.selection.shortlist import compare, show

    show(compare(versions, registry=registry, seed=seed, output=output), as_json=as_json)


@app.command(rich_help_panel=AROUND)
def automl(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[budget.minutes=M] [budget.rounds=R] [GROUP=CHOICE | KEY=VALUE]...",
            autocompletion=completion.complete,
            help="What `fl simulate` takes, but for the model and how it learns; run_dir is the folder of all trials.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a model within a budget: many kinds tried, the better ones trained longer, ensembles; one HTML page."""
    from experiments.selection import automl as search

    search.show(search.automl(overrides or []), as_json=as_json)


@app.command(rich_help_panel=AROUND)
def new(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder to make.", show_default=False)],
) -> None:
    """Make the folder of a project: data, pipelines, notebooks, docs, and tests that pass."""
    from experiments.project import make_project

    typer.echo(make_project(project))


@app.command(rich_help_panel=AROUND)
def bench(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[suite=shapes|scale|overhead|cores|serving|all] [bench.KEY=VALUE]...",
            help="suite, output, and bench.repeats, rounds, only, pfl_python, fedjax_python, tolerance.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure our engine against Flower's own and other simulators, on the same work in one sitting."""
    from experiments.bench.command import run_bench

    raise typer.Exit(run_bench(overrides or [], as_json=as_json))


@app.command(rich_help_panel=AROUND)
def replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of the run.", show_default=False)],
    round: Annotated[int, typer.Option("--round", min=1, help="The round to train again.")],
    engine: Annotated[
        str | None, typer.Option("--engine", help="auto, inprocess, forked or ray; the run's own if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a round again from the version before it, and compare the bits. Changes nothing of the run."""
    from experiments.replay import replay as again

    raise typer.Exit(again(run_dir, round=round, engine=engine, as_json=as_json))


@app.command(rich_help_panel=AROUND)
def clients(
    version: Name,
    local_start: Annotated[
        str, typer.Option("--local-start", help="What training without the others starts from: version0 or random.")
    ] = "version0",
    local_epochs: Annotated[
        int | None,
        typer.Option("--local-epochs", min=1, help="Its epochs; left out: what a client trained on average."),
    ] = None,
    local_learning_rate: Annotated[
        float | None,
        typer.Option("--local-learning-rate", min=1e-12, help="Its step size; left out: client.learning_rate."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="auto, inprocess, forked or ray; the run's own if left out.")
    ] = None,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Measure a version on every client of its run: globally, specialised, and against training alone."""
    from experiments.clients import clients as measure

    measure(
        version,
        registry=registry,
        local_start=local_start,
        local_epochs=local_epochs,
        local_learning_rate=local_learning_rate,
        engine=engine,
        as_json=as_json,
    )


@app.command(rich_help_panel=AROUND)
def doctor(
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="RUN_DIR", help="The folder of the run.", show_default=False)
    ] = None,
    fault_points: Annotated[
        bool, typer.Option("--fault-points", help="List the places where a fault can be planted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every file of a run and of its versions against its hash."""
    from experiments.doctor import doctor as examine
    from experiments.doctor import show_fault_points

    if fault_points:
        show_fault_points(as_json=as_json)
    elif run_dir is None:
        raise click.UsageError("RUN_DIR is missing, or --fault-points.")
    else:
        raise typer.Exit(examine(run_dir, as_json=as_json))


def _say(kind: str, message: str) -> None:
    """One clear message on stderr, in colour on a terminal."""
    from rich.console import Console
    from rich.text import Text

    text: Any = Text.assemble((f"{kind}: ", "bold red" if kind == "error" else "bold yellow"), message)
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)
