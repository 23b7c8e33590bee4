"""Commits in a process of their own: the same files as without it, and what goes wrong there is said here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from experiments import engine as engines
from experiments.run import resume, simulate
from fl.errors import BadInput, StorageFailed
from fl.files import read_json
from fl.metrics import Statistics
from fl.parameters import Parameters
from fl.registry import Registry, Version
from server import commit_process as under_test
from server.commit_process import NAME, NOBODY, commit_process, recorder
from server.commits import Commits
from server.records import Closing, RoundRecord, RunRecord, RunSummary
from server.tracking.events import read_events

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

FL = Path(sys.executable).with_name("fl")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on there is no process for commits."""

    @contextmanager
    def nobody(*, tensorboard: bool) -> Iterator[int]:
        yield NOBODY

    return lambda: monkeypatch.setattr(under_test, "commit_process", nobody)


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    times = ("seconds", "created", "config", "code", "name", "run_id", "parent", "parent_name", "version")
    return {k: without_times(v) if isinstance(v, dict) else v for k, v in values.items() if k not in times}


@pytest.mark.parametrize("more", ["strategy=own", "algorithm=scaffold", "strategy=fedyogi", "client.personal=true"])
def test_a_run_leaves_the_same_behind_with_and_without_the_process(
    more: str, settings: Settings, told: Told, here: Callable[[], None]
) -> None:
    config = ("num_rounds=4", "evaluate_every=2", "server.tensorboard=true", more)
    runs = [simulate(settings(*config, name="there"))]
    here()
    runs.append(simulate(settings(*config, name="here")))
    store = Registry(runs[0].parent / "registry")
    manifests = [[without_times(v.manifest) for v in store.versions(run.name)] for run in runs]
    assert manifests[0] == manifests[1] and len(manifests[0]) == 5
    lines = [[without_times(line) for line in told(run)] for run in runs]
    assert lines[0] == lines[1] and len(lines[0]) == 5
    tags = [[(e.step, [v.tag for v in e.summary.value]) for e in read_events(event_file(run))] for run in runs]
    assert tags[0] == tags[1]


def event_file(run: Path) -> Path:
    (found,) = (run / "tensorboard").iterdir()
    return found


def never(parameters: Parameters) -> Statistics:
    raise AssertionError("all is measured")


def make(closings: Sequence[Closing]) -> list[Version]:
    """Versions that are named by the process they were made in; of a round below 0 an error."""
    for one in closings:
        if one.round < 0:
            raise ERRORS[-one.round - 1]
    return [Version(str(os.getpid()), "run", one.round, "", "", {}, Path()) for one in closings]


class Odd(Exception):
    """One that cannot be made again from what it was made from."""

    def __init__(self, number: int, *, word: str) -> None:
        super().__init__(f"{word} {number}")


ERRORS = [BadInput(key="a", got="b", allowed="c"), ZeroDivisionError("by nothing"), Odd(7, word="odd")]


def closing(round: int) -> Closing:
    facts = {"round": round, "metrics": {}, "seconds": {}, "clients": {}, "bytes": {}}
    return Closing(round, {}, None, facts)


@pytest.fixture
def commits() -> Commits:
    return Commits(evaluate=never, make=make, tensorboard=False, _told=Silent())


class Silent:
    """An observer of nothing."""

    def on_start(self, run: RunRecord) -> None: ...

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None: ...

    def on_round(self, record: RoundRecord) -> None: ...

    def on_end(self, summary: RunSummary) -> None: ...


def test_it_is_another_process_that_commits_and_it_has_gone_afterwards(commits: Commits) -> None:
    with commit_process(tensorboard=False) as descriptor:
        recorded = recorder(commits, descriptor)
        (record,) = recorded.commit([closing(3)])
        assert record.round == 3
        process = psutil.Process(int(record.version))
        assert process.pid != os.getpid() and process.name() == NAME
    assert not process.is_running()


def test_what_goes_wrong_there_is_raised_here(commits: Commits) -> None:
    with commit_process(tensorboard=False) as descriptor:
        recorded = recorder(commits, descriptor)
        with pytest.raises(BadInput, match="a: got b, allowed: c"):
            list(recorded.commit([closing(-1)]))
        with pytest.raises(ZeroDivisionError, match="by nothing") as raised:
            list(recorded.commit([closing(-2)]))
        assert "in make" in raised.value.__notes__[0]  # where it was
        with pytest.raises(RuntimeError, match="Odd: odd 7"):
            list(recorded.commit([closing(-3)]))
        found = recorded.commit([closing(4), closing(-1)])
        assert next(found).round == 4  # what came before it is a version
        with pytest.raises(BadInput):
            next(found)
        assert [one.round for one in recorded.commit([closing(5)])] == [5]


def test_a_model_that_no_module_has_is_committed_here(commits: Commits) -> None:
    class Local(torch.nn.Module):
        pass

    commits.evaluate = Local()
    with commit_process(tensorboard=False) as descriptor:
        recorded = recorder(commits, descriptor)
        (record,) = recorded.commit([closing(1)])
    assert int(record.version) == os.getpid()


def test_no_other_descriptor_is_read_from(commits: Commits) -> None:
    """On a SuperLink it is a user who says which."""
    reader, writer = os.pipe()
    assert recorder(commits, reader) is commits
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("unit_size, there", [(1, False), (100, True)])
def test_there_is_one_where_training_leaves_it_a_core(
    unit_size: int, there: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "available_cores", lambda: 2)
    more: list[list[str]] = []
    grid = engines.open_grid

    @contextmanager
    def noted(*given: Any, **named: Any) -> Iterator[Any]:
        with grid(*given, **named) as opened:
            more.append([child.name() for child in psutil.Process().children()])
            yield opened

    monkeypatch.setattr(engines, "open_grid", noted)
    simulate(settings("engine=forked", "engine.num_actors=2", f"engine.unit_size={unit_size}", "num_rounds=1"))
    assert [NAME in children for children in more] == [there]


def test_where_there_are_no_more_processes_there_is_none(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fork)
    with commit_process(tensorboard=False) as descriptor:
        recorded = recorder(commits, descriptor)
        (record,) = recorded.commit([closing(1)])
    assert int(record.version) == os.getpid()


def test_a_run_whose_commits_are_killed_ends_and_goes_on_to_the_same_bits(settings: Settings) -> None:
    config = settings("num_rounds=100000", "evaluate_every=null", "evaluate_clients_every=null", name="killed")
    process = endless(config)
    (commits,) = (one for one in psutil.Process(process.pid).children() if one.name() == NAME)
    commits.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == StorageFailed.exit_status
    assert "the versions of this run could not be written: the process meadow-commits" in err, err
    store = Registry(Path(config["registry_dir"]))
    last = store.versions("killed")[-1].round
    resume(Path(config["run_dir"]), until=last + 3)
    whole = settings("evaluate_every=null", "evaluate_clients_every=null", "num_rounds=100000", name="whole")
    simulate(whole, until=last + 3)
    assert [v.model_sha256 for v in store.versions("killed")] == [v.model_sha256 for v in store.versions("whole")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_it_ends_with_the_run(number: signal.Signals, settings: Settings) -> None:
    config = settings("num_rounds=100000", "evaluate_every=null", "evaluate_clients_every=null", name="ended")
    process = endless(config)
    members = psutil.Process(process.pid).children(recursive=True)
    assert NAME in {member.name() for member in members}
    for member in [psutil.Process(process.pid), *members] if number == signal.SIGTERM else []:
        member.send_signal(number)  # as systemd does: the driver alone says when it is over
    if number == signal.SIGKILL:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert psutil.wait_procs(members, timeout=10)[1] == []
    if number == signal.SIGTERM:
        assert read_json(Path(config["run_dir"]) / "summary.json")["status"] == "interrupted"
    lines = [json.loads(line) for line in (Path(config["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    versions = Registry(Path(config["registry_dir"])).versions("ended")
    assert len(versions) - len(lines) in range(50) and (number == signal.SIGKILL or len(versions) == len(lines))


def endless(config: dict[str, Any]) -> subprocess.Popen[str]:
    """A run in a process of its own, once it has committed some rounds."""
    Path(config["run_dir"]).parent.mkdir(parents=True, exist_ok=True)
    settings = Path(config["run_dir"]).with_suffix(".json")
    settings.write_text(json.dumps(config))
    code = "import json, sys\nfrom experiments.run import simulate\nfrom fl.errors import MeadowError\n"
    code += "try:\n    simulate(json.load(open(sys.argv[1])))\n"
    code += "except MeadowError as error:\n    print(error, file=sys.stderr)\n    sys.exit(error.exit_status)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, settings], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lines, ends = Path(config["run_dir"]) / "metrics.jsonl", time.monotonic() + 120
    while not lines.exists() or lines.read_text().count("\n") < 5:
        assert process.poll() is None and time.monotonic() < ends, process.communicate()
        time.sleep(0.05)
    return process
