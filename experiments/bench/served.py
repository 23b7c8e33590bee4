"""A server under way as a process of its own, the load generator beside it, and what both cost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from experiments.bench.process import ONE_THREAD, QUIET
from experiments.bench.systems import PACKAGE
from fl.parameters import Array

START_SECONDS, END_SECONDS = 120.0, 30.0


@dataclass(frozen=True)
class Asked:
    """What a load generator saw of a system; ``cpu_seconds`` of the server for 1,000 requests."""

    per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds: float
    first_seconds: float
    not_answered: int


@dataclass(frozen=True)
class Served:
    """Where a server listens, its process, and when that was started (time.perf_counter)."""

    port: int
    process: subprocess.Popen[str]
    began: float

    def first_answer(self, request: bytes) -> float:
        """Seconds from the start of the server to its first answer. Raises OSError unless that is a 200."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as one:
            one.sendall(request)
            status = one.recv(64).split(b"\r\n")[0]
        if b" 200 " not in status:
            raise ConnectionError(f"the first answer is {status.decode(errors='replace')!r}")
        return time.perf_counter() - self.began

    def cpu_seconds(self) -> float:
        """User's and system's, of the server and all that it started and is still there."""
        total = 0.0
        for one in _family(self.process.pid):
            with suppress(psutil.Error):  # it has just ended
                times = one.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def serving(command: Sequence[str], *, log: Path) -> Iterator[Served]:
    """Start a server that prints its address, and end it and all that it started. Raises OSError where none comes."""
    began = time.perf_counter()
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
        try:
            assert process.stdout is not None, "it was asked for"
            address = process.stdout.readline().strip()
            if not address.startswith("http"):
                raise ChildProcessError(f"no server: {log.read_text()[-500:]}")
            yield Served(int(address.rpartition(":")[2]), process, began)
        finally:
            _end(process)


def load(
    served: Served, request: bytes, *, connections: int, seconds: float, first_seconds: float = float("nan")
) -> Asked:
    """Let the generator ask ``served`` the same again and again."""
    _, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0].decode()
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        before = served.cpu_seconds()
        words = [
            "127.0.0.1",
            str(served.port),
            str(connections),
            str(seconds),
            path,
            file.name,
            json.dumps(dict(lines)),
        ]
        told = _told("http_load", words, timeout=seconds + START_SECONDS)
    return _asked(told, served.cpu_seconds() - before, first_seconds)


def direct(model: Path, inputs: Array, *, seconds: float, log: Path) -> Asked:
    """onnxruntime alone, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, inputs)
        file.flush()
        told = _told("onnx_direct", [str(model), file.name, str(seconds)], timeout=seconds + START_SECONDS)
    return _asked(told, told["cpu_seconds"], float("nan"))


def _asked(told: dict[str, Any], cpu_seconds: float, first_seconds: float) -> Asked:
    return Asked(
        per_second=told["requests"] / told["seconds"],
        p50_seconds=told["p50"],
        p99_seconds=told["p99"],
        cpu_seconds=1000 * cpu_seconds / told["requests"],
        first_seconds=first_seconds,
        not_answered=sum(count for status, count in told["statuses"].items() if status != "200"),
    )


def _told(driver: str, words: Sequence[str], *, timeout: float) -> dict[str, Any]:
    """What a driver prints. Raises OSError where it fails."""
    command = [sys.executable, "-m", f"{PACKAGE}.{driver}", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{driver} took more than {timeout:g} s") from error
    if done.returncode:
        raise ChildProcessError(f"{driver}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, **QUIET, **ONE_THREAD}


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _end(process: subprocess.Popen[str]) -> None:
    """Politely, and then whatever is left of it."""
    started = _family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    for one in started:
        with suppress(psutil.Error):
            one.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
