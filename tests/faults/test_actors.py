"""Workers that die: their units run again elsewhere, to the same bits; a client that kills them is quarantined."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from experiments.config_file import CONFIG
from experiments.run import resume, simulate
from fl.files import read_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

DEADLY = """
import os
import time
import torch
from torch import nn

class Deadly(nn.Module):
    # A model that takes the process down with it when it is trained on a certain client's examples.
    def __init__(self, input_shape, num_outputs, only, pid):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], num_outputs)
        self.only, self.pid = only, pid

    def forward(self, x):
        if self.training and os.getpid() != self.pid and bool((x == self.only).any()):
            self.end()
        return self.layer(x)

    def end(self):
        with open(__file__ + ".deaths", "a") as deaths:
            deaths.write("x")
        os._exit(1)


class Hanging(Deadly):
    def end(self):
        time.sleep(600)


class Slow(Deadly):
    def end(self):  # it answers soon after a deadline of a second
        time.sleep(1.3)
"""


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray started once, with a folder that its workers import from."""
    from clients.ray_session import start_ray, stop_ray

    folder = tmp_path_factory.mktemp("importable")
    (folder / "deadly.py").write_text(DEADLY)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before or ''}"
    sys.path.insert(0, str(folder))
    start_ray(2, None)
    yield folder
    stop_ray()
    sys.path.remove(str(folder))
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def workers(engine: str) -> list[psutil.Process]:
    """Actors by their name; forked workers are the children of a child that was forked too."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = process.cmdline()
            actor = any("ClientActor" in part for part in name[:1])
            forked = name == psutil.Process().cmdline() and process.ppid() != os.getpid()
            if actor if engine == "ray" else forked:
                found.append(process)
        except psutil.Error:
            continue
    return found


ENGINES = [pytest.param("ray", marks=pytest.mark.ray), "forked"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_worker_costs_time_and_nothing_else(
    engine: str, one_ray: Path, settings: Settings, told: Told
) -> None:
    work = ("num_rounds=6", "client.local_epochs=100", "engine.unit_size=1", "algorithm=scaffold")
    here = simulate(settings(*work, name="here"))
    config = settings(*work, f"engine={engine}", "engine.num_actors=2", name="there")
    killed: list[int] = []

    def kill() -> None:
        lines = Path(config["run_dir"]) / "metrics.jsonl"
        for rounds in (1, 2):
            while not lines.exists() or lines.read_text().count("\n") <= rounds:
                time.sleep(0.005)
            for process in workers(engine)[:1]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    there = simulate(config)
    killer.join(timeout=10)
    assert killed, "no worker was found"
    assert told(there) == told(here)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("unit_size", [1, 6])
def test_a_client_that_kills_its_worker_is_quarantined_and_the_others_count(
    engine: str, unit_size: int, one_ray: Path, settings: Settings, told: Told
) -> None:
    deaths = one_ray / "deadly.py.deaths"
    deaths.write_text("")
    everyone = ("cohort_size=6", "num_rounds=3", f"engine.unit_size={unit_size}", "engine.num_actors=2")
    config = settings(*everyone, *only_client_3(settings, "Deadly"), f"engine={engine}", name="deadly")
    run = simulate(config)
    for line in told(run)[1:]:
        assert line["clients"] == {"asked": 6, "answered": 5, "failed": 1, "refused": 0, "late": 0}
        (failed,) = line["failed"]
        assert failed["client"] == 3 and "quarantined: its process died twice" in failed["reason"]
        assert line["quarantined"] == [3]
    summary = read_json(run / "summary.json")
    assert summary["status"] == "finished" and summary["quarantined"] == [{**failed, "round": 1}]
    assert deaths.read_text() == "xx", "at most two attempts in a run"


@pytest.mark.parametrize("engine", ENGINES)
def test_quarantine_outlives_a_resume_whatever_the_engine_then(
    engine: str, one_ray: Path, settings: Settings, told: Told
) -> None:
    """Nobody dies again, and the run is the one that was not interrupted."""
    deaths = one_ray / "deadly.py.deaths"
    work = ("cohort_size=6", "engine.unit_size=2", "engine.num_actors=2", f"engine={engine}")
    work = (*work, *only_client_3(settings, "Deadly"))
    whole = simulate(settings(*work, "num_rounds=4", name="whole"))
    for then in (engine, "inprocess"):
        run = simulate(settings(*work, "num_rounds=2", name=f"{then}-later"))
        config = yaml.safe_load((run / CONFIG).read_text())
        config["num_rounds"], config["engine"]["name"] = 4, then
        (run / CONFIG).write_text(yaml.safe_dump(config))
        deaths.write_text("")
        resume(run)
        assert told(run) == told(whole) and deaths.read_text() == ""
        summaries = [read_json(r / "summary.json") for r in (run, whole)]
        assert summaries[0]["quarantined"] == summaries[1]["quarantined"] != []
        assert summaries[0]["model_sha256"] == summaries[1]["model_sha256"]


def only_client_3(settings: Settings, model: str) -> tuple[str, ...]:
    """Overrides for a model that does what its class says where it is trained on the examples of client 3."""
    from fl.data.store import open_store

    data = simulate(settings("num_rounds=1", name=f"data-{model}"))
    only = float(open_store(data / "devices" / "partitions").partition(3).train.x[0, 0])
    marked = (f"model.only={only!r}", f"model.pid={os.getpid()}")
    return ("model=custom", f"model._target_=deadly.{model}", *marked, "server=random")


def test_a_client_that_hangs_is_late_and_its_worker_replaced(one_ray: Path, settings: Settings, told: Told) -> None:
    """Of every round it is asked in; the round closes at its deadline, with all others."""
    model = only_client_3(settings, "Hanging")
    everyone = ("cohort_size=6", "num_rounds=4", "engine.unit_size=1", "engine=forked", "engine.num_actors=2")
    began = time.monotonic()
    run = simulate(settings(*everyone, *model, "server.deadline_seconds=1.5", name="hanging"))
    assert time.monotonic() - began < 4 * (1.5 + 2.0) + 5.0
    for line in told(run)[1:]:
        assert line["clients"] == {"asked": 6, "answered": 5, "failed": 0, "refused": 0, "late": 1}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["Hanging", "Slow"])
def test_of_a_hundred_rounds_none_counts_a_late_reply_and_each_closes_in_time(
    model: str, engine: str, one_ray: Path, settings: Settings, told: Told
) -> None:
    """A client that never answers, and one that answers when nobody waits any more."""
    deadline = 1.0
    work = ("cohort_size=6", "num_rounds=100", "engine.unit_size=1", "engine.num_actors=2")
    more = (
        "client.local_epochs=1",
        "client.batch_size=10000",  # one look at the model a task
        f"engine={engine}",
        f"server.deadline_seconds={deadline}",
        "evaluate_clients_every=null",
        "server.quorum=0.1",
    )
    run = simulate(settings(*work, *more, *only_client_3(settings, model), name=model))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][1:]
    assert len(lines) == 100
    for line in lines:
        counts = line["clients"]
        assert counts["asked"] == 6 == counts["answered"] + counts["late"] and counts["late"] >= 1
        assert line["seconds"]["train"] <= deadline + 2.0
    registry = Registry(run.parent / "registry")
    for version in registry.versions(read_json(run / "summary.json")["run_id"])[1:]:
        assert 3 not in version.manifest["cohort"]
    answered = [line["clients"]["answered"] for line in lines]
    assert sum(count == 5 for count in answered) >= 90, answered


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_an_actor_killed_at_any_of_twenty_positions_costs_seconds_and_nothing_else(
    one_ray: Path, settings: Settings, told: Told
) -> None:
    rounds = 22
    work = (f"num_rounds={rounds}", "client.local_epochs=8", "engine.unit_size=1", "engine=ray", "engine.num_actors=2")

    def timed(name: str, kill_after: int | None = None) -> tuple[Path, float, list[int]]:
        config, killed = settings(*work, name=name), []

        def kill() -> None:
            lines = Path(config["run_dir"]) / "metrics.jsonl"
            while not lines.exists() or lines.read_text().count("\n") < kill_after:
                time.sleep(0.002)
            actors = workers("ray")
            os.kill(actors[kill_after % len(actors)].pid, signal.SIGKILL)
            killed.append(len(actors))

        if kill_after is not None:
            threading.Thread(target=kill, daemon=True).start()
        began = time.monotonic()
        return simulate(config), time.monotonic() - began, killed

    whole, undisturbed, _ = timed("whole")
    for position in range(1, 21):
        run, seconds, killed = timed(f"killed{position}", kill_after=position)
        assert killed == [2], f"position {position}: {killed} actors were there"
        assert told(run) == told(whole), f"position {position}"
        assert all(line["clients"]["answered"] == line["clients"]["asked"] for line in told(run)[1:])
        assert seconds <= undisturbed + 15.0, f"position {position}: {seconds:.1f} s, undisturbed {undisturbed:.1f} s"
        print(f"position {position}: {seconds:.1f} s, undisturbed {undisturbed:.1f} s")
