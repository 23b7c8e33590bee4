"""A run that is killed, wherever it is, and resumed, is the run that was not killed: the same bits, steps and lines."""

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.run import resume, simulate
from fl.errors import BadInput
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Driver = Callable[..., dict[str, Any]]
Same = Callable[[Path, Path], None]
Write = Callable[[dict[str, Any]], str]

CASES = {
    "fedavg": ("server.tensorboard=true",),
    "scaffold": ("algorithm=scaffold",),
    "fedadam": ("strategy=fedadam",),
    "personal": ("client.personal=true", "client.sends=personal"),
}
ROUNDS = "num_rounds=5"


@pytest.mark.parametrize("case", CASES)
def test_killed_twice_at_any_write_a_run_goes_on_to_the_same_bits(
    case: str, driver: Driver, alone: Settings, same: Same, write: Write
) -> None:
    whole = alone(*CASES[case], ROUNDS, name="whole")
    done = driver(settings=write(whole))
    assert done["status"] == 0 and done["renamed"] > 10
    order = random.Random(case)
    for number in range(2):
        run = alone(*CASES[case], ROUNDS, name=f"killed{number}")
        first = order.randrange(2, done["renamed"])
        assert driver(settings=write(run), kill_at=first)["status"] == -signal.SIGKILL
        second = driver(resume=run["run_dir"], kill_at=order.randrange(1, 12))["status"]
        assert second in (-signal.SIGKILL, 0)
        if second:
            resume(Path(run["run_dir"]))
        same(Path(run["run_dir"]), Path(whole["run_dir"]))


@pytest.mark.parametrize("case", ["scaffold", "personal"])
def test_devices_still_have_what_they_had_before_the_rounds_that_a_kill_took(
    case: str, driver: Driver, alone: Settings, same: Same, write: Write
) -> None:
    """A device keeps a few states, and many rounds could be trained while the first of them waits to be committed."""
    short = ("evaluate_every=null", "evaluate_clients_every=null", "server.tensorboard=false", "num_rounds=40")
    run, whole = (alone(*CASES[case], *short, name=name) for name in ("killed", "whole"))
    assert driver(settings=write(whole))["status"] == 0
    assert driver(settings=write(run), fault="registry.blob.begin#20=kill")["status"] == -signal.SIGKILL
    resume(Path(run["run_dir"]))
    same(Path(run["run_dir"]), Path(whole["run_dir"]))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_write(case: str, driver: Driver, alone: Settings, same: Same, write: Write) -> None:
    whole = alone(*CASES[case], "num_rounds=3", name="whole")
    writes = driver(settings=write(whole))["renamed"]
    for kill_at in range(2, writes + 1):  # the first is config.yaml itself
        run = alone(*CASES[case], "num_rounds=3", name=f"killed{kill_at}")
        assert driver(settings=write(run), kill_at=kill_at)["status"] == -signal.SIGKILL
        resume(Path(run["run_dir"]))
        same(Path(run["run_dir"]), Path(whole["run_dir"]))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("number", range(8))
def test_killed_with_its_actors_at_any_time_a_run_goes_on_to_the_same_bits(
    number: int, driver: Driver, alone: Settings, same: Same, write: Write
) -> None:
    case = sorted(CASES)[number % len(CASES)]
    work = (*CASES[case], "num_rounds=20", "client.local_epochs=5", "engine.unit_size=1")
    whole = alone(*work, name="whole")
    assert driver(settings=write(whole))["status"] == 0
    run = alone(*work, "engine=ray", "engine.num_actors=2", name="killed")
    assert driver(settings=write(run), kill_after=random.Random(number).uniform(2.0, 9.0))["status"] in (-9, 0)
    assert driver(resume=run["run_dir"])["status"] == 0
    same(Path(run["run_dir"]), Path(whole["run_dir"]))


def test_a_finished_run_resumes_to_itself(settings: Settings, told: Told) -> None:
    run = simulate(settings())
    before = told(run), read_json(run / "summary.json")["model_sha256"]
    resume(run)
    assert (told(run), read_json(run / "summary.json")["model_sha256"]) == before


def test_two_processes_never_write_one_run(settings: Settings) -> None:
    import fcntl

    run = simulate(settings())
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BadInput, match=r"run_dir: got .*run, allowed: a run that no other process is writing"):
            resume(run)
    resume(run)


def test_a_folder_that_holds_a_run_is_not_written_over(settings: Settings, tmp_path: Path) -> None:
    run = simulate(settings())
    with pytest.raises(BadInput, match=rf"run_dir: got {run}, allowed: a new folder; .* fl resume {run}"):
        simulate(settings())
    with pytest.raises(BadInput, match=r"RUN_DIR: got .*nothing, allowed: the folder of a run"):
        resume(tmp_path / "nothing")
