"""A run's folder has one writer: of many that try at once one gets in, and the others are told at once."""

import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.run import simulate
from experiments.run_folder import only_writer
from fl.errors import BadInput
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]

FL = Path(sys.executable).with_name("fl")
RACES, RACERS = 100, 4


def race(folder: Path) -> list[str]:
    """What became of processes that try to be the writer at the same moment."""
    ready, go = os.pipe()
    reader, writer = os.pipe()
    lost, losing = os.pipe()
    pids = []
    for _ in range(RACERS):
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(ready, 1)  # returns for all of them when the last writing end is closed
            began = time.monotonic()
            try:
                with only_writer(folder):
                    os.write(writer, b"in ")
                    for _ in range(RACERS - 1):  # until all others have tried
                        if not select.select([lost], [], [], 5.0)[0] or not os.read(lost, 1):
                            break
            except BadInput:
                os.write(losing, b".")
                os.write(writer, b"refused " if time.monotonic() - began < 1.0 else b"late ")
            os._exit(0)
        pids.append(pid)
    os.close(go)
    os.close(writer)
    for pid in pids:
        os.waitpid(pid, 0)
    with os.fdopen(reader) as told:
        words = told.read().split()
    for end in (ready, lost, losing):
        os.close(end)
    return sorted(words)


def test_one_of_many_writers_gets_in(tmp_path: Path) -> None:
    for _ in range(RACES):
        assert race(tmp_path) == ["in", *["refused"] * (RACERS - 1)]


def test_a_dead_writers_lock_is_taken_over(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        with only_writer(tmp_path):
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("command", ["simulate", "resume"])
def test_a_second_command_is_told_at_once(command: str, settings: Settings) -> None:
    """Before anything is trained, by the quickest of three: a busy machine slows some of them, not the command."""
    run = simulate(settings())
    arguments = [str(run)] if command == "resume" else [f"run_dir={run}", "dataset=synthetic"]
    took = []
    with only_writer(run):
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([FL, command, *arguments], capture_output=True, text=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert done.returncode == 2 and f"got {run}" in done.stderr
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 1.5, took  # seconds of a core: Hydra, and no torch


def test_two_runs_in_one_registry_never_share_a_round(settings: Settings, tmp_path: Path) -> None:
    """Processes that run at the same time, with one registry: each has its versions, whole and its own."""
    configs = [settings("num_rounds=6", f"seed={seed}", name=f"run{seed}") for seed in (1, 2, 3)]
    pids = []
    for config in configs:
        pid = os.fork()
        if not pid:
            try:
                simulate(config)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    registry = Registry(tmp_path / "registry")
    assert {run: len(registry.versions(run)) for run in ("run1", "run2", "run3")} == dict.fromkeys(
        ("run1", "run2", "run3"), 7
    )
    assert not registry.verify()
