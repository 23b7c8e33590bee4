"""Ctrl-C and SIGTERM: exit status 130, every committed version stays, the way on is told, and no process is left."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from experiments.run import resume, simulate
from fl import interrupts
from fl.errors import Interrupted
from fl.files import read_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

FL = Path(sys.executable).with_name("fl")
SECONDS = 120.0


@contextmanager
def running(config: dict[str, Any], *more: str, rounds: int) -> Iterator[subprocess.Popen[str]]:
    """`fl simulate` of these settings without an end, once it has committed ``rounds`` rounds."""
    dataset = [f"dataset.{key}={config['dataset'][key]}" for key in ("clients", "dimension", "classes")]
    folders = [f"run_dir={config['run_dir']}", f"registry_dir={config['registry_dir']}"]
    command = [FL, "simulate", "dataset=synthetic", *dataset, "cohort_size=4", "evaluate_clients_every=1"]
    command += ["num_rounds=100000", "client.schedule.name=constant", "server.tensorboard=false", *folders, *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines, ends = Path(config["run_dir"]) / "metrics.jsonl", time.monotonic() + SECONDS
        while not lines.exists() or lines.read_text().count("\n") <= rounds:
            assert process.poll() is None and time.monotonic() < ends, process.communicate()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def check_stopped(process: subprocess.Popen[str], run_dir: Path, name: str) -> int:
    """What an interrupted run leaves behind; returns its last round."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert name in err and f"fl resume {run_dir}" in out + err
    summary = read_json(run_dir / "summary.json")
    last = summary["rounds_completed"]
    assert summary["status"] == "interrupted" and 0 < last < 100000
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(last + 1))
    registry = Registry(run_dir.parent / "registry")
    assert [version.round for version in registry.versions(run_dir.name)] == list(range(last + 1))
    assert not registry.verify(None)
    return int(last)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_goes_on_to_the_bits_of_one_that_was_not(
    number: signal.Signals, settings: Settings, told: Told
) -> None:
    config = settings()
    with running(config, "engine=inprocess", rounds=2) as process:
        process.send_signal(number)
        last = check_stopped(process, Path(config["run_dir"]), number.name)
    path = Path(config["run_dir"]) / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "num_rounds": last + 2}))
    resume(path.parent)
    whole = simulate(settings(f"num_rounds={last + 2}", name="whole"))
    assert told(path.parent) == told(whole)


@pytest.mark.ray
def test_no_process_of_rays_is_left(settings: Settings) -> None:
    config = settings()
    with running(config, "engine=ray", "engine.num_actors=1", rounds=1) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) > 2
        process.send_signal(signal.SIGTERM)
        check_stopped(process, Path(config["run_dir"]), "SIGTERM")
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, alive


def test_a_commit_is_never_cut_in_two() -> None:
    reached = []

    def run() -> None:
        with interrupts.handled():
            with interrupts.deferred():
                signal.raise_signal(signal.SIGTERM)
                reached.append("the end of the block")
            reached.append("never")

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run()
    assert reached == ["the end of the block"]


def test_no_blanket_except_takes_a_signal_for_a_fault() -> None:
    def device() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except Exception:  # noqa: BLE001  what devices do with faults of any kind
            pytest.fail("swallowed")

    with pytest.raises(Interrupted, match="stopped by SIGINT"), interrupts.handled():
        device()


def test_a_signal_that_a_library_makes_its_own_of_keeps_its_name() -> None:
    def waiting() -> None:  # as ray.wait does when a signal finds it
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    with pytest.raises(Interrupted, match="stopped by SIGTERM"), interrupts.handled():
        waiting()
    with pytest.raises(KeyboardInterrupt), interrupts.handled():
        raise KeyboardInterrupt


def test_handlers_are_put_back_by_the_first_signal_and_by_the_end() -> None:
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with interrupts.handled():
        assert [signal.getsignal(number) for number in interrupts.SIGNALS] != before
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before

    def run() -> None:
        with interrupts.handled(), interrupts.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before

    with pytest.raises(Interrupted):
        run()
