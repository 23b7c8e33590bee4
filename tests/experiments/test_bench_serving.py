"""`fl bench suite=serving`: the load generator counts what comes, and the figures say what was measured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from experiments.bench import serving_report as reports
from experiments.bench.drivers.http_load import Load, request_of
from experiments.bench.serving import DIRECT, OURS, PLAIN, RAY, ROUTED, ROW, STRAIGHT, TENSORS, Row, requests, verdicts


def loaded(answer: bytes, *, connections: int = 3, seconds: float = 0.3, closes_after: int = 10**9) -> Load:
    """What the generator counts of a server that gives ``answer`` to whatever comes, in two pieces."""
    load = Load()

    async def main() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(closes_after):
                try:
                    await reader.readuntil(b"whole")
                except asyncio.IncompleteReadError:
                    break
                writer.write(answer[:20])
                await asyncio.sleep(0.01)
                writer.write(answer[20:])
            else:
                await reader.readuntil(b"whole")
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await load.run(
            host="127.0.0.1",
            port=port,
            request=request_of("/x", b"whole", {}),
            connections=connections,
            seconds=seconds,
        )
        server.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    return load


def test_the_generator_counts_whole_answers_by_status() -> None:
    answer = b"HTTP/1.1 429 Too Many\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello"
    load = loaded(answer)
    assert load.statuses == {429: len(load.seconds), 0: 0}
    assert len(load.seconds) > 10
    assert min(load.seconds) >= 0.009  # until the second piece


def test_a_connection_lost_before_its_answer_is_counted() -> None:
    answer = b"HTTP/1.1 200 OK\r\nServer: xxxxx\r\ncontent-length: 5\r\n\r\nhello"
    load = loaded(answer, connections=1, closes_after=2)
    assert load.statuses == {200: 2, 0: 1}


def test_a_connection_that_the_server_ends_with_its_answer_is_not_lost() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    assert loaded(answer, connections=2, closes_after=1).statuses == {503: 2, 0: 0}


@pytest.mark.parametrize("work", [ROW, *TENSORS], ids=lambda work: work.name)
def test_a_request_holds_the_rows_that_it_says(work) -> None:
    request, inputs = requests(work)
    head, _, body = request.partition(b"\r\n\r\n")
    told = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(told["content-length"]) == len(body)
    assert inputs.shape == (work.rows, 1, 28, 28)
    if work.binary:
        behind = body[int(told["inference-header-content-length"]) :]
        np.testing.assert_array_equal(np.frombuffer(behind, np.float32).reshape(inputs.shape), inputs)
    else:
        data = json.loads(body)["inputs"][0]["data"]
        np.testing.assert_array_equal(np.float32(data).reshape(inputs.shape), inputs)


def row(work, system: str, per_second: float, *, p99: float = 0.01, first: float = 1.0) -> Row:
    return Row(work, system, per_second, p99 / 2, p99, 0.1, first)


def test_figures_are_reached_or_missed_as_the_rows_say() -> None:
    rows = [
        row(ROW, OURS, 300.0, p99=0.02),
        row(ROW, PLAIN, 199.0, p99=0.02),
        row(ROW, RAY, 151.0, p99=0.01),
        row(ROW, STRAIGHT, 100.0),
        row(ROW, ROUTED, 85.0),
        *(row(work, name, rate) for work in TENSORS for name, rate in ((OURS, 9.0), (DIRECT, 10.0))),
    ]
    found = {one.figure: (round(one.got, 2), one.reached) for one in verdicts(rows)}
    assert list(found.values()) == [
        (1.51, True),
        (1.99, False),
        (0.85, True),
        (1.0, True),
        (2.0, False),
        (0.9, True),
        (0.9, True),
        (1.0, True),
    ]


def test_a_system_that_failed_is_told_and_compared_with_nobody(tmp_path: Path) -> None:
    rows = [row(ROW, OURS, 300.0), Row(ROW, RAY, failed="no server:\nno Ray")]
    assert [one.figure for one in verdicts(rows)] == ["start to first answer, from a bundle"]
    reports.write(rows, {"command": "fl bench"}, tmp_path)
    assert "| Ray Serve | failed: no server: |" in (tmp_path / "report.md").read_text()
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["rows"][1]["per_second"] is None


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_whole_suite_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "suite=serving", "bench.repeats=1", f"output={tmp_path / 'bench'}", "--json"]
    status = cli.run(words)
    told = json.loads(capsys.readouterr().out)
    assert status == 0, told["rows"]
    assert len(told["rows"]) == 9
    assert all(row["per_second"] > 0 for row in told["rows"])
