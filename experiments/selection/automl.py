"""`fl automl`: models of many kinds within a budget of time and rounds, every trial reported, one HTML page.

    1  every candidate trains to a first rung, the better half to the second, the better quarter to the last; better is
       a lower loss on all clients' validation parts. The default model goes all the way, to be compared with
    2  what is left of the budget trains the winner on draws with replacement of each client's examples: a bag
    3  on one half of the server's test examples the three to five trials that err differently are chosen, and stacked
    4  on the other half is told whether the winner beats the default, and an ensemble its best member

A trial is a run in FOLDER/NAME: versions with lineage, and the trial's figures as evidence of the last. The command
repeated on its ``run_dir`` goes on. With a budget of rounds that is spent before the time is, it gives the same trials,
``budget.at_once`` of them at a time or one by one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.selection.candidates import DEFAULT, TRIVIAL, Candidate, candidates
from experiments.selection.trials import checked_value_after
from experiments.selection.workers import Workers
from fl.errors import BadInput, MeadowError
from fl.files import read_json, write_json

if TYPE_CHECKING:
    from fl.registry import Registry, Version

FOLDER = Path("outputs/automl")
REPORT, PAGE = "automl.json", "automl.html"
METRIC = "loss"
EVIDENCE = "trial"
RUNGS = 3
BAG = 3
SPENT = "the budget was spent"
CHOSEN = ("model", "strategy", "algorithm", "client.learning_rate", "num_rounds", "folds.", "dataset.recipe")
"""What it chooses itself."""


@dataclass
class Trial:
    """A candidate and what became of it: ``values`` by round, ``state`` in words."""

    candidate: Candidate
    settings: Mapping[str, Any]
    values: dict[int, float] = field(default_factory=dict)
    state: str = "not begun"
    version: Version | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def rounds(self) -> int:
        """How far it came."""
        return max(self.values, default=0)

    @property
    def value(self) -> float:
        """Its loss there."""
        return self.values[self.rounds] if self.values else float("inf")


@dataclass
class Budget:
    """Rounds over all trials, and the moment after which nothing more is begun."""

    rounds: int
    until: float

    def take(self, rounds: int) -> bool:
        """Whether so many rounds can still be afforded; they are taken if so."""
        if rounds > self.rounds or not self.in_time():
            return False
        self.rounds -= rounds
        return True

    def in_time(self) -> bool:
        """Whether anything may still begin."""
        return time.monotonic() <= self.until


def automl(overrides: Sequence[str]) -> dict[str, Any]:
    """Try what suits the data; the report as plain values, which is written as JSON and as a page too.

    Raises BadInput for a budget too small for a first rung, and for settings that it chooses itself.
    """
    from experiments import compose as composing
    from experiments.prepare import load_data
    from experiments.selection.shortlist import analyse, answers_of
    from fl.registry import Registry

    for text in overrides:
        if text.lstrip("+").split("=")[0].startswith(CHOSEN):
            raise BadInput(key="overrides", got=text, allowed="data, clients and budget: automl chooses that itself")
    asked = composing.compose(overrides, name=composing.AUTOML)
    own = [text for text in overrides if not text.startswith(("budget.", "run_dir="))]
    given = any(text.startswith("run_dir=") for text in overrides)
    folder = Path(asked["run_dir"] if given else FOLDER / composing.fresh_name()).absolute()
    began = time.monotonic()
    signature = load_data(asked).signature
    found = candidates(signature, learning_rate=float(asked["client"]["learning_rate"]))
    rung = _first_rung(int(asked["budget"]["rounds"]), len(found))
    budget = Budget(int(asked["budget"]["rounds"]), began + 60 * float(asked["budget"]["minutes"]))
    last = rung * 2 ** (RUNGS - 1)
    trials = _different(_composed(one, own, folder, num_rounds=last) for one in found)
    with Workers(int(asked["budget"]["at_once"])) as workers:
        _halve(trials, budget, [rung * 2**i for i in range(RUNGS)], workers)
        winner = _winner(trials, last, asked["budget"])
        bag = _bag(winner, own, folder, budget, workers, num_rounds=last)
    store = Registry(asked["registry_dir"])
    done = [trial for trial in trials if trial.values]
    for trial in [*done, *bag]:
        trial.version = _attach(store, trial)
    answers = {trial.name: answers_of(store, trial.version) for trial in done if trial.version is not None}
    members = {trial.name: answers_of(store, trial.version) for trial in bag if trial.version is not None}
    analysed = analyse(answers, seed=int(asked["seed"]), bags=_bags(members, winner), others=members)
    report = {
        **analysed,
        "winner": winner.name,
        "version": winner.version.name if winner.version else None,
        "trial_metric": METRIC,
        "trials": [_told(trial) for trial in [*trials, *bag]],
        "budget": {
            **{name: asked["budget"][name] for name in ("minutes", "rounds")},
            "rounds_left": budget.rounds,
        },
        "verdict": _verdict(winner, analysed, answers, asked["seed"]),
    }
    return _write(report, folder, seconds=time.monotonic() - began, title=f"{asked['dataset']['name']}: which model")


def _first_rung(rounds: int, trials: int) -> int:
    """Rounds of the first rung, so that halving costs about two thirds of the budget; the rest is the bag's."""
    least = 3 * trials
    if rounds < least:
        raise BadInput(key="budget.rounds", got=rounds, allowed=f"{least} or more for {trials} candidates")
    return rounds // least


def _composed(candidate: Candidate, own: Sequence[str], folder: Path, *, num_rounds: int) -> Trial:
    from experiments import compose as composing

    overrides = [*own, *candidate.overrides, f"num_rounds={num_rounds}", "server.first_champion=false"]
    run_dir = folder / f"{folder.name}-{re.sub(r'[^a-z0-9]+', '-', candidate.name)}"
    return Trial(candidate, composing.compose(overrides, run_dir=run_dir))


def _different(trials: Iterable[Trial]) -> list[Trial]:
    """Those whose settings no earlier one has: what suits the data is often the default already."""
    found: list[Trial] = []
    for trial in trials:
        settings = {**trial.settings, "run_dir": ""}
        if not any(settings == {**other.settings, "run_dir": ""} for other in found):
            found.append(trial)
    return found


def _winner(trials: Sequence[Trial], last: int, asked: Mapping[str, Any]) -> Trial:
    """The lowest loss of those that ran all their rounds, or of all if none did. BadInput where it has no rival."""
    done = [trial for trial in trials if trial.values]
    if len(done) < 2:
        allowed = "more: less than two trials came to a figure. " + "; ".join(f"{t.name}: {t.state}" for t in trials)
        raise BadInput(key="budget", got=dict(asked), allowed=allowed)
    return min([trial for trial in done if trial.rounds == last] or done, key=lambda trial: trial.value)


def _halve(trials: Sequence[Trial], budget: Budget, rungs: Sequence[int], workers: Workers) -> None:
    """From rung to rung: the better half goes on, and the default model with it."""
    going = list(trials)
    for i, until in enumerate(rungs):
        _advance(going, budget, until, workers, last=until == rungs[-1])
        reached = sorted((trial for trial in going if trial.rounds == until), key=lambda trial: trial.value)
        if until == rungs[-1]:
            return
        kept_on = reached[: max(2, len(trials) // 2 ** (i + 1))]
        kept_on += [trial for trial in reached if trial.name == DEFAULT and trial not in kept_on]
        for trial in reached:
            trial.state = "paused" if trial in kept_on else "halved away"
        going = [trial for trial in going if trial in kept_on]


def _advance(trials: Sequence[Trial], budget: Budget, until: int, workers: Workers, *, last: bool) -> None:
    """Train trials up to a round and measure them, as far as the budget has room for them."""
    ready = []
    for trial in trials:
        if trial.state.startswith("failed"):
            continue
        if budget.take(until - trial.rounds):
            ready.append(trial)
        else:
            trial.state = SPENT
    calls = {one.name: (workers.shared(one.settings), None if last else until, METRIC) for one in ready}
    outcomes = workers.each(checked_value_after, calls, may_begin=budget.in_time)
    for trial, outcome in zip(ready, outcomes, strict=True):
        if outcome is None:
            trial.state = SPENT
        elif isinstance(outcome, MeadowError):  # a model that does not suit the data is a result as well
            trial.state = f"failed: {outcome}"
        else:
            trial.values[until] = outcome
            trial.state = "finished" if last else "paused"
            continue
        budget.rounds += until - trial.rounds


def _bag(
    winner: Trial, own: Sequence[str], folder: Path, budget: Budget, workers: Workers, *, num_rounds: int
) -> list[Trial]:
    """The winner's settings on bootstrap draws of each client's examples; none where the budget has no room for two."""
    bag: list[Trial] = []
    for index in range(BAG):
        if not budget.take(num_rounds):
            break
        draw = ("folds.over=bootstrap", f"folds.number={BAG}", f"folds.index={index}")
        candidate = Candidate(f"bag {index}", (*winner.candidate.overrides, *draw))
        bag.append(_composed(candidate, own, folder, num_rounds=num_rounds))
    if len(bag) < 2:
        budget.rounds += num_rounds * len(bag)
        return []
    outcomes = workers.each(_out_of_bag, {trial.name: (workers.shared(trial.settings),) for trial in bag})
    for trial, outcome in zip(bag, outcomes, strict=True):
        if isinstance(outcome, MeadowError):
            raise outcome
        trial.values[num_rounds] = outcome
        trial.state = "finished"
    return bag


def _out_of_bag(settings: Mapping[str, Any]) -> float:
    """Loss on what each client did not draw."""
    from experiments.selection.measure import measure
    from experiments.selection.trials import run_to

    run_to(settings)
    return measure(Path(settings["run_dir"]), _last_version(settings), part="test").metrics[METRIC]


def _last_version(settings: Mapping[str, Any], round: int | None = None) -> Version:
    from fl.registry import Registry

    run_id = str(read_json(Path(settings["run_dir"]) / "run.json")["run_id"])
    registry = Registry(settings["registry_dir"])
    latest = registry.latest(run_id)
    assert latest is not None  # it was measured
    return latest if round is None else registry.version(f"{run_id}:{min(round, latest.round)}")


def _attach(store: Registry, trial: Trial) -> Version:
    """The version that the trial came to, with its figures as evidence."""
    version = _last_version(trial.settings, trial.rounds)
    store.attach(version, EVIDENCE, {key: value for key, value in _told(trial).items() if key != "version"})
    return version


def _told(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "overrides": list(trial.candidate.overrides),
        "state": trial.state,
        "rounds": trial.rounds,
        "value": trial.value if trial.values else None,
        "values": {str(round): value for round, value in trial.values.items()},
        "version": trial.version.name if trial.version else None,
    }


def _bags(members: Mapping[str, Any], winner: Trial) -> dict[str, list[str]]:
    return {f"bag of {winner.name}": list(members)} if members else {}


def _verdict(winner: Trial, analysed: Mapping[str, Any], answers: Mapping[str, Any], seed: int) -> list[str]:
    """The winner against the default and the trivial model, and the best ensemble against its best member."""
    from experiments.selection.shortlist import beside

    lines = []
    for other in (DEFAULT, TRIVIAL):
        if winner.name == other:
            lines.append(f"The {other} model is the best of what was tried: nothing beat it.")
        elif other in answers:
            lines.append(f"{winner.name} {beside(answers, winner.name, other, seed=seed)}.")
        else:
            lines.append(f"{winner.name} is not compared with {other}, which came to no figure.")
    told = [one for one in analysed["ensembles"] if "verdict" in one]
    return [*lines, *(f"The {one['name']} {one['verdict']}." for one in told)]


def _write(report: dict[str, Any], folder: Path, *, seconds: float, title: str) -> dict[str, Any]:
    from experiments.selection.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(report))
    write_json(folder / REPORT, plain, site="report")
    write_page(folder / PAGE, plain, title=title)
    return {**plain, "seconds": seconds, "page": str(folder / PAGE)}


def show(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print every trial and the verdict; the page is the last line."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    from experiments.printing import print_table

    rows = [
        (
            one["name"],
            one["state"],
            one["rounds"],
            "" if one["value"] is None else f"{one['value']:.4f}",
            one["version"] or "",
        )
        for one in report["trials"]
    ]
    print_table(("trial", "", "rounds", f"validation {report['trial_metric']}", "version"), rows)
    for line in report["verdict"]:
        print(line)
    print(report["page"])
