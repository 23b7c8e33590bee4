"""Workers that die: their units run again elsewhere, to the same bits; a client that kills them is quarantined."""

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

from experiments.run import simulate
from fl.files import read_json

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
        os._exit(1)


class Hanging(Deadly):
    def end(self):
        time.sleep(600)
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
    from fl.data.store import open_store

    data = simulate(settings("num_rounds=1", name="data"))
    only = float(open_store(data / "devices" / "partitions").partition(3).train.x[0, 0])
    model = ("model=custom", "model._target_=deadly.Deadly", f"model.only={only!r}", f"model.pid={os.getpid()}")
    everyone = ("cohort_size=6", "num_rounds=3", f"engine.unit_size={unit_size}", "engine.num_actors=2")
    run = simulate(settings(*everyone, *model, "server=random", f"engine={engine}", name="deadly"))
    for line in told(run)[1:]:
        assert line["clients"] == {"asked": 6, "answered": 5, "failed": 1, "refused": 0, "late": 0}
        (failed,) = line["failed"]
        assert failed["client"] == 3 and "quarantined: its process died twice" in failed["reason"]
    assert read_json(run / "summary.json")["status"] == "finished"


def test_a_client_that_hangs_is_late_and_its_worker_replaced(one_ray: Path, settings: Settings, told: Told) -> None:
    """Of every round it is asked in; the round closes at its deadline, with all others."""
    from fl.data.store import open_store

    data = simulate(settings("num_rounds=1", name="data"))
    only = float(open_store(data / "devices" / "partitions").partition(3).train.x[0, 0])
    model = ("model=custom", "model._target_=deadly.Hanging", f"model.only={only!r}", f"model.pid={os.getpid()}")
    everyone = ("cohort_size=6", "num_rounds=4", "engine.unit_size=1", "engine=forked", "engine.num_actors=2")
    began = time.monotonic()
    run = simulate(settings(*everyone, *model, "server=random", "server.deadline_seconds=1.5", name="hanging"))
    assert time.monotonic() - began < 4 * (1.5 + 2.0) + 5.0
    for line in told(run)[1:]:
        assert line["clients"] == {"asked": 6, "answered": 5, "failed": 0, "refused": 0, "late": 1}
