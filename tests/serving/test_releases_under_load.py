"""Releases while users ask without a pause: nobody fails, everybody stays where the policy put them, harm ends soon."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from experiments.bench.drivers.http_load import Load as Unpaused
from experiments.bench.drivers.http_load import request_of
from experiments.traffic import Plan, Traffic, traffic
from fl.deployment import checked_options
from fl.registry import Registry
from fl.registry.releases import ask, decisions, ending, order, read_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(590)]

Serving: TypeAlias = Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]

OLD, NEW = "heart:1", "heart:2"
SWITCHES, REQUESTS, CONNECTIONS = 50, 20_000, 8
LENIENT = {"errors": 0.9, "latency": 1.0, "quality": 0.9}
ROW = b'{"rows": [{"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": null, "thalach": 150, "oldpeak": 2.3}]}'

# Each as quick as it can be: what is tested is the switch, not what is decided. Those of ENDED_BY_HAND end when told.
QUICK: dict[str, dict[str, Any]] = {
    "recreate": {},
    "rolling": {"replicas": 2, "requests": 5, **LENIENT},
    "blue_green": {"requests": 5, "agreement": 0.0, "keep_seconds": 0.0, **LENIENT},
    "canary": {"steps": [50, 100], "requests": 5, **LENIENT},
    "shadow": {"requests": 5},
    "ab_test": {"errors": 0.9, "latency": 1.0},
    "bandit": {"errors": 0.9, "latency": 1.0},
    "feature_flag": {"value": True, **LENIENT},
}
ENDED_BY_HAND = ("ab_test", "bandit", "feature_flag")


@dataclass
class Load:
    """Connections that ask without a pause, and what they were answered."""

    url: str
    seen: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    arms: dict[str, str | None] = field(default_factory=dict)

    async def _one(self, client: httpx.AsyncClient, user: str) -> None:
        began = time.perf_counter()
        try:
            answer = await client.post("/predict", content=ROW, headers={"X-User-Id": user})
        except httpx.TransportError as error:
            self.strange.append(repr(error))
            return
        self.seconds.append(time.perf_counter() - began)
        self.seen[answer.status_code, answer.headers.get("x-meadow-version")] += 1
        self.arms[user] = answer.headers.get("x-meadow-arm")
        if answer.status_code == 503 and answer.headers.get("retry-after") != "1":
            self.strange.append(answer.text)

    async def _all(self, users: Iterator[str], goes_on: Callable[[], bool]) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS)
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=60) as client:

            async def connection() -> None:
                while goes_on() and (user := next(users, None)) is not None:
                    await self._one(client, user)

            await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))

    def of(self, users: Iterator[str]) -> Load:
        """Each of ``users`` asks once."""
        asyncio.run(self._all(users, lambda: True))
        return self

    @contextmanager
    def under_way(self, *, least: int) -> Iterator[None]:
        """1,000 users ask until the block ends, and until there were ``least`` requests."""
        ended = threading.Event()
        users = (f"user-{n % 1000}" for n in itertools.count())
        thread = threading.Thread(target=lambda: asyncio.run(self._all(users, lambda: not ended.is_set())))
        thread.start()
        try:
            yield
            until(lambda: self.seen.total() >= least, 120)
        finally:
            ended.set()
            thread.join()

    @property
    def statuses(self) -> set[int]:
        return {status for status, _ in self.seen}


def until(holds: Callable[[], object], seconds: float = 30.0) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - began


def ordered(folder: Path, policy: str, challenger: str = NEW, **options: Any) -> str:
    whole = checked_options(policy, options, challengers=1)
    return order(folder, policy=policy, versions=(challenger,), options=whole, by="a test").id


def release_of(url: str) -> dict[str, Any] | None:
    answer = httpx.get(f"{url}/v2/models/model/release")
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.parametrize("policy", QUICK)
def test_fifty_switches_under_load_fail_nobody(policy: str, heart: Path, serving: Serving) -> None:
    took = []
    with serving(heart) as (url, _):
        load = Load(url)
        with load.under_way(least=REQUESTS):
            for number in range(SWITCHES):
                before, after = (OLD, NEW) if number % 2 == 0 or policy == "shadow" else (NEW, OLD)
                answered = load.seen[200, after]
                began = time.monotonic()
                name = ordered(heart, policy, after, **QUICK[policy])
                if policy in ENDED_BY_HAND:
                    until(lambda name=name: read_state(heart, name))
                    ask(heart, name, "promote", reason="a test")
                until(lambda name=name: ending(heart, name))
                if policy == "shadow":
                    assert load.seen[200, NEW] == 0
                    continue
                until(lambda answered=answered, after=after: load.seen[200, after] > answered + 10)
                until(lambda: release_of(url) is None)
                took.append(time.monotonic() - began)
                assert Registry(heart).version("champion").name == after != before
    print(f"{policy}: {load.seen.total()} requests, {dict(load.seen)}; a switch {statistics.median(took or [0]):.2f} s")
    assert not load.strange
    assert load.statuses == ({200, 503} if policy == "recreate" else {200})
    assert load.seen.total() >= REQUESTS
    assert {version for status, version in load.seen if status == 200} <= {OLD, NEW}
    assert len(decisions(heart, name)) > 0


@pytest.mark.parametrize(
    "policy, options, share",
    [("canary", {"steps": [30, 100], "requests": 10**6, **LENIENT}, 0.3), ("ab_test", {}, 0.5)],
)
def test_users_are_split_as_ordered_and_stay_where_they_are(
    policy: str, options: dict[str, Any], share: float, heart: Path, serving: Serving
) -> None:
    with serving(heart) as (url, process):
        ordered(heart, policy, **options)
        until(lambda: release_of(url))
        first = Load(url).of(f"user-{n}" for n in range(REQUESTS))
        again = Load(url).of(f"user-{n}" for n in range(0, REQUESTS, 4))
        process.kill()
        process.wait()
    with serving(heart) as (url, _):
        later = Load(url).of(f"user-{n}" for n in range(0, REQUESTS, 4))
    for asked in (first, again, later):
        assert not asked.strange
        assert asked.statuses == {200}
    found = Counter(first.arms.values())["challenger"] / REQUESTS
    print(f"{policy}: {found:.4f} of {REQUESTS} users, {share} ordered")
    assert abs(found - share) < 0.01
    for asked in (again, later):
        assert all(first.arms[user] == arm for user, arm in asked.arms.items())


@pytest.mark.parametrize("fault", ["exit", "raise", "hang"])
def test_a_shadow_that_fails_costs_users_nothing(
    fault: str, heart: Path, serving: Serving, planted: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """Against a server without a release, over eight connections. A turn is short, and a p99 is taken of ten of them:
    what else the machine does meets both.
    """
    name = planted(heart, fault)
    other = Path(shutil.copytree(heart, tmp_path / "other"))
    ordered(other, "shadow", name, requests=10**6)
    request = request_of("/predict", ROW, {})
    with serving(heart) as (alone, _), serving(other) as (shadowed, _):
        until(lambda: release_of(shadowed))

        async def ask_both() -> tuple[float, float]:
            loads = {url: Unpaused() for url in (alone, shadowed)}
            for turn in range(10):
                for url in (alone, shadowed) if turn % 2 else (shadowed, alone):
                    port = httpx.URL(url).port or 0
                    asking = partial(loads[url].run, host="127.0.0.1", port=port, request=request)
                    await asking(connections=CONNECTIONS, seconds=0.15)
            assert all(set(load.statuses) <= {200, 0} and not load.statuses[0] for load in loads.values())
            first, second = (float(np.quantile(load.seconds, 0.99)) for load in loads.values())
            return first, second

        asyncio.run(ask_both())
        p99 = [asyncio.run(ask_both()) for _ in range(20)]
        failures = (release_of(shadowed) or {})["mirrors"]["challenger"]["failures"]
    assert failures
    # The machine's own unrest moves a p99 by more than is asked for here: what counts is what stands out of that.
    ratios = np.log([failing / without for without, failing in p99])
    ratio, noise = float(np.median(ratios)), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))
    without_99 = statistics.median(without for without, _ in p99)
    print(f"{fault}: p99 {np.exp(ratio):.3f} (+- {noise:.3f}) of {without_99:.5f} s; {failures} failures")
    assert ratio - 2 * noise < np.log(1.05)


def test_a_worse_challenger_is_gone_before_one_user_in_twenty_saw_it(
    heart: Path, serving: Serving, planted: Callable[[Path, str], str]
) -> None:
    """Simulated users tell later, and not all of them, what would have been right; it answers wrongly to most."""
    worse = planted(heart, "worse")
    seen: list[Traffic] = []
    with serving(heart) as (url, _):
        name = ordered(heart, "canary", worse, steps=[3, 10, 50, 100], requests=500)
        until(lambda: release_of(url))
        ends = time.monotonic() + 400
        while ending(heart, name) is None and time.monotonic() < ends:
            plan = Plan(users=10_000, requests=4000, connections=CONNECTIONS, delay_seconds=0.2, seed=len(seen))
            seen.append(traffic(url, registry=heart, plan=plan))
        found = ending(heart, name)
        until(lambda: release_of(url) is None)
    assert found is not None
    assert found["ended"] == "rolled back", found
    assert "quality" in found["reason"]
    everybody = set().union(*(one.arm_of for one in seen))
    exposed = set().union(*(one.arms["challenger"].users for one in seen if "challenger" in one.arms))
    print(f"{len(exposed)} of {len(everybody)} users saw it, in {sum(one.statuses.total() for one in seen)} requests")
    assert 0 < len(exposed) < 0.05 * len(everybody)
    assert all(set(one.statuses) == {200} for one in seen)
    assert Registry(heart).version("champion").name == OLD
