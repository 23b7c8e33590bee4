"""The same two apps on a real SuperLink and two real SuperNodes, on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.compose import compose
from experiments.device_program import build
from experiments.run import simulate
from fl.data.store import open_store
from fl.files import read_json
from fl.registry import Registry
from fl.run_config import flatten, unflatten

BIN = Path(sys.executable).parent
PACKAGES = ("fl", "clients", "server", "conf", "experiments")
SECONDS = 240.0


def app_config(repository: Path) -> dict[str, Any]:
    from flwr.common.config import flatten_dict

    pyproject = tomllib.loads((repository / "pyproject.toml").read_text())
    return flatten_dict(pyproject["tool"]["flwr"]["app"]["config"])


def test_the_app_starts_from_the_defaults_of_conf(repository: Path) -> None:
    defaults = compose([])
    del defaults["run_dir"], defaults["registry_dir"]
    defaults |= {
        "num_clients": None,
        "cohort_size": None,
        "run": dict.fromkeys(("id", "dir", "registry", "centre"), ""),
    }
    config = app_config(repository)
    lines = [f"{key} = {toml(value)}" for key, value in flatten(defaults).items()]
    assert config == flatten(defaults), "this belongs under [tool.flwr.app.config]:\n" + "\n".join(lines)
    assert unflatten(config) == defaults


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's own use of pathspec
def test_the_bundle_is_small_and_carries_no_data(repository: Path, tmp_path: Path) -> None:
    import io

    from flwr.cli.build import build_fab_from_disk

    bundle = build_fab_from_disk(copy_app(repository, tmp_path / "app"))
    names = zipfile.ZipFile(io.BytesIO(bundle)).namelist()
    assert len(bundle) < 2**21
    assert {"server/app.py", "clients/app.py", "fl/wire.py", "LICENSE"} <= set(names)
    assert {Path(name).suffix for name in names if name.startswith(PACKAGES)} == {".py"}


@pytest.mark.deploy
def test_two_rounds_on_real_supernodes_give_the_bits_of_the_simulation(
    repository: Path,
    tmp_path: Path,
    settings: Callable[..., dict[str, Any]],
    told: Callable[[Path], list[dict[str, Any]]],
) -> None:
    # Every phase of a round starts processes and polls for seconds, so there are three: train, train, evaluate.
    few = ("dataset.clients=2", "cohort_size=2", "server=random", "evaluate_clients_every=2")
    config = settings(*few, "engine.unit_size=1", "algorithm=scaffold", name="simulated")
    simulated = simulate(config)
    deployed = deploy(copy_app(repository, tmp_path / "app"), config, simulated, tmp_path)
    expected, found = read_json(simulated / "summary.json"), read_json(deployed / "summary.json")
    assert found["status"] == "finished" and found["rounds_completed"] == 2 and found["engine"] == "superlink"
    assert found["clients"] == {"asked": 4, "answered": 4, "failed": 0, "refused": 0, "late": 0}
    for name in ("model_sha256", "final", "bytes", "num_clients", "cohort_size"):
        assert found[name] == expected[name], name
    assert told(deployed) == told(simulated)


STRANGER = """

import flwr.app
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body

_honest = train


class MetricRecord(flwr.app.MetricRecord):
    def deflate(self):
        return add_header_to_object_body(object_body=bytes([255, 254]), obj=self)


app = ClientApp()


@app.train()
def strange(message: Message, context: Context) -> Message:
    reply = _honest(message, context)
    if context.node_config["partition-id"] == 1:
        for name in list(reply.content.metric_records):
            reply.content[name] = MetricRecord(dict(reply.content[name]))
    return reply
"""
"""What client 1 answers, the SuperLink passes on and Flower cannot read."""


@pytest.mark.deploy
@pytest.mark.slow
def test_a_reply_that_flower_cannot_read_costs_the_run_nothing_else(
    repository: Path, tmp_path: Path, settings: Callable[..., dict[str, Any]], told: Callable[[Path], Any]
) -> None:
    few = ("dataset.clients=2", "cohort_size=2", "server=random", "evaluate_clients_every=null", "num_rounds=1")
    config = settings(*few, "engine.unit_size=1", name="simulated")
    app = copy_app(repository, tmp_path / "app")
    with (app / "clients" / "app.py").open("a") as source:
        source.write(STRANGER)
    deployed = deploy(app, config, simulate(config), tmp_path)
    assert read_json(deployed / "summary.json")["status"] == "finished"
    (line,) = told(deployed)[1:]
    assert line["clients"] == {"asked": 2, "answered": 1, "failed": 0, "refused": 1, "late": 0}
    assert "refused by the server: it cannot be read: DecodeError" in line["refused"][0]["reason"]


@pytest.mark.deploy
@pytest.mark.slow
def test_two_device_programs_join_its_rounds_and_answer_their_users_meanwhile(
    repository: Path, tmp_path: Path, settings: Callable[..., dict[str, Any]]
) -> None:
    few = ("dataset.clients=2", "cohort_size=2", "server=random", "evaluate_clients_every=2")
    config = settings(*few, name="simulated")
    simulated, app = simulate(config), copy_app(repository, tmp_path / "app")
    program = build(f"{simulated.name}:0", registry=Path(config["registry_dir"]), output=tmp_path / "device.pyz")
    assert program.stat().st_size < 2**21 and not any(
        Path(n).suffix == ".npz" for n in zipfile.ZipFile(program).namelist()
    )
    store = open_store(simulated / "devices" / "partitions")
    overrides = {key: value for key, value in flatten(config).items() if key in app_config(app)}
    deployed = tmp_path / "deployed"
    overrides |= {"run.dir": str(deployed), "run.registry": str(tmp_path / "deployed-registry")}
    overrides |= {"run.centre": str(simulated / "centre")}
    with flower(tmp_path), ExitStack() as running:
        address = tomllib.loads((tmp_path / "flwr" / "config.toml").read_text())["superlink"]["lab"]["address"]
        devices = []
        for client in (0, 1):
            part = store.partition(client).train
            np.savez(tmp_path / f"mine{client}.npz", x=part.x, y=part.y)
            words = ["--data", tmp_path / f"mine{client}.npz", "--client", str(client), "--clients", "2"]
            words += ["--home", tmp_path / f"home{client}", "--superlink", address, "--insecure"]
            devices.append(
                running.enter_context(device(tmp_path, f"device{client}", [sys.executable, program, *words]))
            )
        rows = [store.partition(client).test.x[:1].tolist() for client in (0, 1)]
        asked = [asker(one, {"rows": row}) for one, row in zip(devices, rows, strict=True)]
        assert [ask()["version"] for ask in asked] == [f"{simulated.name}:0"] * 2
        run = [BIN / "flwr", "run", app, "lab", "--run-config", write_toml(tmp_path / "overrides.toml", overrides)]
        done = subprocess.run(run, env=environment(tmp_path), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        answers: list[dict[str, Any]] = []
        ends = time.monotonic() + SECONDS
        while not all(answer["round"] == 2 and answer["personal"] for answer in answers[-2:]) or not answers:
            assert time.monotonic() < ends, logs(tmp_path)
            answers += [ask() for ask in asked]
            time.sleep(2.0)
        wait_for(deployed / "summary.json", tmp_path)
    versions = Registry(tmp_path / "deployed-registry").versions()
    known = {version.model_sha256 for version in versions} | {store_hash(config, f"{simulated.name}:0")}
    assert not any("error" in answer for answer in answers) and {a["model_sha256"] for a in answers} <= known
    assert read_json(deployed / "summary.json")["clients"]["answered"] == 4


def store_hash(config: dict[str, Any], version: str) -> str:
    return Registry(config["registry_dir"]).version(version).model_sha256


@contextmanager
def device(home: Path, name: str, command: list[Any]) -> Iterator[subprocess.Popen[str]]:
    """A device's program, asked and answering through pipes; it ends its SuperNode when it is stopped."""
    with (home / f"{name}.log").open("w") as log:
        started = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(home),
            cwd=home,
        )
        try:
            yield started
        finally:
            started.terminate()
            started.communicate(timeout=30)


def asker(program: subprocess.Popen[str], question: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def ask() -> dict[str, Any]:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(json.dumps(question) + "\n")
        program.stdin.flush()
        found: dict[str, Any] = json.loads(program.stdout.readline())
        return found

    return ask


ASKS = """
from pathlib import Path

from flwr.serverapp import ServerApp

from fl.data import analytics
from fl.files import write_json
from server.query import asker
from server.strategy import wait_for_nodes

app = ServerApp()


@app.main()
def main(grid, context):
    wait_for_nodes(grid, 2)
    write_json(Path(context.run_config["run.dir"]), told(asker(grid)), site="report")


def told(ask):
    columns = tuple(range(9))
    # A round takes seconds on SuperNodes, so each kind of answer comes once.
    edges = {c: (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0) for c in columns}
    each = {
        "moments": analytics.moments(ask, columns),
        "correlation": analytics.correlation(ask, columns, part="train").tolist(),
        "heavy hitters": analytics.heavy_hitters(ask, columns, capacity=8, at_least=2),
        "distinct": analytics.distinct(ask, columns),
        "quantiles": analytics.quantiles(ask, columns, [0.25, 0.5], digits=1),
        "noisy": analytics.noisy_histogram(ask, edges, epsilon=9.0),
    }
    return {name: repr(found) for name, found in each.items()}
"""
"""A ServerApp that trains nothing: it asks, and writes down what all clients together answered, to the last bit."""


@pytest.mark.deploy
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_queries_to_real_supernodes_have_the_statistics_of_those_in_process(
    repository: Path, tmp_path: Path, settings: Callable[..., dict[str, Any]]
) -> None:
    from experiments.asking import ask_here
    from experiments.prepare import load_data, prepare_data

    config = settings("dataset.clients=2", "cohort_size=2", "server=random")
    made = prepare_data(config, load_data(config), centre=tmp_path / "centre", devices=tmp_path / "partitions")
    app = copy_app(repository, tmp_path / "app")
    (app / "server" / "asks.py").write_text(ASKS)
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace('"server.app:app"', '"server.asks:app"'))
    known = app_config(app)
    overrides = {key: value for key, value in flatten(config).items() if key in known}
    overrides["run.dir"] = str(tmp_path / "told.json")
    told = tmp_path / "told.json"
    run_app(app, overrides, tmp_path / "partitions", tmp_path, until=told, seconds=2 * SECONDS)
    here: dict[str, Any] = {}
    exec(ASKS, here)
    ask = ask_here(tmp_path / "partitions", signature=made.signature, num_clients=2, seed=config["seed"])
    expected = here["told"](ask)
    assert "Moments" in expected["moments"] and "NoisyCounts" in expected["noisy"]
    assert read_json(told) == expected


def deploy(app: Path, config: dict[str, Any], simulated: Path, home: Path) -> Path:
    """Run an app with the settings and the parts of a simulated run on a SuperLink with two SuperNodes."""
    deployed = home / "deployed"
    known = app_config(app)
    overrides = {key: value for key, value in flatten(config).items() if key in known}
    overrides |= {
        "run.dir": str(deployed),
        "run.registry": str(home / "registry"),
        "run.centre": str(simulated / "centre"),
    }
    run_app(app, overrides, simulated / "devices" / "partitions", home, until=deployed / "summary.json")
    return deployed


def run_app(
    app: Path, overrides: dict[str, Any], partitions: Path, home: Path, *, until: Path, seconds: float = SECONDS
) -> None:
    """Run an app on a SuperLink with two SuperNodes over ``partitions`` until it has written a file."""
    with flower(home) as superlink, superlink(partitions):
        run = [BIN / "flwr", "run", app, "lab", "--run-config", write_toml(home / "overrides.toml", overrides)]
        done = subprocess.run(run, env=environment(home), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(until, home, seconds=seconds)


def copy_app(repository: Path, to: Path) -> Path:
    """The sources as they are, without the environment beside them."""
    for package in PACKAGES:
        shutil.copytree(repository / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", ".gitignore"):
        shutil.copy(repository / name, to / name)
    return to


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FLWR_HOME": str(home / "flwr"), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def toml(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) and '"' in value else json.dumps(value)


def write_toml(path: Path, values: dict[str, Any]) -> Path:
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def flower(home: Path) -> Iterator[Callable[[Path], Any]]:
    """A SuperLink on a port of its own; gives a function that starts its two SuperNodes over a partition store."""
    port = free_port()
    (home / "flwr").mkdir()
    (home / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )

    @contextmanager
    def supernodes(partitions: Path) -> Iterator[None]:
        common = [BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
        first, second = ([*common, *node(partitions, home, number)] for number in (0, 1))
        with process(home, "node0", first), process(home, "node1", second):
            yield

    with process(home, "link", [BIN / "flower-superlink", "--insecure", "--port", str(port)]):
        wait_for_port(port, home)
        yield supernodes


def node(partitions: Path, home: Path, number: int) -> list[str]:
    states = f'states="{home / "states" / str(number)}"'
    config = f'partition-id={number} num-partitions=2 partitions="{partitions}" {states}'
    return ["--port", str(free_port()), "--node-config", config]


@contextmanager
def process(home: Path, name: str, command: list[Any]) -> Iterator[None]:
    """A program in a process group of its own, which ends with it: SuperNodes leave children behind."""
    with (home / f"{name}.log").open("w") as log:
        started = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(home), cwd=home, start_new_session=True
        )
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(started.pid, number)
                    started.wait(timeout=5)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
            started.wait()


def logs(home: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()[-4000:]}" for path in sorted(home.glob("*.log")))


def wait_for_port(port: int, home: Path) -> None:
    ends = time.monotonic() + SECONDS / 2
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"the SuperLink did not start\n{logs(home)}")


def wait_for(path: Path, home: Path, *, seconds: float = SECONDS) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if path.exists():
            return
        if "Traceback" in logs(home):
            break
        time.sleep(0.2)
    pytest.fail(f"{path.name} was not written\n{logs(home)}")
