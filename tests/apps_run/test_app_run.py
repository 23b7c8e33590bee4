"""Flower apps of every kind, unmodified, under `fl app run`; where they are deterministic, as under Flower's engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.app_run import Options, run_app
from experiments.app_spec import AppSpec, read_app
from experiments.resume import resume
from fl.errors import AppFailed, BadInput
from fl.registry import Registry

APPS = Path(__file__).resolve().parent.parent / "apps"
FLOWER_ENGINE = Path(__file__).with_name("flower_engine.py")
FL = str(Path(sys.executable).with_name("fl"))
DETERMINISTIC = {
    "strategy_start": "num-server-rounds=2 nodes=5",
    "queries": "nodes=5",
    "module_cache": "",
    "legacy_numpy": "",
    "state_rollback": "nodes=5",
}

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """Runs an app by name in ``tmp_path``/name; what it wrote to $APP_RESULT is in result.json there."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, config: str = "", *, app: str | Path | AppSpec = "", clients: int = 5, **options: Any) -> Path:
        folder = tmp_path / name
        monkeypatch.setenv("APP_RESULT", str(tmp_path / f"{name}.json"))
        spec = app if isinstance(app, AppSpec) else read_app(APPS / (app or name), config)
        settings = {"num_actors": 2, **options}
        return run_app(spec, Options(clients, folder, tmp_path / "registry", **settings))

    return run


def result(run_dir: Path) -> Any:
    return json.loads(run_dir.with_suffix(".json").read_text())


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def test_an_app_with_strategy_start_gets_versions_metrics_and_tensorboard(run, tmp_path):
    folder = run("strategy_start", "num-server-rounds=2", clients=3, num_actors=1)
    told, registry = lines(folder), Registry(tmp_path / "registry")
    versions = registry.versions("strategy_start")
    assert [line["round"] for line in told] == [v.round for v in versions] == [0, 1, 2]
    assert [line["model_sha256"] for line in told] == [v.model_sha256 for v in versions]
    assert [line["clients"]["answered"] for line in told] == [0, 3, 3]
    found = result(folder)
    assert [line["loss"] for line in told] == [found["server"][str(r)]["loss"] for r in range(3)]
    assert told[2]["train_metrics"] == found["train"]["2"]
    assert told[2]["client_metrics"]["eval_loss"]["aggregated"] == found["evaluate"]["2"]["eval_loss"]
    last = {name: value.tolist() for name, value in registry.parameters(versions[-1]).items()}
    assert last == found["arrays"]
    assert summary(folder)["status"] == "finished" and list((folder / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("app", ["strategy_start", "module_cache"])
def test_the_same_seed_gives_the_same_bits_however_many_actors(run, app):
    drawing = {"strategy_start": "draws=true fraction-train=0.6", "module_cache": ""}[app]
    hashes = {
        summary(run(f"run{n}", drawing, app=app, **options))["model_sha256"]
        for n, options in enumerate(
            ({"num_actors": 1}, {"num_actors": 2}, {"num_actors": 3}, {"engine": "inprocess", "num_actors": None})
        )
    }
    assert len(hashes) == 1
    if drawing:
        assert summary(run("other", drawing, app=app, seed=2))["model_sha256"] not in hashes


@pytest.mark.slow
@pytest.mark.ray
def test_ray_actors_give_the_same_bits(run):
    hashes = {
        summary(run(f"run_{engine}", "draws=true", app="strategy_start", engine=engine))["model_sha256"]
        for engine in ("ray", "inprocess")
    }
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("app", DETERMINISTIC)
def test_the_result_is_that_of_flowers_own_engine(run, app, tmp_path):
    ours = result(run(app, DETERMINISTIC[app]))
    written = tmp_path / "theirs.json"
    subprocess.run(
        [sys.executable, str(FLOWER_ENGINE), str(APPS / app), "5", DETERMINISTIC[app]],
        env={**os.environ, "APP_RESULT": str(written), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"},
        check=True,
        timeout=200,
        capture_output=True,
    )
    theirs = json.loads(written.read_text())
    if app in ("queries", "state_rollback"):  # no sums: every number is exact, but Flower's nodes have no order
        assert unordered(ours) == unordered(theirs)
    else:  # Flower adds up in the order in which replies come
        assert flattened(ours) == pytest.approx(flattened(theirs), rel=1e-5, abs=1e-7)


def unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unordered(part) for name, part in value.items()}
    return sorted(map(unordered, value), key=json.dumps) if isinstance(value, list) else value


def flattened(value: Any, prefix: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {name: v for key, part in items for name, v in flattened(part, f"{prefix}/{key}").items()}


def test_a_loop_of_its_own_over_push_and_pull(run):
    folder = run("own_loop")
    found = result(folder)
    assert found["asynchronous"] == [[float(p)] * 3 for p in range(5)]
    assert 1 not in found["partial"] and 0 in found["partial"]  # given up at the time-out, with what had come
    assert found["after"] == list(range(5))  # in the order of the messages, the late one's new answer among them
    assert found["errors"] == [[3, "system"]]  # an id that was pulled before
    assert summary(folder)["versions"].startswith("the app has a loop of its own")


def test_queries_mods_actions_and_error_replies(run, capfd):
    found = result(run("queries", 'greeting="good day"', clients=2))
    first, size, second = found["query 0"], found["query.size 1"], found["query 2"]
    assert first[1]["answer"] == {"said": "'good day'", "blob": r"b'\x00\xff'", "flags": "[True, False]"}
    assert first[1]["of"] == {"partition-id": "1", "num-partitions": "2"}
    assert [row[1]["counts"]["calls"] for row in (first, size, second)] == ["1", "2", "3"]
    assert size[1]["of"] == {"size": "10"}
    assert found["halved"] == [[0.0, 0.5, 1.0]] * 2
    assert found["evaluate"][0][0] == 2 and found["evaluate"][0][1].endswith("no data here'>")
    assert found["evaluate"][1] == [77, "not today"]
    assert {code for code, _ in found["train.unknown"]} == {2}
    out = capfd.readouterr().out
    assert "the server is up" in out and "the server is down" in out


def test_what_an_app_says_asks_and_measures_its_own_way(tmp_path):
    """Started as users start it: standard output is a pipe, and nothing asks Python not to keep what is printed."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [FL, "app", "run", str(APPS / "talkative"), "--num-clients", "5", "--run-dir", "run", "--registry", "registry"],
        cwd=tmp_path,
        env={**known, "APP_RESULT": str(tmp_path / "run.json")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert all(said.count(f"client {client} trains") == 2 for client in range(5))
    assert "round 1 has 5 replies" in said and "round 2 has 5 replies" in said
    found = result(tmp_path / "run")
    assert found["times"] == [[1, 2, 3, 4]] * 5  # a message finds the state that the one before it left
    assert found["arrays"] == [1.0] * 5
    measured = Registry(tmp_path / "registry").version("run:2").manifest["metrics"]
    assert measured == {"length": 5.0, "ratio": None}


def test_secure_aggregation_by_the_legacy_workflow(run):
    found = result(run("secaggplus"))
    assert found["arrays"] == pytest.approx([0.4] * 5, abs=1e-3)  # two rounds of the mean of 0, 0.1 ... 0.4


def test_an_app_whose_modules_are_called_as_ours_are(run):
    found = result(run("shadow", clients=2))
    assert found["names"] == ["the app's own fl, its own conf"] * 2 + ["the app's own fl"]
    assert not found["experiments"], "what the app does not have, it does not find"


@pytest.mark.slow
def test_a_client_that_raises_keeps_the_state_it_had(run):
    assert result(run("state_rollback", clients=2)) == [[1, 1], [2, 2], [2, 2]]


@pytest.mark.slow
def test_poisoned_replies_are_refused_with_the_reason(run):
    folder = run("poisoned", 'what="poison"', app="failing", clients=9)
    reasons = {
        2: "array '0' holds a NaN or an infinity",
        3: "array '0' has the shape (1,), not (3,)",
        4: "array '1' was not asked for",
        5: "array '0' holds <U1, not numbers",
        7: "num-examples is -5,",
        8: "num-examples is nan,",
    }
    for line in lines(folder)[1:]:
        # The third answer weighs nothing, which Flower takes as it is.
        assert line["clients"] == {"asked": 9, "answered": 3, "failed": 0, "refused": 6, "late": 0}
        refused = {row["client"]: row["reason"] for row in line["refused"]}
        assert refused.keys() == reasons.keys() and all(reasons[client] in refused[client] for client in reasons)
    # As if they had not been there: each round adds the mean of 1 and 2.
    (model,) = Registry(folder.parent / "registry").parameters("poisoned:3").values()
    assert model.tolist() == [4.5] * 3


@pytest.mark.slow
def test_other_dtypes_are_accepted(run):
    assert [line["clients"]["answered"] for line in lines(run("dtype", 'what="dtype"', app="failing"))] == [0, 5, 5, 5]


@pytest.mark.slow
def test_a_client_that_kills_its_process_is_tried_twice_and_then_quarantined(run):
    told = lines(run("kill", 'what="kill"', app="failing", clients=4))[1:]
    assert [line["clients"]["failed"] for line in told] == [1, 1, 1]
    assert [line["clients"]["answered"] for line in told] == [3, 3, 3]
    assert "twice" in told[0]["failed"][0]["reason"] and "quarantined" in told[1]["failed"][0]["reason"]


@pytest.mark.slow
def test_a_client_that_exits_has_failed_and_its_process_has_not(run):
    told = lines(run("exit", 'what="exit"', app="failing", clients=4))[1:]
    assert [line["clients"]["failed"] for line in told] == [1, 1, 1]
    assert all("enough" in line["failed"][0]["reason"] for line in told), "asked anew each round, never quarantined"


@pytest.mark.slow
def test_a_client_that_hangs_costs_rounds_their_time_and_no_more(run):
    told = lines(run("hang", 'what="hang" rounds=6', app="failing", clients=4))[1:]
    assert told[0]["clients"]["late"] == 1 and told[0]["clients"]["answered"] == 3
    assert told[-1]["clients"]["answered"] == 3 and "quarantined" in told[-1]["failed"][0]["reason"]
    assert all(line["seconds"]["total"] < 5 for line in told)


@pytest.mark.slow
def test_an_app_that_raises_ends_the_run_with_its_own_traceback(run, capfd):
    with pytest.raises(AppFailed, match="RuntimeError: the app's own fault"):
        run("server", 'what="server"', app="failing")
    assert "in main" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam"])
def test_a_run_killed_in_a_round_goes_on_to_the_same_bits(run, tmp_path, monkeypatch, strategy):
    config = f'strategy="{strategy}" draws=true fraction-train=0.6 num-server-rounds=4 kill-at-round='
    (tmp_path / "killed").touch()
    whole = run("whole", config + "3", app="strategy_start")
    (tmp_path / "killed").unlink()
    command = [FL, "app", "run", str(APPS / "strategy_start"), "-n", "5", "--run-dir", "cut", "--registry", "registry"]
    command += ["--num-actors", "2", "--run-config", config + "3"]
    environment = {**os.environ, "APP_RESULT": str(tmp_path / "cut.json"), "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert first.returncode == -signal.SIGKILL
    assert [line["round"] for line in lines(tmp_path / "cut")] in ([0, 1], [0, 1, 2])
    monkeypatch.setenv("APP_RESULT", str(tmp_path / "cut.json"))
    cut = resume(tmp_path / "cut")
    assert summary(cut)["model_sha256"] == summary(whole)["model_sha256"]
    assert result(cut) == result(whole)
    untimed = [
        [{k: v for k, v in line.items() if k not in ("seconds", "version")} for line in lines(folder)]
        for folder in (cut, whole)
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.slow
def test_states_of_clients_go_on_with_the_run(run, tmp_path):
    whole = result(run("whole", "rounds=4", app="module_cache"))
    run("cut", "rounds=2", app="module_cache")
    settings = (tmp_path / "cut" / "app.yaml").read_text()
    changed_by_hand = settings.partition("\n")[2].replace("rounds: 2", "rounds: 4")
    (tmp_path / "cut" / "app.yaml").write_text(changed_by_hand)
    assert result(run("cut", "rounds=4", app="module_cache", resume=True)) == whole


@pytest.mark.slow
def test_the_processes_end_with_the_driver(run, tmp_path):
    command = [FL, "app", "run", str(APPS / "failing"), "-n", "4"]
    command += ["--run-dir", "gone", "--registry", "registry", "--run-config", 'what="hang"']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 60
        while not (tmp_path / "gone" / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        children = [int(pid) for pid in children_of(driver.pid)]
        assert len(children) >= 2
        driver.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in children)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_run_says_so_and_leaves_nothing(run, tmp_path, number, status):
    command = [FL, "app", "run", str(APPS / "failing"), "-n", "4"]
    command += ["--run-dir", "cut", "--registry", "registry", "--run-config", 'what="hang" rounds=50']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        while not (tmp_path / "cut" / "metrics.jsonl").exists():
            time.sleep(0.1)
        children = [int(pid) for pid in children_of(driver.pid)]
        driver.send_signal(number)
        _, err = driver.communicate(timeout=30)
    assert driver.returncode == status and "fl resume" in err
    assert summary(tmp_path / "cut")["status"] == "interrupted"
    assert not any(alive(pid) for pid in children)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("component", ["serverapp", "clientapp"])
def test_an_app_that_cannot_be_imported_is_shown_with_its_traceback(run, tmp_path, component, capfd):
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    good = {"serverapp": "loop:server_app", "clientapp": "loop:client_app"}
    (tmp_path / "loop.py").write_text((APPS / "own_loop" / "loop.py").read_text())
    spec = AppSpec(tmp_path, **{**good, component: "broken:app"}, run_config={})
    with pytest.raises(BadInput, match=f"{component}: .*no_such_module") as failure:
        run("broken", app=spec)
    assert failure.value.exit_status == 2
    assert "broken.py" in capfd.readouterr().err
    assert not (tmp_path / "broken" / "app.yaml").exists(), "nothing has run"


@pytest.mark.slow
def test_objects_instead_of_a_folder(run, tmp_path, monkeypatch):
    spec = AppSpec(APPS / "module_cache", "app:server_app", "app:client_app", {"rounds": 2})
    assert result(run("objects", app=spec))["rounds"] == [1.0, 2.0]


def test_a_folder_is_not_run_over(run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "app.yaml").write_text("app: other\n")
    with pytest.raises(BadInput, match="fl resume"):
        run("taken", app="module_cache")
    with pytest.raises(BadInput, match="as the run began"):
        run("taken", app="module_cache", resume=True)
    with pytest.raises(BadInput, match="a folder with a run"):
        run("nothing", app="module_cache", resume=True)


@pytest.mark.parametrize(
    "key, options",
    [("--num-clients", {"clients": 0}), ("--num-actors", {"num_actors": 0}), ("--engine", {"engine": "slurm"})],
)
def test_bad_options_are_named(run, key, options):
    with pytest.raises(BadInput, match=key):
        run("bad", app="module_cache", **options)
