"""Actors that die: their units run again elsewhere, to the same bits; a client that kills every actor is given up."""

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
            os._exit(1)
        return self.layer(x)
"""


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray started once, with a folder that its workers import from."""
    import ray

    from clients.actor import start_ray

    folder = tmp_path_factory.mktemp("importable")
    (folder / "deadly.py").write_text(DEADLY)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before or ''}"
    sys.path.insert(0, str(folder))
    start_ray(2, None)
    yield folder
    ray.shutdown()
    sys.path.remove(str(folder))
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def actors() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("ClientActor" in part for part in process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.ray
def test_a_killed_actor_costs_time_and_nothing_else(one_ray: Path, settings: Settings, told: Told) -> None:
    work = ("num_rounds=4", "client.local_epochs=15", "engine.unit_size=1", "algorithm=scaffold")
    here = simulate(settings(*work, name="here"))
    config = settings(*work, "engine=ray", "engine.num_actors=2", name="there")
    killed: list[int] = []

    def kill() -> None:
        lines = Path(config["run_dir"]) / "metrics.jsonl"
        for rounds in (1, 2):
            while not lines.exists() or lines.read_text().count("\n") <= rounds:
                time.sleep(0.005)
            for process in actors()[:1]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    there = simulate(config)
    killer.join(timeout=10)
    assert killed, "no actor was found"
    assert told(there) == told(here)


@pytest.mark.ray
def test_a_client_that_kills_every_actor_is_named_and_the_others_count(
    one_ray: Path, settings: Settings, told: Told
) -> None:
    from fl.data.store import open_store

    data = simulate(settings("num_rounds=1", name="data"))
    only = float(open_store(data / "devices" / "partitions").partition(3).train.x[0, 0])
    model = ("model=custom", "model._target_=deadly.Deadly", f"model.only={only!r}", f"model.pid={os.getpid()}")
    everyone = ("cohort_size=6", "num_rounds=1", "engine.unit_size=1", "engine=ray", "engine.num_actors=2")
    run = simulate(settings(*everyone, *model, "server=random", name="deadly"))
    (line,) = told(run)[1:]
    assert line["clients"] == {"asked": 6, "answered": 5, "failed": 1, "refused": 0, "late": 0}
    (failed,) = line["failed"]
    assert failed["client"] == 3 and "its process died" in failed["reason"]
    assert read_json(run / "summary.json")["status"] == "finished"
