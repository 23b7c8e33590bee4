"""The zip answers through an emulated Runtime API, alone: what it needs is in it, and nothing that is not asked for."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.package import package
from experiments.run import simulate
from fl.bundle import Bundle, open_bundle
from fl.errors import BadInput
from fl.models.evaluate import predict
from fl.packaging import serverless
from fl.packaging.serverless import HANDLER
from fl.serving.serverless import answer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from experiments.compose import compose

    folder = tmp_path_factory.mktemp("serverless")
    few = ("dataset=heart_disease", "engine=inprocess", "num_rounds=1", "server.tensorboard=false")
    simulate(compose([*few, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"]))
    words: dict[str, Any] = {"registry": folder / "registry", "key": None, "override": None}
    return package("heart:1", formats=["onnx"], output=folder / "bundles", **words)


class Platform:
    """AWS Lambda's Runtime API: hands out events, one at a time, and keeps what comes back for each."""

    def __init__(self, events: list[Any]) -> None:
        self.waiting, self.answers, self.done = deque(enumerate(events)), {}, threading.Event()
        platform, count = self, len(events)

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # .../runtime/invocation/next
                if not platform.waiting:
                    platform.done.wait(60)  # it asks for more than there is, until it is ended
                    return
                number, event = platform.waiting.popleft()
                self.say(200, json.dumps(event).encode(), {"Lambda-Runtime-Aws-Request-Id": str(number)})

            def do_POST(self) -> None:  # .../runtime/invocation/ID/response or /error, or .../runtime/init/error
                *_, number, kind = self.path.split("/")
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                platform.answers[number] = (kind, told)
                self.say(202, b"{}", {})
                if len(platform.answers) == count or number == "init":
                    platform.done.set()

            def say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                far = {
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:x",
                    "Lambda-Runtime-Deadline-Ms": "9999999999999",
                    "Content-Type": "application/json",
                }
                for name, value in {**far, **headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.server.daemon_threads = True

    def run(self, folder: Path) -> dict[str, tuple[str, Any]]:
        """What the function in ``folder`` answers to each event, by its number."""
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        client = folder.parent / "client"  # the platform brings its own client of this API, and nothing else
        client.mkdir()
        import awslambdaric
        import runtime_client
        import simplejson
        import snapshot_restore_py

        for folders in (awslambdaric, simplejson):
            shutil.copytree(Path(folders.__file__).parent, client / folders.__name__)
        for file in (runtime_client, snapshot_restore_py):
            shutil.copy(file.__file__, client)
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "LAMBDA_TASK_ROOT": str(folder),
            "PYTHONPATH": f"{folder}:{client}",
            "PATH": os.environ["PATH"],
        }
        alone = ("-S", "-c", "import awslambdaric.__main__ as m, sys; m.main(['', sys.argv[1]])", HANDLER)
        with subprocess.Popen(
            [sys.executable, *alone], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            ends = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < ends and not self.done.wait(0.1):
                pass
            process.kill()
            said = process.communicate()[0].decode()
        self.server.shutdown()
        self.server.server_close()
        assert self.done.is_set(), (process.returncode, said)
        return self.answers


ROW = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "thalach": 150, "oldpeak": 2.3}


def probability(bundle: Bundle) -> float:
    """What the version itself says of ROW."""
    signature = bundle.signature
    values = np.array([[ROW.get(name) for name in signature.feature_names]], dtype=np.float32)
    outputs = predict(bundle.module(), values, signature)[0].astype(np.float64)
    return float(np.exp(outputs[1]) / np.exp(outputs).sum())


@pytest.mark.slow
def test_the_zip_answers_through_the_emulator(bundle: Bundle, tmp_path: Path, capsys) -> None:
    file = tmp_path / "function.zip"
    assert cli.run(["bundle", "serverless", str(bundle.folder), "--output", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{HANDLER}: ")
    with zipfile.ZipFile(file) as archive:
        sizes = [entry.file_size for entry in archive.infolist()]
        names = archive.namelist()
        archive.extractall(tmp_path / "function")
    assert file.stat().st_size <= 50e6
    assert sum(sizes) <= 250e6
    assert not [name for name in names if name.startswith(("torch/", "ray/", "flwr/", "experiments/"))]
    text = json.dumps({"rows": [ROW]})
    coded = {"body": base64.b64encode(text.encode()).decode(), "isBase64Encoded": True}
    events = [{"rows": [ROW, ROW]}, {"body": text}, coded, {"body": '{"rows": [{"agee": 1}]}'}, {"rows": []}]
    found = Platform(events).run(tmp_path / "function")
    kind, told = found["0"]
    assert (kind, told["hash"], len(told["predictions"])) == ("response", bundle.id, 2)
    assert told["predictions"][1]["probabilities"]["disease"] == pytest.approx(probability(bundle), rel=1e-4)
    for number in ("1", "2"):
        kind, answered = found[number]
        assert (kind, answered["statusCode"]) == ("response", 200)
        assert json.loads(answered["body"])["predictions"] == told["predictions"][:1]
    kind, answered = found["3"]
    assert (kind, answered["statusCode"]) == ("response", 400)
    assert "there is no column 'agee'" in json.loads(answered["body"])["error"]
    kind, error = found["4"]
    assert (kind, error["errorType"]) == ("error", "Unanswerable")


@pytest.mark.slow
def test_the_same_bundle_gives_the_same_zip_and_one_too_large_gives_none(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (serverless.write(bundle, tmp_path / name).path for name in ("one.zip", "two.zip"))
    assert one.read_bytes() == two.read_bytes()
    monkeypatch.setattr(serverless, "LARGEST_ZIP", 10**6)
    with pytest.raises(BadInput, match=r"MB zipped and .* MB unzipped, allowed: at most 50 MB zipped"):
        serverless.write(bundle, tmp_path / "three.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "two.zip"]


@pytest.mark.parametrize(
    "event, says",
    [
        ({"body": "{"}, "the body is not JSON"),
        ({"body": None}, "the body is not JSON"),
        ({"body": "%%", "isBase64Encoded": True}, "the body is not JSON"),
        ({"body": "[1]"}, "expected an object with rows, and nothing else"),
        ({"body": '{"rows": [[1]], "row": 1}'}, "expected an object with rows, and nothing else"),
    ],
)
def test_what_is_no_request_is_told_before_any_model_is_opened(event: Any, says: str) -> None:
    answered = answer(event)
    assert (answered["statusCode"], says in json.loads(answered["body"])["error"]) == (400, True)


def test_a_bundle_without_onnx_is_refused(tmp_path: Path, settings) -> None:
    simulate(settings())
    words: dict[str, Any] = {"registry": tmp_path / "registry", "key": None, "override": None}
    plain = package("run:1", formats=["safetensors"], output=tmp_path / "bundles", **words)
    for command in ("serverless", "image"):
        assert cli.run(["bundle", command, str(plain.folder), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert open_bundle(plain.folder).id == plain.id
