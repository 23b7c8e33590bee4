"""`fl bench suite=serving`: `fl serve` against a plain service, Ray Serve and onnxruntime alone, on the same requests.

Each system is a process of its own, started, warmed, asked by the same load generator and ended, all in turn and
several times over. Two that differ by little stand side by side and are asked in short turns: a host's own unrest is
larger than their difference. The generator shares the cores with the server, so figures are to be compared with one
another; the seconds of processor time that a server takes for 1,000 requests are the least disturbed by other work.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from experiments.bench.drivers.http_load import request_of
from experiments.bench.process import ONE_THREAD, QUIET
from experiments.bench.served import Asked, Served, direct, load, serving
from experiments.bench.systems import FL, PACKAGE
from experiments.bench.targets import Verdict
from fl.parameters import Array
from fl.seeds import generator

SECONDS = 5.0
TURNS, TURN_SECONDS = 12, 0.5
"""Of two systems side by side, in each repeat."""

ROW_CONNECTIONS, TENSOR_CONNECTIONS, TENSOR_ROWS = 32, 4, 64
MODELS = {"mlp": "2NN", "cnn": "CNN"}
OURS, PLAIN, RAY, DIRECT = "ours", "FastAPI alone", "Ray Serve", "onnxruntime alone"
STRAIGHT, ROUTED = "ours, a champion", "ours, a canary and a log"
CANARY = ("steps=[25]", "seconds=10000000", "errors=1", "latency=1")
"""A quarter of the requests, for as long as it is measured."""


@dataclass(frozen=True)
class Work:
    """What is asked: ``rows`` a request, as JSON or as bytes, over so many connections."""

    model: str
    rows: int
    binary: bool
    connections: int

    @property
    def name(self) -> str:
        """For tables."""
        how = f"{self.rows} rows as bytes" if self.binary else "a row as JSON"
        return f"{MODELS[self.model]}, {how}, {self.connections} connections"


ROW = Work("mlp", 1, False, ROW_CONNECTIONS)
TENSORS = tuple(Work(model, TENSOR_ROWS, True, TENSOR_CONNECTIONS) for model in MODELS)


@dataclass(frozen=True)
class Row:
    """What one system did on one work: medians over the repeats.

    per_second      requests
    p50_seconds     p99_seconds: from a request to the end of its answer
    cpu_seconds     of the server and what it started, for 1,000 requests
    first_seconds   from the start of the server to its first answer
    not_answered    requests with another status than 200, of all repeats
    failed          why there are no figures; "" where there are
    """

    work: Work
    system: str
    per_second: float = math.nan
    p50_seconds: float = math.nan
    p99_seconds: float = math.nan
    cpu_seconds: float = math.nan
    first_seconds: float = math.nan
    not_answered: int = 0
    failed: str = ""


@dataclass(frozen=True)
class Models:
    """What is served: a run's versions in ``registry``, and the bundle of each model."""

    registry: Path
    bundles: dict[str, Path]

    def onnx(self, model: str) -> Path:
        """The bundle's ONNX file."""
        return next((self.bundles[model] / "formats").glob("*.onnx"))


def prepare(folder: Path, say: Callable[[str], None]) -> Models:
    """Two small runs and the bundles of their best versions, made as a user makes them."""
    registry, bundles = folder / "registry", {}
    for model in MODELS:
        say(f"{MODELS[model]}: a version and its bundle")
        _fl(
            *("simulate", "dataset=mnist", f"model={model}", "server=random", "num_clients=20", "cohort_size=2"),
            *("num_rounds=1", "engine=inprocess", "server.tensorboard=false", "evaluate_clients_every=null"),
            *(f"run_dir={folder / model}", f"registry_dir={registry}"),
        )
        output = folder / "bundles" / model
        _fl("package", f"{model}:best", "--format", "onnx", "--registry", str(registry), "--output", str(output))
        (bundles[model],) = output.iterdir()
    return Models(registry, bundles)


def requests(work: Work) -> tuple[bytes, Array]:
    """The HTTP request, whole, and its inputs as the model takes them."""
    draw = generator(1, purpose="bench/serving")
    inputs = draw.random((work.rows, 1, 28, 28), dtype=np.float32).round(4)
    tensor = {"name": "input", "datatype": "FP32", "shape": list(inputs.shape)}
    if not work.binary:
        told = {"inputs": [tensor | {"data": [round(float(value), 4) for value in inputs.reshape(-1)]}]}
        return request_of("/v2/models/model/infer", json.dumps(told).encode(), {}), inputs
    raw = inputs.tobytes()
    parameters = {"binary_data_size": len(raw)}
    asked = {"inputs": [tensor | {"parameters": parameters}], "parameters": {"binary_data_output": True}}
    text = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return request_of("/v2/models/model/infer", text + raw, headers), inputs


Measure = Callable[[Work, Models, Path], Sequence[Asked]]


def systems(work: Work) -> dict[tuple[str, ...], Measure]:
    """Who is compared on a work: names of those that are asked together, and what is seen of each."""
    ours = partial(_asked, command=_ours)
    if work.binary:
        return {(OURS,): ours, (DIRECT,): _direct}
    return {
        (OURS,): ours,
        (PLAIN,): partial(_asked, command=partial(_driver, "plain_service")),
        (RAY,): partial(_asked, command=partial(_driver, "ray_service")),
        (STRAIGHT, ROUTED): _side_by_side,
    }


def measure(folder: Path, *, repeats: int, only: Sequence[str] | None, say: Callable[[str], None]) -> list[Row]:
    """A row a work and system."""
    works = [work for work in (ROW, *TENSORS) if only is None or any(p.lower() in work.name.lower() for p in only)]
    models = prepare(folder, say)
    rows = []
    for work in works:
        found: dict[str, list[Asked]] = {name: [] for names in systems(work) for name in names}
        failed: dict[str, str] = {}
        for repeat in range(repeats):
            for names, system in systems(work).items():
                if names[0] in failed:
                    continue
                told = " and ".join(names)
                say(f"{work.name}: {told}, {repeat + 1} of {repeats}")
                try:
                    for name, asked in zip(names, system(work, models, folder / f"{told} {repeat + 1}"), strict=True):
                        found[name].append(asked)
                except OSError as error:
                    failed |= dict.fromkeys(names, str(error))
        rows += [_row(work, name, asked, failed.get(name, "")) for name, asked in found.items()]
    return rows


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What became of the figures to reach."""
    found = {(row.work, row.system): row for row in rows if not row.failed}
    out = []

    def compare(work: Work, mine: str, peer: str, at_least: float) -> None:
        a, b = found.get((work, mine)), found.get((work, peer))
        if a and b:
            got = a.per_second / b.per_second
            figure = f"{work.name}: {mine} against {peer}, requests a second"
            out.append(Verdict(figure, f"at least {at_least:.3g} times" if at_least else "told", got, got >= at_least))

    compare(ROW, OURS, PLAIN, 1.5)
    compare(ROW, OURS, RAY, 2.0)
    compare(ROW, ROUTED, STRAIGHT, 0.85)
    for peer in (PLAIN, RAY):
        mine, other = found.get((ROW, OURS)), found.get((ROW, peer))
        if mine and other:
            got = mine.p99_seconds / other.p99_seconds
            out.append(Verdict(f"{ROW.name}: p99 of {OURS} over that of {peer}", "at most 1 time", got, got <= 1.0))
    for work in TENSORS:
        compare(work, OURS, DIRECT, 0.9 if work.model == "cnn" else 0.0)
    firsts = [row.first_seconds for row in rows if row.system == OURS and not row.failed]
    if firsts:
        out.append(Verdict("start to first answer, from a bundle", "under 3 s", max(firsts), max(firsts) < 3.0))
    return out


def _row(work: Work, name: str, asked: Sequence[Asked], failed: str) -> Row:
    return Row(work, name, failed=failed) if failed else Row(work, name, **asdict(_middle(asked)))


def _middle(asked: Sequence[Asked]) -> Asked:
    """The median of each figure, and all that were not answered."""
    columns = {field.name: [getattr(one, field.name) for one in asked] for field in fields(Asked)}
    medians = {name: statistics.median(values) for name, values in columns.items()}
    return Asked(**{**medians, "not_answered": sum(columns["not_answered"])})


def _asked(work: Work, models: Models, place: Path, *, command: Callable[[Work, Models], list[str]]) -> Sequence[Asked]:
    request, _ = requests(work)
    with serving(command(work, models), log=place.with_suffix(".log")) as served:
        first = _warm(served, request, work)
        return [load(served, request, connections=work.connections, seconds=SECONDS, first_seconds=first)]


def _warm(served: Served, request: bytes, work: Work) -> float:
    """Let sessions and caches be warm; the seconds to the first answer."""
    first = served.first_answer(request)
    load(served, request, connections=work.connections, seconds=1.0)
    return first


def _direct(work: Work, models: Models, place: Path) -> Sequence[Asked]:
    _, inputs = requests(work)
    return [direct(models.onnx(work.model), inputs, seconds=SECONDS, log=place.with_suffix(".log"))]


def _side_by_side(work: Work, models: Models, place: Path) -> Sequence[Asked]:
    """A champion; and one with a challenger, in a copy of the registry, of which every request is taken down."""
    request, _ = requests(work)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder, ExitStack() as stack:
        registry = Path(folder) / "registry"
        shutil.copytree(models.registry, registry)
        options = [word for option in CANARY for word in ("--option", option)]
        _fl("deploy", "canary", "--challenger", f"{work.model}:0", "--registry", str(registry), *options)
        both, firsts = [], []
        for name, where, more in (
            (STRAIGHT, models.registry, "--no-releases"),
            (ROUTED, registry, f"--log={folder}/log"),
        ):
            command = [*FL, "serve", "champion", "--registry", str(where), "--runtime", "onnx", "--port", "0", more]
            both.append(stack.enter_context(serving(command, log=place.with_name(f"{place.name} {name}.log"))))
            firsts.append(_warm(both[-1], request, work))
        turns: list[list[Asked]] = [[] for _ in both]
        for _ in range(TURNS):
            for seen, served, first in zip(turns, both, firsts, strict=True):
                asked = load(served, request, connections=work.connections, seconds=TURN_SECONDS, first_seconds=first)
                seen.append(asked)
        return [_middle(seen) for seen in turns]


def _ours(work: Work, models: Models) -> list[str]:
    return [*FL, "serve", str(models.bundles[work.model]), "--port", "0"]


def _driver(module: str, work: Work, models: Models) -> list[str]:
    return [sys.executable, "-m", f"{PACKAGE}.{module}", str(models.onnx(work.model))]


def _fl(*words: str) -> None:
    """Raises OSError with what the command said."""
    done = subprocess.run([*FL, *words], capture_output=True, text=True, env={**os.environ, **QUIET, **ONE_THREAD})
    if done.returncode:
        raise ChildProcessError(f"fl {words[0]}: {done.stderr[-500:]}")
