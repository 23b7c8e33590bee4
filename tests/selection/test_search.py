"""A search by `fl simulate --multirun hydra/sweeper=...`: the same with any actors and after kill -9; fewer rounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from experiments.engine import available_cores
from experiments.run import resume, simulate
from experiments.selection.search import search
from experiments.selection.trials import rungs
from experiments.simulate import launch
from fl.errors import BadInput
from fl.files import read_json
from fl.registry import Registry

DATA = ("dataset=synthetic", "dataset.clients=6", "dataset.dimension=8", "dataset.classes=3", "cohort_size=4")
QUICK = ("server.tensorboard=false", "server=random", "evaluate_clients_every=null", "model=softmax")
RATE = "client.learning_rate=tag(log,interval(0.001,1))"


def asked(*more: str, rounds: int = 2) -> list[str]:
    return [*DATA, *QUICK, f"num_rounds={rounds}", *more]


def found(folder: Path) -> dict:
    return {key: value for key, value in read_json(folder / "search.json").items() if not key.startswith("_")}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


needs_two_cores = pytest.mark.skipif(available_cores() < 2, reason="one core: one trial at a time")


@pytest.mark.slow
@needs_two_cores
def test_a_search_is_the_same_however_much_runs_at_once_and_goes_on_where_it_was_killed(tmp_path):
    tpe = ("hydra/sweeper=tpe", "hydra.sweeper.trials=5", "hydra.sweeper.startup=2", RATE, "client.momentum=0,0.5")
    whole, _ = search(asked(*tpe, "engine=inprocess", "run_dir=whole"))
    fl = Path(sys.executable).with_name("fl")
    both = ("engine=forked", "engine.num_actors=2", "hydra.sweeper.at_once=2", "run_dir=killed")
    command = [fl, "simulate", "--multirun", *asked(*tpe, *both)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    children: list[psutil.Process] = []
    try:
        while not (tmp_path / "killed" / "2" / "run.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        own = [child for child in children if child.ppid() == process.pid]
        at_work = sum("spawn_main" in " ".join(child.cmdline()) for child in own)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert at_work == 2  # trials at once
    assert not psutil.wait_procs(children, timeout=30)[1]  # nothing goes on writing
    assert not (tmp_path / "killed" / "search.json").exists()
    ended = [path.parent / "metrics.jsonl" for path in (tmp_path / "killed").glob("*/trial.json")]
    assert ended  # at least one, or there would be no third
    before = [path.stat().st_mtime_ns for path in ended]
    killed, jobs = search(asked(*tpe, "engine=forked", "engine.num_actors=1", "run_dir=killed"))
    assert found(killed) == found(whole)
    assert [path.stat().st_mtime_ns for path in ended] == before  # not run again
    assert len(jobs) == 5 and all(job.error is None for job in jobs)
    # Every trial is a run with versions; the best is champion, since there was none.
    registry = Registry(tmp_path / "outputs" / "registry")
    best = found(whole)["best"]
    assert found(whole)["trials"][best]["value"] == min(one["value"] for one in found(whole)["trials"])
    assert registry.aliases()["champion"].run_id == f"whole-{best}"
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(whole / "study.journal"))
    study = optuna.load_study(study_name="whole", storage=optuna.storages.JournalStorage(backend))
    assert study.best_trial.number == best and len(study.trials) == 5


@pytest.mark.slow
@needs_two_cores
def test_halving_two_trials_at_once_makes_the_decisions_of_one_by_one():
    asha = ("hydra/sweeper=asha", "hydra.sweeper.trials=7", "hydra.sweeper.halving=2", RATE, "engine=inprocess")
    one, _ = search(asked(*asha, "run_dir=one", rounds=4))
    two, jobs = search(asked(*asha, "hydra.sweeper.at_once=2", "run_dir=two", rounds=4))
    assert found(two) == found(one) and len(jobs) == 7
    assert {trial["state"] for trial in found(one)["trials"]} == {"finished", "halved away"}
    for name in ("trial.json", "metrics.jsonl"):
        assert (two / "0" / name).is_file()


def test_a_grid_has_every_combination_in_order():
    folder, jobs = search(
        asked("hydra/sweeper=grid", "client.learning_rate=0.5,0.05", "seed=1,2", "engine=inprocess", rounds=0)
    )
    trials = found(folder)["trials"]
    assert [(t["values"]["client.learning_rate"], t["values"]["seed"]) for t in trials] == [
        ("0.5", "1"),
        ("0.5", "2"),
        ("0.05", "1"),
        ("0.05", "2"),
    ]
    assert found(folder)["rounds"] == 0 and len(jobs) == 4


@pytest.mark.slow
def test_halving_finds_the_winner_of_the_full_search_for_at_most_half_the_rounds():
    """The stated case: heart disease, logistic regression, 12 step sizes drawn by seed 1, 9 rounds."""
    case = ["dataset=heart_disease", "model=logistic", "server=random", "num_rounds=9", RATE, "engine=inprocess"]
    case += ["server.tensorboard=false", "evaluate_clients_every=null", "client.schedule.name=constant"]
    full, _ = search([*case, "hydra/sweeper=random", "hydra.sweeper.trials=12", "run_dir=full"])
    halved, _ = search([*case, "hydra/sweeper=asha", "hydra.sweeper.trials=12", "run_dir=halved"])
    one, other = found(full), found(halved)
    assert other["best"] == one["best"]
    assert other["rounds"] <= one["rounds"] / 2
    # Who got to the end has the very figures of the full search: a pause changes nothing.
    for trial in other["trials"]:
        if trial["state"] == "finished":
            assert trial["value"] == one["trials"][trial["number"]]["value"]


def test_a_run_that_paused_goes_on_to_the_same_bits(settings, told):
    whole, paused = settings(name="whole"), settings(name="paused")
    simulate(whole)
    simulate(paused, until=1)
    folder = Path(paused["run_dir"])
    assert read_json(folder / "summary.json")["status"] == "paused" and len(told(folder)) == 2
    resume(folder, until=1)
    assert len(told(folder)) == 2
    resume(folder)
    assert told(folder) == told(Path(whole["run_dir"]))
    assert read_json(folder / "summary.json")["status"] == "finished"


def test_rungs_end_at_the_last_round():
    assert rungs(9, first=1, factor=3) == [1, 3, 9]
    assert rungs(2, first=4, factor=3) == [2]
    assert rungs(7, first=1, factor=None) == [7]


@pytest.mark.parametrize(
    "words, key",
    [
        (["hydra/sweeper=tpe"], "overrides"),
        (["hydra/sweeper=grid", RATE], "client.learning_rate"),
        (["hydra/sweeper=tpe", "client.learning_rate=interval(1,0.1)"], "client.learning_rate"),
        (["hydra/sweeper=tpe", "client.learning_rate=tag(log,interval(0,1))"], "client.learning_rate"),
        (["hydra/sweeper=tpe", "client.learning_rate=interval(-1,1)"], "client.learning_rate"),
        (["hydra/sweeper=tpe", "hydra.sweeper.trials=0", RATE], "hydra.sweeper.trials"),
        (["hydra/sweeper=tpe", "hydra.sweeper.trials=null", RATE], "hydra.sweeper.trials"),
        (["hydra/sweeper=asha", "hydra.sweeper.halving=1", RATE], "hydra.sweeper.halving"),
        (["hydra/sweeper=tpe", "hydra.sweeper.batch=null", RATE], "hydra.sweeper.batch"),
        (["hydra/sweeper=random", "hydra.sweeper.at_once=0", RATE], "hydra.sweeper.at_once"),
        (["hydra/sweeper=random", "hydra.sweeper.sampler=cma", RATE], "hydra.sweeper.sampler"),
        (["hydra/sweeper=random", "client.learning_rat=interval(0,1)"], "client.learning_rat"),
        (["hydra/sweeper=random", "seed=1"], "overrides"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_first_trial(tmp_path, words, key):
    with pytest.raises(BadInput) as error:
        search(asked(*words, "run_dir=never"))
    assert error.value.key == key
    assert not (tmp_path / "never" / "0").exists()


@pytest.mark.slow
def test_a_metric_that_the_task_has_not_is_told_of_every_trial():
    _, jobs = search(
        asked(
            *("hydra/sweeper=random", "hydra.sweeper.trials=2", "hydra.sweeper.metric=rmse", RATE),
            *("hydra.sweeper.at_once=2", "engine=inprocess"),
        )
    )
    words = "hydra.sweeper.metric: got rmse, allowed: loss, accuracy"
    assert [(job.number, words in str(job.error)) for job in jobs] == [(0, True), (1, True)]


def test_hydras_own_sweeper_is_as_it_was():
    numbers = []
    launch([*asked("seed=1,2")], lambda config: numbers.append(config.seed), "--multirun")
    assert numbers == [1, 2]
