"""However a run with Ray ends, nothing of it is left after ten seconds; and while it is there, strangers stay out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.run import simulate
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]

FL = Path(sys.executable).with_name("fl")
MOST_SECONDS = 10.0


def start(config: dict[str, Any], *more: str) -> subprocess.Popen[str]:
    """`fl simulate engine=ray` without an end, once it has committed a round; with a token of its own."""
    folders = [f"run_dir={config['run_dir']}", f"registry_dir={config['registry_dir']}"]
    command = [FL, "simulate", "dataset=synthetic", "dataset.clients=6", "cohort_size=4", "num_rounds=100000"]
    command += ["engine=ray", "engine.num_actors=2", "server.tensorboard=false", *folders, *more]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines, ends = Path(config["run_dir"]) / "metrics.jsonl", time.monotonic() + 120
    while not lines.exists() or lines.read_text().count("\n") < 2:
        assert process.poll() is None and time.monotonic() < ends, process.communicate()
        time.sleep(0.05)
    return process


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def session_folders(members: list[psutil.Process]) -> set[Path]:
    found = set()
    for member in members:
        try:
            found |= {Path(p.split("=", 1)[1]) for p in member.cmdline() if p.startswith("--session-dir=")}
            found |= {Path(p.split("=", 1)[1]) for p in member.cmdline() if p.startswith("--session_dir=")}
        except psutil.Error:
            continue
    return found


def memory_files() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_nothing_is_left(number: signal.Signals, settings: Settings) -> None:
    before = memory_files()
    process = start(settings(name="ended"))
    members = family(process)
    names = {member.name() for member in members}
    assert {"raylet", "gcs_server"} <= names, names
    folders = session_folders(members)
    process.send_signal(number)
    process.wait(timeout=60)
    ends = time.monotonic() + MOST_SECONDS
    while (left := [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < ends
    ):
        time.sleep(0.1)
    assert not left
    while any(folder.exists() for folder in folders) and time.monotonic() < ends:
        time.sleep(0.1)
    assert folders and not [folder for folder in folders if folder.exists()]
    assert memory_files() <= before
    process.communicate()


STRANGER = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except BaseException as error:
    print(type(error).__name__, str(error)[:200])
    sys.exit(7)
"""


@pytest.mark.ray
def test_another_ray_on_this_machine_is_not_joined(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no address was asked for, a run has its own: whatever the environment, or a dead cluster's file, names."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    run = simulate(settings("engine=ray", "engine.num_actors=1"))
    assert read_json(run / "summary.json")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.ray
def test_a_stranger_is_not_let_in(settings: Settings) -> None:
    process = start(settings(name="guarded"))
    try:
        (raylet,) = (m for m in family(process) if m.name() == "raylet")
        address = next(part.split("=", 1)[1] for part in raylet.cmdline() if part.startswith("--gcs-address="))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        wrong = {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        right = {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": raylet.environ()["RAY_AUTH_TOKEN"]}
        statuses = []
        for environment in (plain, wrong, right):
            try:
                tried = subprocess.run(
                    [sys.executable, "-c", STRANGER, address], env=environment, capture_output=True, timeout=30
                )
                statuses.append(tried.returncode)
            except subprocess.TimeoutExpired:  # it was never answered
                statuses.append(-1)
        assert statuses[0] != 0 and statuses[1] != 0 and statuses[2] == 0, statuses
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inprocess", "forked", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_long_run_does_not_grow(engine: str, settings: Settings) -> None:
    """500 rounds of 20 clients: memory, descriptors, threads as after round 50, or nearly so; and nothing is left."""
    config, before = settings(name="soak"), memory_files()
    lines = Path(config["run_dir"]) / "metrics.jsonl"
    command = [FL, "simulate", "dataset=synthetic", "dataset.clients=40", "cohort_size=20", "num_rounds=500"]
    command += [f"engine={engine}", "engine.num_actors=2", "evaluate_every=50", "client.local_epochs=1"]
    command += [f"run_dir={config['run_dir']}", f"registry_dir={config['registry_dir']}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    looked: dict[int, dict[str, float]] = {}
    members: set[psutil.Process] = set()
    while process.poll() is None:
        done = lines.read_text().count("\n") - 1 if lines.exists() else 0
        for mark in (50, 480):
            if done >= mark and mark not in looked:
                looked[mark] = state_of(process.pid)
                members |= set(family(process))
        time.sleep(0.02)
    assert process.returncode == 0 and looked.keys() == {50, 480}
    growth = {name: value - looked[50][name] for name, value in looked[480].items()}
    print(engine, growth)
    assert growth["resident bytes"] / 2**20 <= 0.1 * 430
    assert growth["bytes of shared memory"] / 2**20 <= 1
    assert growth["descriptors"] <= 2 and growth["threads"] <= 2
    time.sleep(1.0)
    assert not [member for member in members if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    assert memory_files() <= before


def state_of(pid: int) -> dict[str, float]:
    """Of the driver and of all that it started: resident bytes; of the driver alone: descriptors and threads."""
    driver = psutil.Process(pid)
    resident = driver.memory_info().rss
    for member in driver.children(recursive=True):
        try:
            resident += member.memory_info().rss
        except psutil.Error:
            continue
    return {
        "resident bytes": float(resident),
        "bytes of shared memory": float(sum(512 * path.stat().st_blocks for path in Path("/dev/shm").rglob("*"))),
        "descriptors": driver.num_fds(),
        "threads": driver.num_threads(),
    }


LEFT_BY = """
import gc, json, psutil, sys
from experiments.run import simulate
own, left = psutil.Process(), []
for run in json.load(sys.stdin):
    simulate(run)
    gc.collect()
    children = [child for child in own.children() if child.status() != psutil.STATUS_ZOMBIE]
    left.append([own.num_fds(), [child.cmdline() for child in children]])
print(json.dumps(left))
"""


def test_a_run_of_many_rounds_keeps_its_descriptors(settings: Settings) -> None:
    """In a process of its own: where Ray has run, its channels go on opening sockets."""
    runs = [settings(f"num_rounds={n}", "engine=forked", name=f"of-{n}") for n in (2, 30)]
    command = [sys.executable, "-c", LEFT_BY]
    own = subprocess.run(command, input=json.dumps(runs), capture_output=True, text=True, check=True, timeout=120)
    assert read_json(Path(runs[1]["run_dir"]) / "summary.json")["rounds_completed"] == 30
    few, many = json.loads(own.stdout.splitlines()[-1])
    assert many[0] <= few[0]
    assert few[1] == many[1] == []
