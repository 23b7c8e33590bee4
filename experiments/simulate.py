"""`fl simulate`: one run, or with --multirun one a combination of values, composed and launched by Hydra.

All jobs are composed and checked before the first of them starts.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments import compose as composing
from experiments.choices import one_of
from experiments.complaints import COMPLAINTS
from experiments.printing import print_table
from experiments.rules import check
from fl.errors import BadInput, Interrupted, MeadowError, StorageFailed
from fl.files import read_json

Run = Callable[[Mapping[str, Any]], Path]
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass
class Job:
    """A job of a multirun and what became of it."""

    number: int
    overrides: Sequence[str]
    folder: Path
    error: Exception | None = None


def simulate(overrides: Sequence[str], *, run: Run) -> Path:
    """One run; returns its folder. ``run`` takes complete, checked settings."""
    composing.refuse_unfit(overrides)
    folders: list[Path] = []
    errors: list[Exception] = []

    def task(config: DictConfig) -> None:
        try:
            settings = composing.settle(config)
            check(settings)
            folders.append(Path(settings["run_dir"]))
            run(settings)
        except Exception as error:  # noqa: BLE001 - raised again below: Hydra would print its own words about it
            errors.append(error)

    try:
        launch(overrides, task)
    except KeyboardInterrupt:
        _say_how_to_go_on(folders)
        raise
    except COMPLAINTS:
        composing.compose(overrides)  # the same again, which says in our words what is wrong
        raise
    for error in errors:
        if isinstance(error, Interrupted | StorageFailed):
            _say_how_to_go_on(folders)
        raise error
    return folders[0]


def sweep(overrides: Sequence[str], *, run: Run) -> tuple[Path, list[Job]]:
    """A run a combination of values, one after the other, each in its own folder inside the one returned.

    A run that fails is recorded in its job and the others go on; an interrupt ends them all. Hydra's own sweeper knows
    every combination before it starts, and all are checked then; where another chooses values as it goes, each job is
    checked at its own start.
    """
    planned = [] if any(text.startswith("hydra/sweeper=") for text in overrides) else composing.jobs(overrides)
    folder = sweep_folder(overrides)
    try:
        for number, job in enumerate(planned):
            check(composing.compose(job, run_dir=folder / str(number)))
    except BadInput:
        with suppress(OSError):  # made while checking that it can be; anything in it was there before
            folder.rmdir()
        raise
    started: list[Job] = []

    def task(config: DictConfig) -> None:
        if any(isinstance(job.error, Interrupted) for job in started):
            return
        hydra_config = HydraConfig.get()
        number = int(hydra_config.job.num)
        job = Job(number, list(hydra_config.overrides.task), folder / str(number))
        started.append(job)
        try:
            settings = composing.settle(config, run_dir=job.folder)
            check(settings)
            run(settings)
        except MeadowError as error:
            job.error = error

    launch([*overrides, f"hydra.sweep.dir={_quoted(folder)}"], task, "--multirun")
    return folder, started


def run_one(overrides: Sequence[str]) -> None:
    """One run; its folder is the last line on stdout."""
    from experiments.run import simulate as run

    print(simulate(overrides, run=run))


def run_many(overrides: Sequence[str]) -> None:
    """A multirun: what became of each job on stderr, the folder with all of them as the last line on stdout.

    Raises the error of the job that fared worst, after all that could run have run.
    """
    from experiments.run import simulate as run

    folder, jobs = sweep(overrides, run=run)
    _show_jobs(jobs)
    print(folder)
    if (error := worst(jobs)) is not None:
        raise error


def show(overrides: Sequence[str], *, cfg: str | None, resolve: bool, package: str | None, info: str | None) -> None:
    """Print what Hydra composes (``cfg``) or knows (``info``), and run nothing."""
    for key, got, allowed in (("--cfg", cfg, CFG), ("--info", info, INFO)):
        if got is not None and got not in allowed:
            raise BadInput(key=key, got=got, allowed=one_of(allowed, got))
    if cfg is not None and info is not None:
        raise BadInput(key="--info", got=info, allowed="one of --cfg and --info")
    composing.compose(overrides)  # says clearly what is wrong with them, if anything
    flags = ["--cfg", cfg] if cfg else ["--info", str(info)]
    flags += ["--resolve"] if cfg and resolve else []
    flags += ["--package", package] if cfg and package else []
    launch(overrides, None, *flags)


def search_path(folder: Path | None) -> list[str]:
    """The override that lets Hydra look for YAML files in ``folder`` too."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise BadInput(key="--config-dir", got=str(folder), allowed="a folder")
    return [f"hydra.searchpath=[{_quoted('file://' + str(folder.absolute()))}]"]


def launch(overrides: Sequence[str], task: Callable[[DictConfig], Any] | None, *flags: str) -> None:
    """Hand ``overrides`` and ``flags`` to Hydra, which calls ``task`` with each configuration, or prints."""
    composing.register_schema()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors are ours to print
    main = hydra.main(
        version_base=composing.VERSION_BASE,
        config_path=f"pkg://{composing.CONFIG_MODULE}",
        config_name=composing.CONFIG_NAME,
    )
    with _arguments([*flags, *composing.opened(overrides)]):
        main(task or _nothing)()


def varied(jobs: Sequence[Job]) -> list[str]:
    """What makes a job different from the others: the overrides that not all have, one text a job."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return [" ".join(text for text in job.overrides if text not in shared) for job in jobs]


def outcome(job: Job) -> tuple[str, Mapping[str, Any]]:
    """A job's status and its final figures."""
    path = job.folder / "summary.json"
    summary = read_json(path) if path.is_file() else {}
    return str(job.error or summary.get("status", "finished")), summary.get("final", {})


def worst(jobs: Sequence[Job]) -> MeadowError | None:
    """The error that decides the exit status of a multirun: an interrupt before faults before bad input."""
    errors = [job.error for job in jobs if isinstance(job.error, MeadowError)]
    return max(errors, key=lambda error: error.exit_status, default=None)


def sweep_folder(overrides: Sequence[str]) -> Path:
    """The folder of a multirun: ``run_dir``, or a new one below outputs/multirun."""
    given = [text for text in overrides if text.startswith("run_dir=")]
    folder = composing.compose(given)["run_dir"] if given else composing.SWEEPS / composing.fresh_name()
    return Path(folder).absolute()


def _show_jobs(jobs: Sequence[Job]) -> None:
    rows = []
    for job, what in zip(jobs, varied(jobs), strict=True):
        status, final = outcome(job)
        figures = [f"{final[name]:.4f}" if final.get(name) is not None else "" for name in ("accuracy", "loss")]
        rows.append((job.number, what, status, *figures))
    print_table(("job", "overrides", "status", "accuracy", "loss"), rows, stderr=True)


def _say_how_to_go_on(folders: Sequence[Path]) -> None:
    """Of a run cut short before its rounds began; a later one says so itself when it writes its summary."""
    for folder in folders:
        if (folder / "config.yaml").is_file() and not (folder / "summary.json").is_file():
            print(f"go on with: fl resume {shlex.quote(str(folder))}", file=sys.stderr)


def _quoted(text: str | Path) -> str:
    """A text as Hydra's grammar reads it whatever characters are in it."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _nothing(config: DictConfig) -> None:
    """For what Hydra answers by itself."""


@contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``."""
    before = sys.argv
    sys.argv = ["fl simulate", *arguments]
    try:
        yield
    finally:
        sys.argv = before
