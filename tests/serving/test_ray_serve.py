"""`fl serve --engine ray`: the same answers from replicas on Ray Serve, and nothing left of it afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from experiments import cli
from experiments.compose import compose
from experiments.run import simulate
from fl.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
FEW = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("ray_serve")
    simulate(
        compose(["dataset=heart_disease", *FEW, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"])
    )
    return Registry(folder / "registry")


def test_replicas_answer_follow_and_end(registry: Registry) -> None:
    registry.promote("heart:2", reason="a test")
    words = ["serve", "champion", "--registry", str(registry.folder), "--engine", "ray", "--replicas", "2"]
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
