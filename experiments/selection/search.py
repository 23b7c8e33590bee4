"""`fl simulate --multirun hydra/sweeper=random|grid|tpe|asha`: Optuna asks, a run answers.

The sweeper is handed to Hydra here, which finds plug-ins by the name of their package alone. ``at_once`` trials run at
the same time, each spread over the engine's actors. Neither number changes a bit of the search: values are asked for
batch by batch, and who goes on from a rung is decided in the order of the trials, when all of a batch have come to it.

The runs themselves are the search's memory. A command that is repeated on the same ``run_dir``, after kill -9 too, asks
the same questions again, finds most of them answered in the trials' folders, and goes on. ``study.journal`` is Optuna's
own record of it, for Optuna's tools.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, final

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from experiments import compose as composing
from experiments.rules import check
from experiments.selection.space import Space, space_of
from experiments.selection.trials import checked_value_after, rungs
from experiments.selection.workers import Workers
from experiments.simulate import Job, launch, sweep_folder, varied, worst
from fl.errors import BadInput, Interrupted, MeadowError, MissingExtra
from fl.files import write_json

if TYPE_CHECKING:
    from optuna import Study, Trial

JOURNAL, REPORT = "study.journal", "search.json"
SAMPLERS = ("random", "grid", "tpe")
LOWER_IS_BETTER = ("loss", "mse", "rmse", "mae", "perplexity")


def wanted(overrides: Sequence[str]) -> bool:
    """Whether the overrides of a multirun ask for a search."""
    return any(text.startswith("hydra/sweeper=") and text != "hydra/sweeper=basic" for text in overrides)


@dataclass
class Asked:
    """A trial, the rounds it is looked at after, and what became of it as plain values."""

    trial: Trial
    overrides: Sequence[str]
    rungs: Sequence[int]
    told: dict[str, Any] = field(default_factory=dict)


@final
class Search(Sweeper):
    """Hydra's side of a search: asks Optuna for the next values, and launches them as a job, rung by rung.

    sampler     random, grid or tpe; ``startup`` trials of tpe are random
    trials      how many; None: all of a grid
    batch       of tpe: so many trials at a time learn from those before; all others do not learn, and are one batch
    at_once     trials that run at the same time; more than there are cores are not
    metric      over clients' validation parts
    halving     None, or the factor: of the trials at a rung, one in so many goes on to the next
    first_rung  rounds before a trial is looked at first
    until       of a job: the round that it runs to; the search sets it
    """

    failed: ClassVar[dict[Path, MeadowError]] = {}
    """What ended a trial in another process, by the trial's folder."""

    def __init__(
        self,
        *,
        sampler: str,
        trials: int | None,
        startup: int,
        batch: int | None,
        at_once: int,
        metric: str,
        halving: int | None,
        first_rung: int,
        until: int | None,
    ) -> None:
        self.sampler, self.trials, self.startup, self.metric = sampler, trials, startup, metric
        self.batch, self.at_once = batch, at_once
        self.halving, self.first_rung = halving, first_rung

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook before ``sweep``."""
        self.loader: ConfigLoader = hydra_context.config_loader
        self.master: DictConfig = config
        self.starter: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """The trials, batch by batch, and the report."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        space = space_of(parsed, grid=self.sampler == "grid")
        self.folder = Path(str(self.master.hydra.sweep.dir))
        self.folder.mkdir(parents=True, exist_ok=True)
        study, count = self._study(space, self.folder), self._count(space)
        trials: list[dict[str, Any]] = []
        with Workers(self.at_once) as self.workers:
            while len(trials) < count:
                size = min(self.batch or count, count - len(trials))
                trials += self._together(study, [self._ask(study, space) for _ in range(size)])
        _report(study, trials, self.folder, metric=self.metric)
        return None

    def _study(self, space: Space, folder: Path) -> Study:
        import optuna
        from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
        from optuna.samplers import BaseSampler, RandomSampler, TPESampler
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        for path in folder.glob(f"{JOURNAL}*"):  # and a dead process's lock of it
            path.unlink()
        seed = int(self.master.seed)
        sampler: BaseSampler = RandomSampler(seed=seed)
        if self.sampler == "tpe":
            sampler = TPESampler(seed=seed, n_startup_trials=self.startup)
        pruner: BasePruner = NopPruner()
        if self.halving is not None:
            pruner = SuccessiveHalvingPruner(min_resource=self.first_rung, reduction_factor=self.halving)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            sampler=sampler,
            pruner=pruner,
            study_name=folder.name,
            direction="minimize" if self.metric in LOWER_IS_BETTER else "maximize",
        )
        if self.sampler == "grid":
            for values in _grid(space):
                study.enqueue_trial(values)
        return study

    def _count(self, space: Space) -> int:
        in_all = len(_grid(space)) if self.sampler == "grid" else None
        return min(n for n in (self.trials, in_all) if n is not None)

    def _ask(self, study: Study, space: Space) -> Asked:
        trial = study.ask(dict(space.searched))
        # Who compares runs says which is champion, not the one that happens to end first.
        overrides = ["server.first_champion=false", *space.overrides(trial.params)]
        rounds = int(self.loader.load_sweep_config(self.master, overrides).num_rounds)
        told = {"number": trial.number, "values": dict(trial.params), "rounds": 0, "value": None}
        return Asked(trial, overrides, rungs(rounds, first=self.first_rung, factor=self.halving), told)

    def _together(self, study: Study, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """Trials from rung to rung, each while it is worth it; what became of them as plain values, told to Optuna too.

        What is asked of a rung is what trials before this one had there, as if each had run before the next began.
        """
        going, step = list(asked), 0
        while going:
            self._run_ahead(going, step)
            going = [one for one in going if self._goes_on(study, one, step)]
            step += 1
        return [one.told for one in asked]

    def _run_ahead(self, asked: Sequence[Asked], step: int) -> None:
        """Let other processes run what is to be launched: the jobs then find what it came to in the trials' folders."""
        if self.workers.at_once == 1 or len(asked) == 1:
            return
        calls: dict[str, tuple[Any, ...]] = {}
        for one in asked:
            config = self.loader.load_sweep_config(self.master, list(one.overrides))
            with read_write(config), open_dict(config):
                del config["hydra"]  # which Hydra keeps from a job as well
            name = str(one.trial.number)
            try:
                settings = composing.settle(config, run_dir=self.folder / name)
            except MeadowError as error:
                self.failed[self.folder / name] = error
                continue
            calls[name] = (self.workers.shared(settings), one.rungs[step], self.metric)
        for name, outcome in zip(calls, self.workers.each(checked_value_after, calls), strict=True):
            if isinstance(outcome, MeadowError):
                self.failed[self.folder / name] = outcome

    def _goes_on(self, study: Study, asked: Asked, step: int) -> bool:
        """Launch a trial to a rung, and whether it goes on from there."""
        from optuna.trial import TrialState

        trial, rung = asked.trial, asked.rungs[step]
        jobs = [[*asked.overrides, f"hydra.sweeper.until={rung}"]]
        value = self.starter.launch(jobs, initial_job_idx=trial.number)[0].return_value
        if value is None:
            asked.told["state"] = "failed"
            study.tell(trial, state=TrialState.FAIL)
            return False
        asked.told |= {"rounds": rung, "value": value}
        trial.report(value, rung)
        if rung == asked.rungs[-1]:
            asked.told["state"] = "finished"
            study.tell(trial, value)
        elif trial.should_prune():
            asked.told["state"] = "halved away"
            study.tell(trial, state=TrialState.PRUNED)
        return "state" not in asked.told


PLUGINS, OWN = "hydra_plugins", "meadow"


@cache
def _hand_to_hydra() -> None:
    """Let Hydra find the sweeper, which it takes from this package alone, whatever else is installed in that."""
    Search.__module__ = f"{PLUGINS}.{OWN}"
    module = ModuleType(Search.__module__)
    vars(module)["Search"] = Search
    try:
        package = import_module(PLUGINS)
    except ImportError:
        package = sys.modules[PLUGINS] = ModuleType(PLUGINS)
        package.__path__ = []
    vars(package)[OWN] = sys.modules[module.__name__] = module
    Plugins.instance().register(Search)


def search(overrides: Sequence[str]) -> tuple[Path, list[Job]]:
    """Search as ``overrides`` say; the folder of all trials, and each that was started. Interrupted ends it."""
    try:
        import optuna  # noqa: F401 - asked for before anything starts
    except ImportError as error:
        raise MissingExtra(key="hydra/sweeper", package="optuna", extra="hpo") from error
    folder = sweep_folder(overrides)
    _checked(overrides, folder)
    started: dict[int, Job] = {}

    def task(config: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        number = int(hydra.job.num)
        given = [text for text in hydra.overrides.task if not text.startswith("hydra.")]
        job = started.setdefault(number, Job(number, given, folder / str(number)))
        try:
            settings = composing.settle(config, run_dir=job.folder)
            if (elsewhere := Search.failed.pop(job.folder, None)) is not None:
                raise elsewhere
            return checked_value_after(settings, int(hydra.sweeper.until), str(hydra.sweeper.metric))
        except Interrupted:
            raise
        except MeadowError as error:
            job.error = error
            return None

    _hand_to_hydra()
    launch([*overrides, f"hydra.sweep.dir='{folder}'"], task, "--multirun")
    _crown(folder)
    return folder, [started[number] for number in sorted(started)]


def _crown(folder: Path) -> None:
    """The best trial's best version becomes champion where there is none."""
    from experiments.config_file import read_config
    from fl.files import read_json
    from fl.registry import Registry

    path = folder / REPORT
    best = read_json(path)["best"] if path.is_file() else None
    if best is not None:
        run_dir = folder / str(best)
        registry = Registry(read_config(run_dir)["registry_dir"])
        registry.crown_if_vacant(str(read_json(run_dir / "run.json")["run_id"]))


def run_search(overrides: Sequence[str]) -> None:
    """A search: what became of each trial on stderr, the folder with all of them as the last line on stdout."""
    from experiments.printing import print_table
    from fl.files import read_json

    folder, jobs = search(overrides)
    report = read_json(folder / REPORT)
    rows = [
        (one["number"], what, one["state"] if job.error is None else str(job.error), one["rounds"], _text(one["value"]))
        for one, job, what in zip(report["trials"], jobs, varied(jobs), strict=True)
    ]
    print_table(("trial", "overrides", "", "rounds", f"validation {report['metric']}"), rows, stderr=True)
    print(folder)
    if report["best"] is None and (error := worst(jobs)) is not None:
        raise error


def _report(study: Study, trials: Sequence[dict[str, Any]], folder: Path, *, metric: str) -> None:
    """search.json; the best trial is the best of those that ran all their rounds."""
    whole = [one for one in trials if one["state"] == "finished"]
    best = study.best_trial.number if whole else None
    rounds = sum(one["rounds"] for one in trials)
    report = {"metric": metric, "best": best, "rounds": rounds, "trials": list(trials)}
    write_json(folder / REPORT, json.loads(json.dumps(report)), site="report")


def _checked(overrides: Sequence[str], folder: Path) -> None:
    """Refuse, before the first trial starts, what none could run with."""
    parsed, sweeper = composing.sweep_of(overrides)
    if not str(sweeper["_target_"]).startswith(PLUGINS):
        return
    least = {"trials": 1, "startup": 1, "halving": 2, "first_rung": 1, "batch": 1, "at_once": 1}
    for name, lowest in least.items():
        value = sweeper[name]
        free = {"trials": sweeper["sampler"] == "grid", "halving": True, "batch": sweeper["sampler"] != "tpe"}
        if value is None and free.get(name, False):
            continue
        if not isinstance(value, int) or value < lowest:
            got = "null" if value is None else value
            raise BadInput(key=f"hydra.sweeper.{name}", got=got, allowed=f"a whole number from {lowest}")
    if sweeper["sampler"] not in SAMPLERS:
        raise BadInput(key="hydra.sweeper.sampler", got=sweeper["sampler"], allowed=", ".join(SAMPLERS))
    own = [one for one in parsed if not one.get_key_element().startswith("hydra")]
    for probe in space_of(own, grid=sweeper["sampler"] == "grid").probes():
        check(composing.compose(probe, run_dir=folder / ".probe"))


def _grid(space: Space) -> list[dict[str, Any]]:
    import itertools

    return [dict(zip(space.examples, values, strict=True)) for values in itertools.product(*space.examples.values())]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
