"""A release behind HTTP, as its users meet it: real servers, real requests, and the policies of `fl deploy`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from experiments.serve import Source, application_of
from fl.deployment import checked_options
from fl.inference_log.files import read, tallies
from fl.registry import Registry
from fl.registry.releases import ask, decisions, ending, order, read_state
from fl.serving.batching import Batcher
from fl.serving.service import Limits

ROW = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "thalach": 150, "oldpeak": 2.3}
LENIENT = {"errors": 0.9, "latency": 1.0, "quality": 0.9}
OLD, NEW = "heart:1", "heart:2"

Serving: TypeAlias = Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]


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


def test_a_canary_is_found_split_sticky_and_goes_on_after_kill_9(heart: Path, tmp_path: Path, serving: Serving) -> None:
    log = tmp_path / "log"
    options = {"steps": [30, 100], "requests": 100_000, **LENIENT}
    with serving(heart, "--log", str(log)) as (url, process):
        name = ordered(heart, "canary", **options)
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
        state = read_state(heart, name)
        process.kill()
        process.wait()
    assert not first.strange and set(first.statuses) == {200}
    assert all(len(set(arms)) == 1 for arms in first.arms.values())
    challenged = {user for user, arms in first.arms.items() if arms[0] == "challenger"}
    assert 0.2 < len(challenged) / first.users < 0.4
    assert state is not None and json.dumps(dict(state.state)).count("challenger")
    with serving(heart, "--log", str(log)) as (url, _):
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
        ask(heart, name, "promote", reason="a test")
        until(lambda: ending(heart, name))
        until(lambda: not share(url))
        assert httpx.post(f"{url}/predict", json={"rows": [ROW]}).json()["version"] == NEW
    assert Registry(heart).version("champion").name == NEW
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
def test_two_servers_do_what_one_of_them_leads(heart: Path, serving: Serving) -> None:
    options = {"steps": [50, 100], "requests": 100_000, **LENIENT}
    with serving(heart) as (first, _), serving(heart) as (second, _):
        name = ordered(heart, "canary", **options)
        until(lambda: share(first) and share(second))
        loads = [Load(first, users=100), Load(second, users=100)]
        with loads[0].under_way(2), loads[1].under_way(2):
            until(lambda: all(len(load.arms) == load.users for load in loads))
        challenged = sum(load.seen[200, "challenger", NEW] for load in loads)

        def counted() -> int:
            standing = read_state(heart, name)
            return int(standing.state["at_step"].get("challenger", 0)) if standing else 0

        until(lambda: counted() >= challenged)  # what the one counts that does not lead has reached the one that does
        assert counted() == challenged
        ask(heart, name, "promote", reason="a test")
        until(lambda: not share(first) and not share(second))
        for url in (first, second):
            assert httpx.post(f"{url}/predict", json={"rows": [ROW]}).json()["version"] == NEW
    assert not loads[0].strange and not loads[1].strange
    arms = [{user: set(arms) for user, arms in load.arms.items()} for load in loads]
    assert arms[0] == arms[1]  # the same user, the same arm, whichever server is asked


def test_recreate_refuses_while_it_is_closed_and_nothing_else_fails(heart: Path, serving: Serving) -> None:
    with serving(heart) as (url, _):
        load = Load(url)
        with load.under_way():
            until(lambda: load.statuses[200] > 20)
            name = ordered(heart, "recreate")
            until(lambda: ending(heart, name))
            until(lambda: load.seen[200, None, NEW])
    assert not load.strange and set(load.statuses) == {200, 503}
    assert "nobody was answered" in decisions(heart, name)[-1]["reason"]


@pytest.mark.slow
def test_replicas_are_replaced_one_by_one(heart: Path, serving: Serving) -> None:
    seen = []
    with serving(heart) as (url, _):
        load = Load(url)
        with load.under_way():
            name = ordered(heart, "rolling", replicas=3, requests=20, **LENIENT)
            while ending(heart, name) is None:
                answer = httpx.get(f"{url}/v2/models/model/release")
                if answer.status_code == 200:
                    seen.append(answer.json()["replicas"])
                time.sleep(0.02)
            until(lambda: load.seen[200, None, NEW])
    assert not load.strange and set(load.statuses) == {200}
    running = [sum(replicas.values()) for replicas in seen if replicas.get("challenger")]
    assert running and min(running) >= 2 and max(running) <= 3  # one is away at a time


def test_what_was_counted_outlives_a_clean_stop(heart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what came since a state was written last, which is not at each step."""
    monkeypatch.setattr("fl.serving.steering.KEEP_SECONDS", 1000.0)
    name = ordered(heart, "canary", steps=[50, 100], requests=10**6, **LENIENT)
    app, slots = application_of(
        {"model": "champion"},
        Source(heart, "torch"),
        batcher=Batcher(),
        limits=Limits(),
        tokens=(),
        releases=True,
        lookup=None,
        log=None,
    )

    async def main() -> None:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://meadow") as client:
                await asyncio.sleep(0.6)  # the first step is kept, of those that follow nothing
                for _ in range(20):
                    assert (await client.post("/predict", json={"rows": [ROW]})).status_code == 200
            await asyncio.sleep(1.0)
            assert counted() == 0
            router = slots["model"].router
            assert router is not None and sum(one["requests"] for one in router.state["figures"].values()) == 20

    def counted() -> int:
        standing = read_state(heart, name)
        return sum(one["requests"] for one in standing.state["figures"].values()) if standing else 0

    asyncio.run(main())
    assert counted() == 20


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "raise"])
def test_what_a_shadow_said_is_in_the_log_beside_what_its_user_was_told(
    fault: str | None, heart: Path, tmp_path: Path, serving: Serving, planted: Callable[[Path, str], str]
) -> None:
    shadow, log = NEW if fault is None else planted(heart, fault), tmp_path / "log"
    with serving(heart, "--log", str(log)) as (url, _):
        name = ordered(heart, "shadow", shadow, requests=20)
        until(lambda: share(url))
        load = Load(url)
        with load.under_way():
            until(lambda: ending(heart, name))
    assert not load.strange and {version for _, _, version in load.seen} == {OLD}
    told = {row["id"]: row for row in read(log, "SELECT id, outputs FROM records WHERE kind = 'answer'")}
    said = read(log, "SELECT id, user, version, release, arm, status, outputs FROM records WHERE kind = 'mirror'")
    assert len(said) >= 20 and {row["id"] for row in said} <= told.keys()
    status = 200 if fault is None else 500
    assert {(row["version"], row["release"], row["arm"], row["status"]) for row in said} == {
        (shadow, name, "challenger", status)
    }
    for row in said:  # another version: other scores, and none where it raised
        assert row["user"] is None
        assert row["outputs"] != told[row["id"]]["outputs"] and (row["outputs"] is None) == (fault is not None)


@pytest.mark.slow
def test_a_challenger_that_crashes_fails_nobody_and_is_rolled_back(
    heart: Path, serving: Serving, planted: Callable[[Path, str], str]
) -> None:
    broken = planted(heart, "raise")
    with serving(heart) as (url, _):
        load = Load(url)
        with load.under_way():
            name = ordered(heart, "canary", broken, steps=[20, 100], requests=50)
            until(lambda: ending(heart, name))
    assert not load.strange and set(load.statuses) == {200}
    assert ending(heart, name)["ended"] == "rolled back"  # type: ignore[index]
    assert {version for _, _, version in load.seen} == {OLD}
    assert Registry(heart).version("champion").name == OLD
