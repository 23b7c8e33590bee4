"""How a run looks in text: heading, table of the latest rounds, bars, lines, and what was made."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.records import RoundRecord, RunRecord, RunSummary
from server.tracking.files import EXPECTED, METRICS_FILE, SUMMARY_FILE

ABSENT = "–"
BAR_WIDTH = 40
MOST_NAMED = 5
MOST_FIGURES = 4
"""Of an app's, in a line."""

STATUS_STYLES = {"finished": "green", "stopped early": "green", "stopped by faults": "red", "interrupted": "yellow"}


class Phase(NamedTuple):
    """Where the current round stands: ``done`` of ``of`` clients answered in phase ``name``."""

    round: int
    name: str
    done: int
    of: int


def heading(run: RunRecord) -> Text:
    """What is being run, in one line."""
    text = Text.assemble(
        (run.run_id, "bold"),
        f"  {run.dataset}, {run.num_parameters:,} parameters, {run.num_clients:,} clients, ",
        f"{run.cohort_size:,} a round, engine {run.engine}",
    )
    if run.first_round > 0:
        text.append(f", going on from round {run.first_round}")
    return text


def table(latest: Iterable[RoundRecord], run: RunRecord) -> Table:
    """The latest rounds, a row each."""
    rows = [(record, _figures(record, run)) for record in latest]
    names = list(dict.fromkeys(name for _, figures in rows for name in figures)) or EXPECTED[run.signature.task]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("round", *names, "clients", "seconds", "MB up"):
        grid.add_column(column, justify="right", no_wrap=True)
    for record, figures in rows:
        measured = [_figure(figures.get(name)) for name in names]
        missed = record.clients["answered"] < record.clients["asked"]
        grid.add_row(
            str(record.round),
            *measured,
            Text(_answered(record), style="yellow" if missed else ""),
            f"{record.seconds['total']:.2f}",
            f"{record.bytes['up'] / 1e6:.1f}",
        )
    return grid


def bars(run: RunRecord, phase: Phase | None, *, done: int, left: float | None) -> Table:
    """The rounds ``done`` of all, with the time ``left`` (seconds, None: unknown), and the phase of the current one."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=run.num_rounds, completed=done, width=BAR_WIDTH)
    grid.add_row("rounds", bar, f"{done}/{run.num_rounds}", _left(left))
    if phase is not None:
        bar = ProgressBar(total=phase.of, completed=phase.done, width=BAR_WIDTH, complete_style="cyan")
        grid.add_row(Text(phase.name, style="dim"), bar, f"{phase.done}/{phase.of}", f"round {phase.round}")
    else:
        grid.add_row("", "", "", "")  # The view has its full height from the start.
    return grid


def line(record: RoundRecord, run: RunRecord, *, left: float | None) -> Text:
    """A round in one line."""
    parts = [f"round {record.round:>{len(str(run.num_rounds))}}/{run.num_rounds}"]
    parts += [f"{name} {_figure(value)}" for name, value in _figures(record, run).items()]
    parts += [f"{_answered(record)} clients"] if record.clients["asked"] else []
    parts += [f"{record.seconds['total']:.2f} s", f"{record.bytes['up'] / 1e6:.1f} MB up"]
    parts += [f"quarantined: {_named(record.quarantined)}"] if record.quarantined else []
    parts += [_left(left)]
    return Text("  ".join(part for part in parts if part))


def made(run: RunRecord, summary: RunSummary, *, boxed: bool) -> RenderableType:
    """What the run leaves behind."""
    rows: list[tuple[str, str]] = [
        (
            "rounds",
            f"{summary.rounds_completed} of {run.num_rounds}" + (f", {summary.reason}" if summary.reason else ""),
        )
    ]
    final = "  ".join(f"{name} {value:.4f}" for name, value in summary.final.items())
    rows += [("final", final)] if final else []
    rows += [("best version", summary.best)] if summary.best else []
    away = [item["client"] for item in summary.quarantined]
    rows += [("quarantined", f"{_named(away)}, see {SUMMARY_FILE}")] if away else []
    rows += [("took", f"{duration(summary.seconds['total'])}, {_moved(summary.bytes)}")]
    rows += [("files", f"{shown(run.run_dir)}/: {METRICS_FILE} {SUMMARY_FILE} tensorboard/")]
    if not boxed:
        return Text("\n".join([f"run {run.run_id} {summary.status}", *(f"{name}: {value}" for name, value in rows)]))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(value))
    style = STATUS_STYLES.get(summary.status, "")
    return Panel(
        grid,
        title=Text.assemble((run.run_id, "bold"), f" {summary.status}"),
        title_align="left",
        border_style=style,
        expand=False,
    )


def next_commands(run: RunRecord, summary: RunSummary, *, default_registry: Path | None) -> list[str]:
    """Commands worth typing next, quoted for a shell; to resume comes first where a run was cut short."""
    version = f"{run.run_id}:{'best' if summary.best else 'latest'}"
    elsewhere = default_registry is None or run.registry_dir.resolve() != default_registry.resolve()
    registry = ["--registry", shown(run.registry_dir)] if elsewhere else []
    commands = [
        ["fl", "export", version, "--format", "onnx", "--output", "exported", *registry],
        ["tensorboard", "--logdir", shown(run.run_dir / "tensorboard")],
        ["fl", "versions", "show", version, *registry],
    ]
    if not run.exportable:
        del commands[0]
    if summary.status in ("interrupted", "stopped by faults"):
        commands = [["fl", "resume", shown(run.run_dir)], *commands[:2]]
    return [shlex.join(command) for command in commands]


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(7.25), duration(75), duration(3725)
    ('7 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def shown(path: Path) -> str:
    """``path`` as it is typed from the working folder, where it lies below it."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _left(seconds: float | None) -> str:
    return "" if seconds is None or seconds < 1 else f"about {duration(seconds)} left"


def _figures(record: RoundRecord, run: RunRecord) -> dict[str, float | None]:
    """What is shown of a round: the metrics of its task. An app has names of its own, and may tell none of a server's
    test set: then what its clients' training and evaluation came to.
    """
    if run.exportable:
        return {name: record.metrics.get(name) for name in EXPECTED[run.signature.task]}
    of_clients = {name: told["aggregated"] for name, told in record.client_metrics.items() if "aggregated" in told}
    told = dict(record.metrics)
    for word, metrics in (("train", record.train_metrics), ("eval", of_clients)):
        told |= {name if name.startswith(word) else f"{word} {name}": value for name, value in metrics.items()}
    return dict(list(told.items())[:MOST_FIGURES])


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def _answered(record: RoundRecord) -> str:
    return f"{record.clients['answered']}/{record.clients['asked']}" if record.clients["asked"] else ABSENT


def _named(clients: Sequence[int]) -> str:
    """A few clients by name.

    >>> _named([3]), _named(range(2, 10))
    ('client 3', 'clients 2, 3, 4, 5, 6 and 3 more')
    """
    shown = ", ".join(map(str, clients[:MOST_NAMED]))
    more = f" and {len(clients) - MOST_NAMED} more" if len(clients) > MOST_NAMED else ""
    return f"client{'s' if len(clients) > 1 else ''} {shown}{more}"


def _moved(moved: Mapping[str, int]) -> str:
    return f"{moved['down'] / 1e6:,.1f} MB down, {moved['up'] / 1e6:,.1f} MB up"
