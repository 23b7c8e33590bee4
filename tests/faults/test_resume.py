"""A run that is killed, wherever it is, and resumed, is the run that was not killed: the same bits, steps and lines."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.run import resume, simulate
from fl.errors import BadInput
from fl.files import read_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Driver = Callable[..., dict[str, int]]

CASES = {
    "fedavg": ("server.tensorboard=true",),
    "scaffold": ("algorithm=scaffold",),
    "fedadam": ("strategy=fedadam",),
    "personal": ("client.personal=true", "client.sends=personal"),
}
ROUNDS = "num_rounds=5"


@pytest.fixture(scope="module")
def driver(repository: Path) -> Iterator[Driver]:
    """Does a run in a process of its own, which may be told to kill itself."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("driver.py")],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def order(**what: Any) -> dict[str, int]:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        while not (line := process.stdout.readline()).startswith("{"):
            assert line, "the driver has ended"
        return dict(json.loads(line))

    yield order
    process.communicate()


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """Settings of a run with a registry of its own: the same run makes the same writes."""

    def alone(*overrides: str, name: str) -> dict[str, Any]:
        made = settings(*overrides, name=name)
        return {**made, "registry_dir": f"{made['run_dir']}-registry"}

    return alone


def write(settings: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / f"{Path(settings['run_dir']).name}.json"
    path.write_text(json.dumps(settings))
    return str(path)


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run, by tag, without times."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run_dir / "tensorboard").exists():
        return {}
    shown = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if "second" not in tag]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in tags}


def same(killed: Path, whole: Path, told: Told) -> None:
    summaries = [read_json(run / "summary.json") for run in (killed, whole)]
    for name in ("model_sha256", "final", "rounds_completed", "clients", "bytes", "seeding", "status"):
        assert summaries[0][name] == summaries[1][name], name
    assert told(killed) == told(whole)
    assert scalars(killed) == scalars(whole)
    registries = [Registry(run.parent / f"{run.name}-registry") for run in (killed, whole)]
    # A kill between the claim of an id and its record leaves that id to nobody, and the run takes the next.
    versions = [r.versions(summary["run_id"]) for r, summary in zip(registries, summaries, strict=True)]
    assert [v.model_sha256 for v in versions[0]] == [v.model_sha256 for v in versions[1]]
    assert not registries[0].verify(None)
    champions = [registry.aliases()["champion"].round for registry in registries]
    assert champions[0] == champions[1]


@pytest.mark.parametrize("case", CASES)
def test_killed_twice_at_any_write_a_run_goes_on_to_the_same_bits(
    case: str, driver: Driver, alone: Settings, told: Told, tmp_path: Path
) -> None:
    whole = alone(*CASES[case], ROUNDS, name="whole")
    done = driver(settings=write(whole, tmp_path))
    assert done["status"] == 0 and done["renamed"] > 10
    order = random.Random(case)
    for number in range(2):
        run = alone(*CASES[case], ROUNDS, name=f"killed{number}")
        first = order.randrange(2, done["renamed"])
        assert driver(settings=write(run, tmp_path), kill_at=first)["status"] == -signal.SIGKILL
        second = driver(resume=run["run_dir"], kill_at=order.randrange(1, 12))["status"]
        assert second in (-signal.SIGKILL, 0)
        if second:
            resume(Path(run["run_dir"]))
        same(Path(run["run_dir"]), Path(whole["run_dir"]), told)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_write(case: str, driver: Driver, alone: Settings, told: Told, tmp_path: Path) -> None:
    whole = alone(*CASES[case], "num_rounds=3", name="whole")
    writes = driver(settings=write(whole, tmp_path))["renamed"]
    for kill_at in range(2, writes + 1):  # the first is config.yaml itself
        run = alone(*CASES[case], "num_rounds=3", name=f"killed{kill_at}")
        assert driver(settings=write(run, tmp_path), kill_at=kill_at)["status"] == -signal.SIGKILL
        resume(Path(run["run_dir"]))
        same(Path(run["run_dir"]), Path(whole["run_dir"]), told)


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
