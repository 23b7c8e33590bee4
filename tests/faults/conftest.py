"""Runs that have not begun, devices whose data have gone bad, and a process that does runs and may be killed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.run import simulate
from fl.files import read_json, sha256_file, write_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Driver = Callable[..., dict[str, Any]]


@pytest.fixture
def prepared(settings: Settings) -> Callable[..., Path]:
    """A run's folder as it is when its data have been written and nothing else has happened; ``resume`` begins it."""

    def prepared(*overrides: str, name: str = "prepared") -> Path:
        once = settings(*overrides, "num_rounds=1", name=f"{name}-once")
        config = settings(*overrides, name=name)
        simulate(once)
        done, run_dir = Path(once["run_dir"]), Path(config["run_dir"])
        for part in ("centre", "devices/partitions"):
            shutil.copytree(done / part, run_dir / part)
        shutil.copy(done / "devices" / "prepared.json", run_dir / "devices")
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
        return run_dir

    return prepared


@pytest.fixture
def poison() -> Callable[[Path, Iterable[int]], None]:
    """Make every number that some clients of a prepared run hold a NaN."""

    def poison(run_dir: Path, clients: Iterable[int]) -> None:
        folder = run_dir / "devices" / "partitions"
        x, offsets = np.load(folder / "x.npy", mmap_mode="r+"), np.load(folder / "offsets.npy")
        for client in clients:
            x[offsets[client] : offsets[client + 1]] = np.nan
        x.flush()
        about = read_json(folder / "store.json")  # the device's data were so from the start: no file was damaged
        about["files"]["x.npy"] = sha256_file(folder / "x.npy")
        write_json(folder / "store.json", about, site="partitions.about")

    return poison


@pytest.fixture(scope="session")
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

    def order(**what: Any) -> dict[str, Any]:
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


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Settings as a file for the driver."""

    def write(settings: dict[str, Any]) -> str:
        path = tmp_path / f"{Path(settings['run_dir']).name}.json"
        path.write_text(json.dumps(settings))
        return str(path)

    return write


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run, by tag, without times."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run_dir / "tensorboard").exists():
        return {}
    shown = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if "second" not in tag]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in tags}


@pytest.fixture
def same(told: Told) -> Callable[[Path, Path], None]:
    """Asserts that two runs with registries of their own are one run, but for times and names."""

    def same(killed: Path, whole: Path) -> None:
        assert_same(killed, whole, told)

    return same


def assert_same(killed: Path, whole: Path, told: Told) -> None:
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
