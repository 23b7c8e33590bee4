"""`fl serve` as its users meet it: a process of its own, asked by HTTP, tritonclient and plain sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from experiments.compose import compose
from experiments.run import simulate
from fl.models.arrays import load_parameters
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.registry import Registry
from fl.signature import Signature

FEW = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")
ROW = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "thalach": 150, "oldpeak": 2.3}


@dataclass(frozen=True)
class Served:
    """A server under way: where it listens, and its process."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("//")[2].rpartition(":")
        return host, int(port)


@contextmanager
def serving(*words: str) -> Iterator[Served]:
    """`fl serve ...` at a free port until the block ends."""
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        yield Served(url, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("serving")
    simulate(
        compose(["dataset=heart_disease", *FEW, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"])
    )
    return Registry(folder / "registry")


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Served]:
    with serving("champion", "first=heart:0", "--registry", str(registry.folder), "--body-bytes", "200000") as served:
        yield served


def answer_of(registry: Registry, name: str, inputs: np.ndarray) -> np.ndarray:
    """What the version itself says, without any server."""
    version = registry.version(name)
    signature = Signature.from_dict(version.manifest["signature"])
    model = version.manifest["model"]
    module = build_model(target=model["target"], arguments=model["arguments"], signature=signature, seed=1)
    load_parameters(module, registry.parameters(version))
    return predict(module, inputs, signature)


def table(rows: int = 3) -> np.ndarray:
    draw = np.random.default_rng(3)
    values = draw.normal(100, 40, size=(rows, 13)).astype(np.float32)
    values[0, 4] = np.nan
    return values


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("model", ["model", "first"])
def test_tritonclient_gets_the_models_own_answer(registry: Registry, server: Served, model: str, binary: bool) -> None:
    client = triton.InferenceServerClient("{}:{}".format(*server.address))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    about = client.get_model_metadata(model)
    name = {"model": "champion", "first": "heart:0"}[model]
    assert about["versions"] == [registry.version(name).name]
    values = table()
    if not binary:
        values[0, 4] = 233.0  # JSON has no NaN
    given = triton.InferInput("input", list(values.shape), "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    wanted = [triton.InferRequestedOutput(one, binary_data=binary) for one in ("output", "label")]
    found = client.infer(model, [given], outputs=wanted, request_id="7")
    expected = answer_of(registry, name, values)
    assert found.get_response()["id"] == "7"
    np.testing.assert_allclose(found.as_numpy("output"), expected, rtol=1e-5, atol=1e-6)
    labels = [text.decode() if isinstance(text, bytes) else text for text in found.as_numpy("label")]
    assert labels == [["no disease", "disease"][place] for place in expected.argmax(axis=1)]
    client.close()


def test_rows_by_name_are_what_the_model_takes(registry: Registry, server: Served) -> None:
    """Missing values go through the model's own preprocessing, by name in any order."""
    answer = httpx.post(f"{server.url}/predict", json={"rows": [ROW, dict(reversed(ROW.items()))]}).json()
    signature = Signature.from_dict(registry.version("champion").manifest["signature"])
    values = np.array([[ROW.get(name) for name in signature.feature_names]], dtype=np.float32)
    outputs = answer_of(registry, "champion", values)[0].astype(np.float64)
    shares = np.exp(outputs) / np.exp(outputs).sum()
    first, second = answer["predictions"]
    assert first["probabilities"] == pytest.approx(second["probabilities"], rel=1e-6)
    assert answer["version"] == registry.version("champion").name
    assert first["probabilities"]["disease"] == pytest.approx(shares[1], rel=1e-5)
    assert first["label"] == max(first["probabilities"], key=first["probabilities"].get)


def infer(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 13], "data": [1.0] * 13, **changes}]}


@pytest.mark.parametrize(
    "path, body, status, says",
    [
        ("/predict", {"rows": [{"agee": 1}]}, 400, "row 0: there is no column 'agee'"),
        ("/predict", {"rows": [ROW, {"age": "old"}]}, 400, "row 1, column age: 'old' is not a number"),
        ("/predict", {"rows": [[1, 2]]}, 400, "row 0: 2 values, expected 13"),
        ("/predict", {"rows": []}, 400, "at least one row"),
        ("/predict", {"rows": [ROW], "row": 1}, 400, "got 'row', allowed: rows"),
        ("/predict", [ROW], 400, "a JSON list, expected an object"),
        ("/predict", {"rows": [{"age": 10**400}]}, 400, "row 0, column age: a number that is too large"),
        ("/v2/models/other/infer", infer(), 404, "there is no model 'other', only model, first"),
        ("/v2/models/model/versions/9/infer", infer(), 404, "version '9' is not served"),
        ("/v2/models/model/infer", infer(name="x"), 400, "got 'x', expected 'input'"),
        ("/v2/models/model/infer", infer(shape=[2, 13]), 400, "13 values, the shape asks for 26"),
        ("/v2/models/model/infer", infer(shape=[13]), 400, "the model takes [13]"),
        ("/v2/models/model/infer", infer(shape=[0, 13], data=[]), 400, "there is no example"),
        ("/v2/models/model/infer", infer(datatype="FP8"), 400, "datatype: got 'FP8'"),
        ("/v2/models/model/infer", infer(data=[[1.0], [2.0, 3.0]]), 400, "different lengths"),
        ("/v2/models/model/infer", infer(data=["a"] * 13), 400, "expected values of FP32"),
        ("/v2/models/model/infer", infer(data=[1.0] * 12 + [None]), 400, "expected values of FP32"),
        ("/v2/models/model/infer", infer(datatype="FP16", data=[70000] * 13), 400, "row 0 holds inf"),
        ("/v2/models/model/infer", infer(datatype="FP64", data=[10**400] * 13), 400, "expected values of FP64"),
        ("/v2/models/model/infer", infer(datatype="INT8", data=[300] * 13), 400, "a value that INT8 does not hold"),
        ("/v2/models/model/infer", infer(data=[1e300] * 13), 400, "row 0 holds inf"),
        ("/v2/models/model/infer", infer(parameters={"binary_data_size": 5}), 400, "expected 52"),
        ("/v2/models/model/infer", infer() | {"outputs": [{"name": "x"}]}, 400, "got 'x', allowed: output, label"),
        ("/v2/models/model/infer", infer() | {"id": 7}, 400, "id: expected a text"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    server: Served, path: str, body: Any, status: int, says: str
) -> None:
    response = httpx.post(server.url + path, content=json.dumps(body))
    assert (response.status_code, says in response.json()["error"]) == (status, True), response.text


def test_a_body_that_is_too_large_is_refused(server: Served) -> None:
    response = httpx.post(f"{server.url}/predict", content=b"[" * 300_000)
    assert (response.status_code, response.json()["error"]) == (413, "the body has 300000 bytes, at most 200000")

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 50_000

    with suppress(httpx.TransportError):  # it may be closed under the writer's hands, which is as good
        assert httpx.post(f"{server.url}/predict", content=endless()).status_code == 413
    assert httpx.post(f"{server.url}/predict", json={"rows": [ROW]}).status_code == 200


def test_numbers_may_be_nested_by_rows_or_whole(server: Served) -> None:
    values = [[float(n) for n in range(13)], list(range(13))]
    flat = httpx.post(f"{server.url}/v2/models/model/infer", json=infer(shape=[2, 13], data=[*values[0], *values[1]]))
    nested = httpx.post(f"{server.url}/v2/models/model/infer", json=infer(shape=[2, 13], data=values))
    assert flat.status_code == 200, flat.text
    assert flat.json() == nested.json()


def test_figures_and_documents_are_there(server: Served) -> None:
    httpx.post(f"{server.url}/predict", json={"rows": [ROW, ROW]})
    text = httpx.get(f"{server.url}/metrics").text
    assert 'meadow_requests_total{model="model",status="200"' in text
    assert 'meadow_rows_total{model="model"' in text
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert "/predict" in paths and "/v2/models/{model}/infer" in paths


def test_the_alias_is_followed_and_no_request_fails(registry: Registry, tmp_path: Path) -> None:
    """While clients ask without a pause, the champion changes to and fro: each answer is one version's, whole."""
    folder = tmp_path / "registry"
    shutil.copytree(registry.folder, folder)
    mine = Registry(folder)
    names = [mine.version(name).name for name in ("heart:0", "heart:1", "heart:2")]
    expected = {name: answer_of(mine, name, table(1)) for name in names}
    seen: list[tuple[str, bool]] = []
    wrong: list[str] = []
    ending = threading.Event()
    with serving("champion", "--registry", str(folder)) as served:

        def ask() -> None:
            rows = [[None if np.isnan(v) else float(v) for v in row] for row in table(1)]
            with httpx.Client() as client:
                while not ending.is_set():
                    answer = client.post(f"{served.url}/predict", json={"rows": rows})
                    if answer.status_code != 200:
                        wrong.append(answer.text)
                        continue
                    told = answer.json()
                    outputs = expected[told["version"]][0].astype(np.float64)
                    share = np.exp(outputs[1]) / np.exp(outputs).sum()
                    found = told["predictions"][0]["probabilities"]["disease"]
                    seen.append((told["version"], abs(found - share) < 1e-6))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        took = []
        for name in (names[0], names[1], names[2], names[0]):
            mine.promote(name, reason="a test")
            began = time.monotonic()
            while httpx.get(f"{served.url}/v2/models/model").json()["versions"] != [name]:
                assert time.monotonic() - began < 10
                time.sleep(0.01)
            took.append(time.monotonic() - began)
        ending.set()
        for asker in askers:
            asker.join()
    assert not wrong
    assert all(sound for _, sound in seen)
    assert {version for version, _ in seen} >= {names[0], names[1]}
    assert sorted(took)[1] < 1.0  # a busy machine may keep one of them waiting


def test_a_server_that_is_told_to_end_answers_what_it_accepted(registry: Registry) -> None:
    with serving("champion", "--registry", str(registry.folder)) as served:
        sockets = []
        body = json.dumps({"rows": [ROW]}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for _ in range(20):
            one = socket.create_connection(served.address, timeout=10)
            one.sendall(head + body[:10])
            sockets.append(one)
        assert httpx.get(f"{served.url}/v2/health/live").status_code == 200  # the heads before it have been read
        time.sleep(0.2)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        for one in sockets:
            one.sendall(body[10:])
        answers = [one.recv(65536) for one in sockets]
        for one in sockets:
            one.close()
        assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 20
        assert served.process.wait(timeout=10) == 0
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_bundle_and_onnxruntime_answer_like_the_version(registry: Registry, tmp_path: Path) -> None:
    from experiments.package import package

    bundle = package("champion", formats=["onnx"], output=tmp_path, registry=registry.folder, key=None, override=None)
    words = (f"bundle={bundle.folder}", "version=champion", "--registry", str(registry.folder), "--runtime", "onnx")
    with serving(*words) as served:
        found = [
            httpx.post(f"{served.url}/v2/models/{name}/predict", json={"rows": [ROW]}).json()
            for name in ("bundle", "version")
        ]
    assert [one["hash"] for one in found] == [bundle.id, registry.version("champion").hash]
    signature = Signature.from_dict(registry.version("champion").manifest["signature"])
    values = np.array([[ROW.get(name) for name in signature.feature_names]], dtype=np.float32)
    outputs = answer_of(registry, "champion", values)[0].astype(np.float64)
    for one in found:
        share = one["predictions"][0]["probabilities"]["disease"]
        assert share == pytest.approx(np.exp(outputs[1]) / np.exp(outputs).sum(), rel=1e-4)


@pytest.mark.slow
def test_silent_connections_are_closed_and_hurt_nobody(registry: Registry) -> None:
    with serving("champion", "--registry", str(registry.folder)) as served:
        silent = [socket.create_connection(served.address, timeout=20) for _ in range(200)]
        for number, one in enumerate(silent):
            if number % 2:
                one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Sl")
        began = time.monotonic()
        times = []
        with httpx.Client() as client:
            for _ in range(300):
                start = time.monotonic()
                assert client.post(f"{served.url}/predict", json={"rows": [ROW]}).status_code == 200
                times.append(time.monotonic() - start)
        assert np.quantile(times, 0.99) < 0.2
        for one in silent:
            one.settimeout(max(0.1, began + 15 - time.monotonic()))
            assert one.recv(100) == b""  # closed by the server, within 15 s
            one.close()


def test_a_token_is_asked_for(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond\n")
    with serving("champion", "--registry", str(registry.folder), "--token-file", str(tmp_path / "tokens")) as served:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer third"}, 401),
            ({"Authorization": "Basic second"}, 401),
            ({"Authorization": "Bearer second"}, 200),
        ):
            found = httpx.post(f"{served.url}/predict", json={"rows": [ROW]}, headers=headers)
            assert found.status_code == status
        assert httpx.get(f"{served.url}/v2/health/live").status_code == 200
        assert httpx.get(f"{served.url}/metrics").status_code == 401


def test_tls(registry: Registry, tmp_path: Path, certificate: Callable[[Path], tuple[Path, Path]]) -> None:
    public, private = certificate(tmp_path)
    words = ("champion", "--registry", str(registry.folder), "--certificate", str(public), "--key", str(private))
    with serving(*words) as served:
        trusting = ssl.create_default_context(cafile=str(public))
        assert served.url.startswith("https://")
        found = httpx.post(f"{served.url}/predict", json={"rows": [ROW]}, verify=trusting)
        assert found.status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/v2/health/live")


@pytest.fixture
def certificate() -> Callable[[Path], tuple[Path, Path]]:
    """Makes a certificate of 127.0.0.1, signed by itself, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    def make(folder: Path) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(tz=UTC) - timedelta(days=1)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=3))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        (folder / "public.pem").write_bytes(made.public_bytes(Encoding.PEM))
        (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return folder / "public.pem", folder / "private.pem"

    return make


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_case_of_the_openapi_document_breaks_the_server(registry: Registry, tmp_path: Path) -> None:
    """schemathesis draws 10,000 requests from the document and around it: no 5xx."""
    with serving("champion", "--registry", str(registry.folder)) as served:
        paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
        cases = -(-10_000 // sum(len(methods) for methods in paths.values()))
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{served.url}/openapi.json"),
                *("--checks", "not_a_server_error", "--max-examples", str(cases), "--phases", "fuzzing"),
                *("--seed", "1", "--mode", "all", "--no-color"),
            ],
            capture_output=True,
            text=True,
            timeout=900,
            cwd=tmp_path,  # it keeps what it found there
            env={**os.environ, "COLUMNS": "120"},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert served.process.poll() is None
