"""A release behind HTTP, as its users meet it: real servers, real requests, and the policies of `fl deploy`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from experiments.compose import compose
from experiments.run import simulate
from fl.deployment import checked_options
from fl.inference_log.files import read, tallies
from fl.registry import Registry
from fl.registry.releases import ask, decisions, ending, order, read_state

ROW = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "thalach": 150, "oldpeak": 2.3}
LENIENT = {"errors": 0.9, "latency": 1.0, "quality": 0.9}
OLD, NEW = "heart:1", "heart:2"

PLANTED = """
import os, time
from torch import nn
from fl.models import table_mlp

class Planted(nn.Sequential):
    fault = ""
    def forward(self, x):
        asked = bool((x.nan_to_num() != 0).any())  # not by the probe of zeros that every model has to pass
        if asked and self.fault == "exit":
            os._exit(3)
        while asked and self.fault == "hang":
            pass
        if asked and self.fault == "raise":
            raise ArithmeticError("planted")
        if asked and self.fault == "slow":
            time.sleep(0.1)
        return -super().forward(x) if self.fault == "worse" else super().forward(x)

def build(signature, *, fault, hidden=(32, 32), dropout=0.0):
    made = Planted(*table_mlp.build(signature, hidden=hidden, dropout=dropout).children())
    made.fault = fault
    return made
"""


@dataclass
class Load:
    """Clients that ask without a pause until they are told to end."""

    url: str
    users: int = 400
    seen: Counter[tuple[int, str | None, str | None]] = field(default_factory=Counter)
    arms: dict[str, list[str]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def ask(self, client: httpx.Client, user: str) -> None:
        try:
            answer = client.post(f"{self.url}/predict", json={"rows": [ROW]}, headers={"X-User-Id": user})
        except httpx.TransportError as error:
            self.strange.append(repr(error))
            return
        headers = answer.headers
        arm, version = headers.get("x-meadow-arm"), headers.get("x-meadow-version")
        self.seen[answer.status_code, arm, version] += 1
        if answer.status_code == 200:
            self.ids.append(headers["x-request-id"])
            if arm is not None:
                self.arms.setdefault(user, []).append(arm)
            if answer.json()["version"] != version:
                self.strange.append(f"{answer.json()['version']} in the answer, {version} in its head")
        elif answer.status_code != 503 or headers.get("retry-after") != "1":
            self.strange.append(answer.text)

    @contextmanager
    def under_way(self, clients: int = 4) -> Iterator[None]:
        ending = threading.Event()

        def go(number: int) -> None:
            with httpx.Client() as client:
                turn = number
                while not ending.is_set():
                    self.ask(client, f"user-{turn % self.users}")
                    turn += clients

        threads = [threading.Thread(target=go, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()

    @property
    def statuses(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for (status, _, _), times in self.seen.items():
            found[status] += times
        return found


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "serve", "champion"]
    command += ["--registry", str(folder), "--port", "0", *words]
    (folder / "planted_model.py").write_text(PLANTED)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url
        yield url, process
    finally:
        process.terminate()
        try:
            assert process.wait(timeout=20) in (0, -signal.SIGKILL)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    few = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")
    simulate(compose(["dataset=heart_disease", *few, f"run_dir={folder}/heart", f"registry_dir={folder}/registry"]))
    Registry(folder / "registry").promote(OLD, reason="a test")
    return folder / "registry"


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "registry"))


def ordered(folder: Path, policy: str, challenger: str = NEW, **options: Any) -> str:
    whole = checked_options(policy, options, challengers=1)
    return order(folder, policy=policy, versions=(challenger,), options=whole, by="a test").id


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.02)


def share(url: str) -> dict[str, float]:
    answer = httpx.get(f"{url}/v2/models/model/release")
    return answer.json()["shares"] if answer.status_code == 200 else {}


def test_a_canary_is_found_split_sticky_and_goes_on_after_kill_9(registry: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = {"steps": [30, 100], "requests": 100_000, **LENIENT}
    with serving(registry, "--log", str(log)) as (url, process):
        name = ordered(registry, "canary", **options)
        began = time.monotonic()
        until(lambda: share(url))
        assert time.monotonic() - began < 3  # within a second, and this machine may be busy
        first = Load(url)
        with first.under_way():
            until(lambda: len(first.arms) == first.users)
            until(lambda: min(map(len, first.arms.values())) > 1)
        asked = first.ids[-3:]
        done = httpx.post(f"{url}/feedback", json={"id": asked[0], "reward": 1})
        assert (done.status_code, done.json()) == (200, {"joined": True})
        time.sleep(1.2)  # two flush intervals
        state = read_state(registry, name)
        process.kill()
        process.wait()
    assert not first.strange and set(first.statuses) == {200}
    assert all(len(set(arms)) == 1 for arms in first.arms.values())
    challenged = {user for user, arms in first.arms.items() if arms[0] == "challenger"}
    assert 0.2 < len(challenged) / first.users < 0.4
    assert state is not None and json.dumps(dict(state.state)).count("challenger")
    with serving(registry, "--log", str(log)) as (url, _):
        assert share(url) == {"champion": 0.7, "challenger": 0.3}  # from the first request on
        second = Load(url)
        with second.under_way():
            until(lambda: len(second.arms) == second.users)
        assert {user for user, arms in second.arms.items() if arms[0] == "challenger"} == challenged
        # Feedback to what the killed server answered is joined, once; and what nobody knows is told apart.
        for body, status in (
            ({"id": asked[1], "label": "disease"}, 200),
            ({"id": asked[1], "label": "disease"}, 409),
            ({"id": asked[0], "reward": 0}, 409),
            ({"id": "no such request", "reward": 0}, 404),
            ({"id": asked[2], "reward": 1.5}, 400),
            ({"id": asked[2], "label": "illness"}, 400),
            ({"id": asked[2]}, 400),
            ({"id": 3, "reward": 1}, 400),
        ):
            answer = httpx.post(f"{url}/feedback", json=body)
            assert answer.status_code == status, answer.text
        ask(registry, name, "promote", reason="a test")
        until(lambda: ending(registry, name))
        until(lambda: not share(url))
        assert httpx.post(f"{url}/predict", json={"rows": [ROW]}).json()["version"] == NEW
    assert Registry(registry).version("champion").name == NEW
    killed, clean = tallies(log)
    assert killed.lost == 0 and clean.lost == 0  # the kill came after a flush
    rows = read(
        log,
        'SELECT arm, version, count(*) AS n, count(DISTINCT "user") AS users FROM records '
        "WHERE kind = 'answer' AND arm <> '' GROUP BY 1, 2",
    )
    assert {(row["arm"], row["version"]) for row in rows} == {("champion", OLD), ("challenger", NEW)}
    assert sum(row["n"] for row in rows) == first.statuses[200] + second.statuses[200]
    assert {row["arm"]: row["users"] for row in rows}["challenger"] == len(challenged)
    rewards = read(log, "SELECT reward FROM records WHERE kind = 'feedback' ORDER BY time")
    assert rewards[0]["reward"] == 1 and len(rewards) == 2


@pytest.mark.slow
def test_two_servers_do_what_one_of_them_leads(registry: Path) -> None:
    options = {"steps": [50, 100], "requests": 100_000, **LENIENT}
    with serving(registry) as (first, _), serving(registry) as (second, _):
        name = ordered(registry, "canary", **options)
        until(lambda: share(first) and share(second))
        loads = [Load(first, users=100), Load(second, users=100)]
        with loads[0].under_way(2), loads[1].under_way(2):
            until(lambda: all(len(load.arms) == load.users for load in loads))
        challenged = sum(load.seen[200, "challenger", NEW] for load in loads)

        def counted() -> int:
            standing = read_state(registry, name)
            return int(standing.state["at_step"].get("challenger", 0)) if standing else 0

        until(lambda: counted() >= challenged)  # what the one counts that does not lead has reached the one that does
        assert counted() == challenged
        ask(registry, name, "promote", reason="a test")
        until(lambda: not share(first) and not share(second))
        for url in (first, second):
            assert httpx.post(f"{url}/predict", json={"rows": [ROW]}).json()["version"] == NEW
    assert not loads[0].strange and not loads[1].strange
    arms = [{user: set(arms) for user, arms in load.arms.items()} for load in loads]
    assert arms[0] == arms[1]  # the same user, the same arm, whichever server is asked


def test_recreate_refuses_while_it_is_closed_and_nothing_else_fails(registry: Path) -> None:
    with serving(registry) as (url, _):
        load = Load(url)
        with load.under_way():
            until(lambda: load.statuses[200] > 20)
            name = ordered(registry, "recreate")
            until(lambda: ending(registry, name))
            until(lambda: load.seen[200, None, NEW])
    assert not load.strange and set(load.statuses) == {200, 503}
    assert "nobody was answered" in decisions(registry, name)[-1]["reason"]


@pytest.mark.slow
def test_replicas_are_replaced_one_by_one(registry: Path) -> None:
    seen = []
    with serving(registry) as (url, _):
        load = Load(url)
        with load.under_way():
            name = ordered(registry, "rolling", replicas=3, requests=20, **LENIENT)
            while ending(registry, name) is None:
                answer = httpx.get(f"{url}/v2/models/model/release")
                if answer.status_code == 200:
                    seen.append(answer.json()["replicas"])
                time.sleep(0.02)
            until(lambda: load.seen[200, None, NEW])
    assert not load.strange and set(load.statuses) == {200}
    running = [sum(replicas.values()) for replicas in seen if replicas.get("challenger")]
    assert running and min(running) >= 2 and max(running) <= 3  # one is away at a time


@pytest.mark.slow
def test_a_challenger_that_crashes_fails_nobody_and_is_rolled_back(registry: Path) -> None:
    broken = planted(registry, "raise")
    with serving(registry) as (url, _):
        load = Load(url)
        with load.under_way():
            name = ordered(registry, "canary", broken, steps=[20, 100], requests=50)
            until(lambda: ending(registry, name))
    assert not load.strange and set(load.statuses) == {200}
    assert ending(registry, name)["ended"] == "rolled back"  # type: ignore[index]
    assert {version for _, _, version in load.seen} == {OLD}
    assert Registry(registry).version("champion").name == OLD


def planted(folder: Path, fault: str) -> str:
    """Commit the new version once more, as a model that has a fault; its name."""
    store = Registry(folder)
    sound = store.version(NEW)
    keep = ("seed", "signature", "metrics", "dataset", "config")
    model = sound.manifest["model"]
    fields = {
        **{key: sound.manifest[key] for key in keep},
        "run_id": fault,
        "round": 0,
        "parent": None,
        "model": {**model, "target": "planted_model.build", "arguments": {**model["arguments"], "fault": fault}},
    }
    store.start_run(fault, {})
    return store.commit(store.parameters(sound), fields).name
