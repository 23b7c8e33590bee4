"""A load generator for HTTP/1.1 that costs little of the cores which it shares with the server: sockets and bytes.

Every connection sends the same request again as soon as its answer has come. What an answer holds is for tests to
look at; here its status counts, and the time that it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Load:
    """What all connections saw. Status 0 stands for a connection that was lost before its answer."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    async def run(self, *, host: str, port: int, request: bytes, connections: int, seconds: float) -> None:
        """Ask over ``connections`` for ``seconds``."""
        loop = asyncio.get_running_loop()
        ends = time.perf_counter() + seconds
        made = [
            (await loop.create_connection(lambda: Connection(request, ends, self), host, port))[1]
            for _ in range(connections)
        ]
        await asyncio.gather(*(one.closed for one in made))


class Connection(asyncio.Protocol):
    """Ask, wait for the whole answer, ask again until ``ends``."""

    def __init__(self, request: bytes, ends: float, load: Load) -> None:
        self.request, self.ends, self.load = request, ends, load
        self.held = bytearray()
        self.asked = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request."""
        self.transport: Any = transport  # uvloop's is none of asyncio's
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Part of an answer, or all of it."""
        held = self.held
        held += data
        head = held.find(b"\r\n\r\n")
        if head < 0:
            return
        fields = held[: head + 2].lower()
        place = fields.find(b"content-length:")
        if len(held) < head + 4 + int(fields[place + 15 : fields.find(b"\r", place)]):
            return
        now = time.perf_counter()
        self.load.seconds.append(now - self.asked)
        self.load.statuses[int(held[9:12])] += 1
        held.clear()
        self.asked = 0.0
        if now < self.ends and b"\r\nconnection: close\r\n" not in fields:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, as planned or not."""
        self.load.statuses[0] += bool(self.asked)
        self.closed.set_result(None)

    def _ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.request)


def request_of(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST, whole."""
    told = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def main() -> None:
    """Host, port, connections, seconds, path, file of the body, headers as JSON; prints one JSON object."""
    import uvloop

    host, port, connections, seconds, path, body, headers = sys.argv[1:]
    request = request_of(path, Path(body).read_bytes(), json.loads(headers))
    load = Load()
    began, cpu = time.perf_counter(), time.process_time()
    uvloop.run(
        load.run(host=host, port=int(port), request=request, connections=int(connections), seconds=float(seconds))
    )
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    ordered = sorted(load.seconds)
    told = {
        "requests": len(ordered),
        "seconds": took,
        "statuses": dict(load.statuses),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[int(0.99 * (len(ordered) - 1))],
        "cpu_seconds": cpu,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
