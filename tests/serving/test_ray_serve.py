"""`fl serve --engine ray`: the same answers from replicas on Ray Serve, and nothing left of it afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from experiments import cli
from experiments.compose import compose
from experiments.run import simulate
from fl.inference_log.files import read, tallies
from fl.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
PATIENT = (
    '{"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": 233, "fbs": 1, "restecg": 2, '
    '"thalach": 150, "exang": 0, "oldpeak": 2.3, "slope": 3, "ca": 0, "thal": 6}'
)
FEW = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("ray_serve")
    simulate(
        compose(["dataset=heart_disease", *FEW, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"])
    )
    return Registry(folder / "registry")


def test_replicas_answer_look_up_take_down_follow_and_end(registry: Registry, tmp_path: Path) -> None:
    registry.promote("heart:2", reason="a test")
    (tmp_path / "ahead.jsonl").write_text(PATIENT)
    ahead, log = f"sqlite:///{tmp_path / 'ahead.db'}", tmp_path / "log"
    given_words = ["--input", str(tmp_path / "ahead.jsonl"), "--output", ahead, "--registry", str(registry.folder)]
    assert cli.run(["predict", "champion", *given_words]) == 0
    words = ["serve", "champion", "--registry", str(registry.folder), "--engine", "ray", "--replicas", "2"]
    words += ["--lookup", ahead, "--log", str(log)]
    command = [sys.executable, "-c", "from experiments.cli import main; main()", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started: list[psutil.Process] = []
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        started = psutil.Process(process.pid).children(recursive=True)
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        assert client.is_server_ready() and client.is_model_ready("model")
        values = np.random.default_rng(3).normal(100, 40, size=(3, 13)).astype(np.float32)
        given = triton.InferInput("input", [3, 13], "FP32")
        given.set_data_from_numpy(values, binary_data=True)
        found = client.infer("model", [given]).as_numpy("output")
        assert found.shape == (3, 2) and np.isfinite(found).all()
        client.close()
        asked = [httpx.post(f"{url}/predict", json={"rows": [{"age": 40 + n}]}).headers for n in range(30)]
        assert httpx.get(f"{url}/lookup/1").json()["prediction"]["label"]
        name = registry.version("heart:1").name
        registry.promote("heart:1", reason="a test")
        began = time.monotonic()
        in_a_row = 0
        while in_a_row < 20:  # both replicas are asked, in some order
            versions = httpx.get(f"{url}/v2/models/model").json()["versions"]
            in_a_row = in_a_row + 1 if versions == [name] else 0
            assert time.monotonic() - began < 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        _, alive = psutil.wait_procs(started, timeout=30)
        assert not alive
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
        taken = read(log)
        assert {headers["x-request-id"] for headers in asked} < {row["id"] for row in taken} and len(taken) == 31
        assert len({row["server"] for row in taken}) == 2
        assert all((tally.lost, tally.live) == (0, False) for tally in tallies(log))
    finally:
        for one in (*started, *([psutil.Process(process.pid)] if process.poll() is None else [])):
            if one.is_running():
                one.kill()
        process.communicate()


def test_what_is_not_there_is_told_before_ray_is_started(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    status = cli.run(["serve", "nobody:7", "--registry", str(registry.folder), "--engine", "ray", "--port", "0"])
    assert status == 2
    assert "nobody" in capsys.readouterr().err
    assert time.monotonic() - began < 10
