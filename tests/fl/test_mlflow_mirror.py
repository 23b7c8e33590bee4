"""A registry in MLflow, looked at by MLflow's own client: in a SQLite store, and over a server of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run as fl
from experiments.run import simulate
from fl import mlflow_mirror
from fl.errors import BadInput
from fl.mlflow_mirror import Mirrored, mirror
from fl.registry import Registry, Version

mlflow = pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
from mlflow import MlflowClient  # noqa: E402  after it is known to be there

Settings = Callable[..., dict[str, Any]]
SECONDS = 180


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that MLflow has made, which takes it seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'mlflow.db')}"


@pytest.fixture
def registry(settings: Settings, tmp_path: Path) -> Registry:
    """One finished run of two rounds: three versions, the best of them champion."""
    simulate(settings("client.learning_rate=0.3"))
    return Registry(tmp_path / "registry")


def mirrored(registry: Registry, uri: str, **changes: Any) -> Mirrored:
    return mirror(registry, **{"uri": uri, "experiment": "ours", "model": "global", **changes})


def listed(client: MlflowClient) -> dict[str, Any]:
    """The registered versions by the name that they have in the registry."""
    found = client.search_model_versions("name='global'")
    assert len({v.tags["meadow.hash"] for v in found}) == len(found), "one of them twice"
    return {v.tags["meadow.version"]: v for v in found}


def runs(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("ours")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def looked_at(registry: Registry, uri: str) -> None:
    """MLflow's own client lists runs, versions and aliases, as the registry has them."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = {run.data.tags["meadow.run"]: run for run in runs(client)}
    assert found.keys() == {facts["run_id"] for facts in registry.runs()}
    for facts in registry.runs():
        run, versions = found[facts["run_id"]], registry.versions(facts["run_id"])
        manifest = versions[0].manifest
        assert run.info.run_name == facts["run_id"] and run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time > 1.7e12
        assert run.data.params["client.learning_rate"] == str(manifest["config"]["client"]["learning_rate"])
        assert run.data.params["model._target_"] == manifest["model"]["target"]
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == "synthetic"
        assert manifest["dataset"]["fingerprint"].startswith(data.dataset.digest)
        told = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "accuracy")}
        assert told == {v.round: v.metrics["accuracy"] for v in versions}
        assert len(client.get_metric_history(run.info.run_id, "clients/asked")) == len(versions)
    numbers = listed(client)
    assert numbers.keys() == {version.name for version in registry.versions()}
    for version in registry.versions():
        there = numbers[version.name]
        assert there.tags["meadow.hash"] == version.hash and there.run_id == found[version.run_id].info.run_id
        assert there.tags.get("meadow.parent") == version.manifest["parent_name"]
        assert float(there.tags["metric.loss"]) == version.metrics["loss"]
    order = sorted(numbers, key=lambda name: int(numbers[name].version))
    assert order == [version.name for version in registry.versions()]
    for alias, version in registry.aliases().items():
        there = client.get_model_version_by_alias("global", alias)
        assert there.tags["meadow.version"] == version.name
    assert client.get_registered_model("global").aliases.keys() == registry.aliases().keys()


def test_mlflows_client_lists_it_and_mirroring_again_adds_what_is_new(
    registry: Registry, uri: str, settings: Settings
) -> None:
    assert mirrored(registry, uri) == Mirrored(runs=1, rounds=3, versions=3, aliases=1)
    looked_at(registry, uri)
    assert mirrored(registry, uri) == Mirrored()
    best = registry.version("champion")
    simulate(settings("server.seeding=champion", "num_rounds=1", name="next"))
    newest = registry.version("next:latest")
    registry.promote(newest, "challenger", reason="newer")
    registry.attach(newest, "clients", {"found": "everybody is better off"})
    assert mirrored(registry, uri) == Mirrored(runs=1, rounds=2, versions=2, aliases=1)
    looked_at(registry, uri)
    client = MlflowClient(uri, uri)
    assert listed(client)["next:0"].tags["meadow.parent"] == best.name, "lineage goes across runs"
    assert listed(client)[newest.name].tags["evidence.clients"] == "everybody is better off"
    registry.promote(newest)
    registry.rollback()
    registry.attach(newest, "clients", {"found": "nobody is"})
    mirrored(registry, uri)
    looked_at(registry, uri)
    assert listed(client)[newest.name].tags["evidence.clients"] == "nobody is"
    assert json.loads(client.get_registered_model("global").tags["meadow.challenger"])["reason"] == "newer"


def test_a_mirror_that_was_cut_short_is_completed(
    registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe, version = mlflow_mirror._Mirror._describe, mlflow_mirror._Mirror._version

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    def until_round_1(self: Any, one: Version, run_id: str) -> None:
        version(self, one, run_id) if one.round < 1 else cut()

    monkeypatch.setattr(mlflow_mirror._Mirror, "_describe", cut)
    with pytest.raises(KeyboardInterrupt):
        mirrored(registry, uri)
    monkeypatch.setattr(mlflow_mirror._Mirror, "_describe", describe)
    monkeypatch.setattr(mlflow_mirror._Mirror, "_version", until_round_1)
    with pytest.raises(KeyboardInterrupt):
        mirrored(registry, uri)
    monkeypatch.setattr(mlflow_mirror._Mirror, "_version", version)
    assert mirrored(registry, uri) == Mirrored(versions=2, aliases=1)
    looked_at(registry, uri)


def test_a_version_that_was_dropped_says_so(registry: Registry, uri: str) -> None:
    mirrored(registry, uri)
    latest = registry.version("run:latest")
    if registry.version("champion").hash == latest.hash:
        registry.promote("run:0")
    numbers = listed(MlflowClient(uri, uri))
    latest.path.unlink()  # as a resumed run does with what is damaged
    mirrored(registry, uri)
    forgotten = {name for name, v in listed(MlflowClient(uri, uri)).items() if "meadow.forgotten" in v.tags}
    assert forgotten == {latest.name} and len(numbers) == 3


def test_what_is_not_ours_is_left_alone(registry: Registry, uri: str, tmp_path: Path) -> None:
    flower = tmp_path / "flower.db"
    with closing(sqlite3.connect(flower)) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    before = flower.read_bytes()
    with pytest.raises(BadInput, match=r"--uri: .*flower\.db, allowed: a database of MLflow's own"):
        mirrored(registry, f"sqlite:///{flower}")
    assert flower.read_bytes() == before
    MlflowClient(uri, uri).create_registered_model("theirs")
    with pytest.raises(BadInput, match="--model: got theirs, allowed: another name"):
        mirrored(registry, uri, model="theirs")
    mirrored(registry, uri)
    with pytest.raises(BadInput, match="--model: got global"):
        mirrored(Registry(tmp_path / "another"), uri)


def test_a_server_that_is_not_there_is_told_without_its_password(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    assert fl(["track", "mlflow", "--registry", str(registry.folder), "--uri", uri]) == 2
    told = capsys.readouterr().err
    assert "--uri: got http://me:***@127.0.0.1" in told and "secret" not in told
    assert time.monotonic() - began < 60
    assert fl(["track", "mlflow", "--registry", str(tmp_path / "none"), "--uri", uri]) == 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(empty: Path, tmp_path: Path) -> Iterator[str]:
    """A real `mlflow server` on this machine, in a process group of its own."""
    port, store = free_port(), shutil.copy(empty, tmp_path / "server.db")
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        ends = time.monotonic() + SECONDS
        while not answers(port):
            assert process.poll() is None and time.monotonic() < ends, (tmp_path / "server.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.slow
def test_mlflows_client_lists_it_from_a_local_server_while_it_grows(
    registry: Registry, server: str, settings: Settings, tmp_path: Path
) -> None:
    """`fl track mlflow --every` beside a run and a promotion: nobody tells it, and it is all there."""
    program = "import sys; from experiments.cli import main; sys.argv = ['fl', *sys.argv[1:]]; main()"
    words = ["track", "mlflow", "--registry", str(registry.folder), "--uri", server, "--every", "1", "--json"]
    words += ["--experiment", "ours", "--model", "global"]
    out = tmp_path / "mirror.log"
    with out.open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=log, stderr=log)
    try:
        passes(out, 1, process)
        looked_at(registry, server)
        simulate(settings("server.seeding=champion", name="next"))
        registry.promote("next:latest", "challenger")
        passes(out, len(lines(out)) + 2, process)
        looked_at(registry, server)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=180)
    assert status == 130
    assert sum(line["versions"] for line in lines(out)) == 6


def lines(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def passes(path: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the mirror has said so often what it added."""
    ends = time.monotonic() + SECONDS
    while len(lines(path)) < number:
        assert process.poll() is None and time.monotonic() < ends, path.read_text()
        time.sleep(0.2)
