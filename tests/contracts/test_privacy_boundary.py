"""What crosses the boundary is what fl/messages.py declares; the server's process never opens a partition."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.inprocess import InProcess
from clients.setting import Setting, open_setting
from clients.unit import answer
from experiments.run import simulate
from fl import wire
from fl.algorithms.algorithm import Algorithm, LocalRun
from fl.algorithms.fedavg import build
from fl.files import read_json
from fl.parameters import Parameters

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

WATCHED = """
import json, os, sys
settings = json.load(open(sys.argv[1]))
partitions = os.path.join(settings["run_dir"], "devices", "partitions")
opened = []

def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(partitions):
        if os.path.exists(partitions + "/../prepared.json"):
            opened.append(str(arguments[0]))

sys.addaudithook(watch)
from experiments.run import simulate
simulate(settings)
json.dump(sorted(set(opened)), open(sys.argv[2], "w"))
"""


@pytest.mark.ray
@pytest.mark.parametrize("engine", ["ray", "inprocess"])
def test_with_actors_the_servers_process_opens_no_partition(
    engine: str, settings: Settings, tmp_path: Path, repository: Path
) -> None:
    """Every file that the process opens once the data are prepared is seen; in process, the same watch finds them."""
    config = settings(f"engine={engine}", *(["engine.num_actors=1"] if engine == "ray" else []))
    (tmp_path / "settings.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path / "settings.json", tmp_path / "opened.json"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    opened = json.loads((tmp_path / "opened.json").read_text())
    summary = read_json(Path(config["run_dir"]) / "summary.json")
    if engine == "ray":
        assert opened == [] and summary["private_examples_read_by"] == "actors"
    else:
        assert any(path.endswith("x.npy") for path in opened)
        assert summary["private_examples_read_by"] == "this process"


@pytest.fixture
def devices(settings: Settings) -> Callable[[Algorithm], Setting]:
    """The devices of a run, with an algorithm of one's own."""

    def devices(algorithm: Algorithm) -> Setting:
        config = settings("num_rounds=1")
        run = Path(config["run_dir"])
        if not run.exists():
            simulate(config)
        setting = open_setting(config, partitions=run / "devices" / "partitions", states=run / "devices" / "states")
        return replace(setting, algorithm=algorithm)

    return devices


def smuggler(extra: Callable[[LocalRun], Parameters]) -> Algorithm:
    """FedAvg whose client half tries to send something beside."""
    return replace(build(), name="smuggler", client_update=lambda run: ({}, extra(run)))


SMUGGLED: dict[str, tuple[Callable[[LocalRun], Parameters], str]] = {
    "an undeclared array": (lambda run: {"x": np.ones((5, 8), np.float32)}, "extra refused: array 'x' is not among"),
    "a whole model": (lambda run: dict(run.end), "extra refused: array '.*' is not among those expected"),
}


@pytest.mark.parametrize("what", SMUGGLED)
@pytest.mark.parametrize("reply", ["sum", "parameters"])
def test_what_is_not_declared_does_not_leave(what: str, reply: str, devices: Callable[[Algorithm], Setting]) -> None:
    extra, reason = SMUGGLED[what]
    setting = devices(smuggler(extra))
    content = wire.train_content(wire.array_record(setting.model), {}, round=1, version=0)
    content.config_records["config"]["reply"] = reply
    replies = answer(setting, "train", content, [0, 1, 2])
    assert [one.clients for one in replies] == [(0,), (1,), (2,)]
    for client, one in enumerate(replies):
        assert one.content is None and one.error is not None
        assert one.error.code == wire.REFUSED
        assert re.match(f"client {client}: {reason}", str(one.error.reason))


DECLARED: list[tuple[dict[str, Any], str]] = [
    ({"weight": np.zeros((2, 8), np.float32)}, "array 'weight' has shape"),
    ({"weight": np.zeros((3, 8), np.float64)}, "array 'weight' has dtype float64, expected float32"),
    ({"weight": np.full((3, 8), np.nan, np.float32)}, "array 'weight' holds a NaN or an infinity"),
    ({}, "array 'weight' is missing"),
]


@pytest.mark.parametrize("sent, reason", DECLARED, ids=[reason[-20:] for _, reason in DECLARED])
def test_what_is_declared_leaves_only_as_declared(
    sent: dict[str, Any], reason: str, devices: Callable[[Algorithm], Setting]
) -> None:
    declared = {"weight": np.zeros((3, 8), np.float32)}
    algorithm = replace(smuggler(lambda run: sent), extra_like=lambda x: declared)
    (reply,) = answer(devices(algorithm), "train", _task(devices(algorithm)), [0])
    assert reply.error is not None and f"client 0: extra refused: {reason}" in str(reply.error.reason)


def _task(setting: Setting) -> Any:
    return wire.train_content(wire.array_record(setting.model), {}, round=1, version=0)


def test_a_refused_update_leaves_no_state_behind(devices: Callable[[Algorithm], Setting]) -> None:
    algorithm = replace(
        smuggler(lambda run: {"x": np.ones(1)}),
        init_client=lambda x: {"c": np.zeros(1)},
        client_update=lambda run: ({"c": np.ones(1)}, {"x": np.ones(1)}),
    )
    setting = devices(algorithm)
    answer(setting, "train", _task(setting), [0])
    assert setting.states.load(0, before=99) is None


def test_refusals_are_counted_and_named_in_metrics(settings: Settings, told: Told) -> None:
    run = simulate(settings("client.max_update_norm=0.5", "server.quorum=0.0", "num_rounds=1", "cohort_size=6"))
    (line,) = told(run)[1:]
    assert 0 < line["clients"]["refused"] < 6
    assert len(line["refused"]) == line["clients"]["refused"]
    for refused in line["refused"]:
        assert f"client {refused['client']}: delta refused: norm" in refused["reason"]
        assert refused["reason"].endswith("is above 0.5")


def test_an_executor_in_process_is_bound_by_the_same_boundary(devices: Callable[[Algorithm], Setting]) -> None:
    from clients.grid import Unit

    setting = devices(smuggler(lambda run: {"x": np.ones(1)}))
    executor = InProcess(setting)
    executor.submit(Unit(0, "train", (0,), _task(setting)))
    ((_, replies),) = executor.collect(0.0)
    assert replies[0].error is not None


def test_a_task_that_cannot_be_read_is_every_clients_failure(devices: Callable[[Algorithm], Setting]) -> None:
    from flwr.app import RecordDict

    setting = devices(build())
    for kind, content in (("train", RecordDict()), ("evaluate", RecordDict()), ("query", _task(setting))):
        replies = answer(setting, kind, content, [0, 1])
        assert [reply.clients for reply in replies] == [(0,), (1,)]
        assert all(reply.error is not None and reply.error.code == wire.FAILED for reply in replies)
