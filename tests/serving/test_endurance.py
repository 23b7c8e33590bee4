"""`fl serve` on a bad day: mangled bodies, too many at once, and an end in the middle of it all."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http.aio as triton

from experiments.bench.drivers.http_load import Load, request_of
from experiments.compose import compose
from experiments.package import package
from experiments.run import simulate
from fl.bundle import Bundle
from fl.serving.tensors import HEADER_LENGTH

ROW = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "thalach": 150, "oldpeak": 2.3}
PREDICT = request_of("/predict", json.dumps({"rows": [ROW]}).encode(), {})
MUTATED, ENDINGS, STEADY = 100_000, 100, 100_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Served by onnxruntime alone: such a server starts in less than a second."""
    folder = tmp_path_factory.mktemp("endurance")
    few = ("dataset=heart_disease", "engine=inprocess", "num_rounds=1", "server.tensorboard=false")
    simulate(compose([*few, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"]))
    words = {"registry": folder / "registry", "key": None, "override": None}
    return package("heart:1", formats=["onnx"], output=folder / "bundles", **words)


@contextmanager
def serving(bundle: Bundle, *words: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port and the process of `fl serve BUNDLE`."""
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "serve", str(bundle.folder), *words]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url
        yield int(url.rpartition(":")[2]), process
    finally:
        process.kill()
        process.communicate()


async def asked(port: int, requests: Sequence[bytes], *, connections: int) -> Counter[int]:
    """How many requests got which status, over connections that are opened anew where the server closes them."""
    waiting, statuses = iter(requests), Counter[int]()

    async def ask() -> None:
        reader = writer = None
        for request in waiting:
            if writer is None or writer.is_closing():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert reader is not None
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(lines[b"content-length"]))
            statuses[int(head[9:12])] += 1
            if lines.get(b"connection") == b"close":
                writer.close()
        if writer is not None:
            writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return statuses


def tensor(binary: bool) -> tuple[bytes, dict[str, str]]:
    values = np.arange(13, dtype=np.float32)
    given = {"name": "input", "datatype": "FP32", "shape": [1, 13]}
    if not binary:
        return json.dumps({"id": "a", "inputs": [given | {"data": values.tolist()}]}).encode(), {}
    told = {"inputs": [given | {"parameters": {"binary_data_size": 52}}], "outputs": [{"name": "output"}]}
    text = json.dumps(told).encode()
    return text + values.tobytes(), {HEADER_LENGTH: str(len(text))}


def mutants(count: int) -> Iterator[bytes]:
    """Good bodies with bytes flipped, cut, doubled, moved or put in, and numbers and words that hurt."""
    draw = random.Random(8)
    bad = [b"NaN", b"1e999", b"-1", b"null", b"{}", b"[]", b'"', b"\xff\xfe", b"9" * 400, b"[" * 2000, b"true", b"\x00"]
    good = [("/predict", json.dumps({"rows": [ROW, list(range(13))]}).encode(), {})]
    good += [("/v2/models/model/infer", *tensor(binary)) for binary in (False, True)]
    for _ in range(count):
        path, body, headers = draw.choice(good)
        for _ in range(draw.randint(1, 4)):
            start = draw.randrange(len(body) + 1)
            end = min(len(body), start + draw.choice((0, 1, 2, 5, 30)))
            put = draw.choice((b"", bytes([draw.randrange(256)]), body[start:end] * 2, draw.choice(bad)))
            body = body[:start] + put + body[end:]
        yield request_of(path, body, headers)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_mutated_body_breaks_the_server(bundle: Bundle) -> None:
    with serving(bundle) as (port, process):
        statuses = asyncio.run(asked(port, list(mutants(MUTATED)), connections=8))
        assert process.poll() is None
    assert sum(statuses.values()) == MUTATED
    assert set(statuses) <= {200, 400}
    assert min(statuses[200], statuses[400]) > MUTATED / 50  # neither all harmless nor all hopeless


@pytest.mark.slow
def test_tritonclient_and_curl_get_the_same(bundle: Bundle) -> None:
    """The asynchronous client with bytes and JSON; the synchronous one is asked in test_server.py."""
    values = np.arange(26, dtype=np.float32).reshape(2, 13)

    async def ask(port: int, binary: bool) -> np.ndarray:
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("model")
        given = triton.InferInput("input", [2, 13], "FP32")
        given.set_data_from_numpy(values, binary_data=binary)
        wanted = [triton.InferRequestedOutput("output", binary_data=binary)]
        many = await asyncio.gather(*(client.infer("model", [given], outputs=wanted) for _ in range(20)))
        await client.close()
        found = [one.as_numpy("output") for one in many]
        for one in found:
            np.testing.assert_array_equal(one, found[0])
        return found[0]

    with serving(bundle) as (port, _):
        as_bytes, as_json = (asyncio.run(ask(port, binary)) for binary in (True, False))
        np.testing.assert_array_equal(as_bytes, as_json)
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed; tritonclient was asked")
        body = {"inputs": [{"name": "input", "shape": [2, 13], "datatype": "FP32", "data": values.tolist()}]}
        url = f"http://127.0.0.1:{port}/v2/models/model/infer"
        told = subprocess.run(
            ["curl", "--silent", "--fail", url, "--data", json.dumps(body)], capture_output=True, timeout=30, check=True
        )
        (output,) = json.loads(told.stdout)["outputs"]
        np.testing.assert_array_equal(np.float32(output["data"]).reshape(output["shape"]), as_bytes)


class Client(threading.Thread):
    """Asks over one connection until the server closes it; an answer that is begun and not ended is lost."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.answered, self.lost = port, 0, 0

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as one:
            while True:
                try:
                    one.sendall(PREDICT)
                except OSError:
                    return  # closed before it could be accepted
                try:
                    held = one.recv(65536)
                except ConnectionResetError:
                    return  # never read: the server had closed the idle connection already
                if not held:
                    return
                while b"\r\n\r\n" not in held or not held.endswith(b"}"):
                    more = one.recv(65536)
                    if not more:
                        self.lost += 1  # an answer that was begun and not ended
                        return
                    held += more
                if held[9:12] != b"200":
                    self.lost += held[9:12] != b"503"
                    return
                self.answered += 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_endings_under_load_lose_no_accepted_request(bundle: Bundle) -> None:
    """Each time requests are under way whose heads the server has read: it answers them all, and ends within 10 s."""
    body = json.dumps({"rows": [ROW]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(ENDINGS):
        with serving(bundle) as (port, process):
            clients = [Client(port) for _ in range(8)]
            accepted = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(8)]
            for one in accepted:
                one.sendall(head + body[:5])
            for one in clients:
                one.start()
            while min(one.answered for one in clients) < 2:  # so the heads before have been read as well
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            for one in accepted:
                one.sendall(body[5:])
            for one in accepted:
                assert one.recv(65536).startswith(b"HTTP/1.1 200")
                one.close()
            assert process.wait(timeout=20) == 0
            assert time.monotonic() - began < 10
            for one in clients:
                one.join(timeout=30)
            assert not sum(one.lost for one in clients)


@pytest.mark.slow
def test_256_connections_get_200_429_or_503_and_all_get_something(bundle: Bundle) -> None:
    for words, seen in (
        ((), {200}),
        (("--queue-rows", "4"), {200, 429}),
        (("--connections", "100"), {200, 503}),
    ):
        with serving(bundle, *words) as (port, process):
            load = Load()
            request = PREDICT
            asyncio.run(load.run(host="127.0.0.1", port=port, request=request, connections=256, seconds=5))
            assert process.poll() is None
        assert {status for status, count in load.statuses.items() if count} == seen, load.statuses
        assert load.statuses[200] > 256


@pytest.mark.slow
def test_memory_is_flat_over_a_hundred_thousand_requests(bundle: Bundle) -> None:
    with serving(bundle) as (port, process):

        def after(requests: int) -> int:
            statuses = asyncio.run(asked(port, [PREDICT] * requests, connections=16))
            assert statuses == {200: requests}
            return psutil.Process(process.pid).memory_info().rss

        warm = after(STEADY // 10)
        assert after(STEADY) - warm < 8 * 2**20  # 80 bytes a request would be seen


@pytest.mark.slow
def test_a_bundle_answers_within_seconds_of_its_start_and_without_torch(bundle: Bundle) -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        with serving(bundle) as (port, process):
            assert asyncio.run(asked(port, [PREDICT], connections=1)) == {200: 1}
            took.append(time.monotonic() - began)
            maps = Path(f"/proc/{process.pid}/maps")
            assert not maps.exists() or "libtorch" not in maps.read_text()
    assert min(took) < 3
