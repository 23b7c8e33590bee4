"""`fl traffic`: simulated users who ask a server over HTTP, and say later, or never, what the right answer was.

Each user has an id and asks as often as people do: few of them much, most of them little, more by day than by night.
Questions are real: the test examples that the served version's run left in the registry, so that feedback tells which
version answers better. Nothing is known here of releases but what the answers' heads say.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

NIGHT, DAY = 0.4, 1.6
"""Of the mean rate: how many ask when the fewest do, and when the most do."""

NO_ARM = "-"
LAST_FEEDBACK_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """Who asks, and how.

    users, requests   of each, in all
    connections       at a time; with ``rate`` 0 each asks again as soon as it is answered
    rate              requests a second, on average over a day of ``day_seconds``
    feedback          the share of answers that somebody reacts to, ``delay_seconds`` later on average
    """

    users: int = 1000
    requests: int = 2000
    connections: int = 8
    rate: float = 0.0
    day_seconds: float = 60.0
    feedback: float = 0.5
    delay_seconds: float = 0.5
    seed: int = 1


@dataclass
class Seen:
    """What the users of one arm saw."""

    users: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)


@dataclass
class Traffic:
    """What all of them saw. Status 0: no answer at all. ``feedback``: statuses of what they said later."""

    statuses: Counter[int] = field(default_factory=Counter)
    feedback: Counter[int] = field(default_factory=Counter)
    arms: dict[str, Seen] = field(default_factory=dict)
    arm_of: dict[int, str] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        answered = [second for arm in self.arms.values() for second in arm.seconds]
        return {
            "requests": self.statuses.total(),
            "failed": self.statuses.total() - self.statuses[200],
            "statuses": {str(status): times for status, times in sorted(self.statuses.items())},
            "feedback": {str(status): times for status, times in sorted(self.feedback.items())},
            "seconds": self.seconds,
            "requests_per_second": self.statuses.total() / max(self.seconds, 1e-9),
            **_latency(answered),
            "users": len(self.arm_of),
            "users_who_changed_arms": len(self.moved),
            "arms": {name: self._arm(seen, len(answered)) for name, seen in sorted(self.arms.items())},
        }

    def _arm(self, seen: Seen, answered: int) -> dict[str, Any]:
        return {
            "versions": sorted(seen.versions),
            "requests": len(seen.seconds),
            "share": len(seen.seconds) / max(answered, 1),
            "users": len(seen.users),
            "mean_reward": float(np.mean(seen.rewards)) if seen.rewards else None,
            **_latency(seen.seconds),
        }


@dataclass(frozen=True)
class Questions:
    """Rows (n, ...) as /predict takes them, what is right for each, and how an answer is rewarded."""

    rows: Sequence[Any]
    targets: Array
    labels: Sequence[str]

    def reaction(self, number: int, prediction: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """What the user says of the answer to a question: the right label, or for a value how close it came."""
        target = self.targets[number]
        if "value" in prediction:
            spread = float(np.std(self.targets)) or 1.0
            reward = max(0.0, 1.0 - abs(float(prediction["value"]) - float(target)) / (2 * spread))
            return {"reward": reward}, reward
        label = self.labels[int(target)]
        return {"label": label}, float(prediction["label"] == label)


def traffic(url: str, *, registry: Path, plan: Plan) -> Traffic:
    """Ask the server at ``url`` as ``plan`` says. Raises BadInput before the first question."""
    return asyncio.run(_traffic(url.rstrip("/"), registry, plan))


async def _traffic(url: str, registry: Path, plan: Plan) -> Traffic:
    import httpx

    limits = httpx.Limits(max_connections=plan.connections)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        try:
            about = (await client.get("/v2/models/model")).json()
            version = about["versions"][0]
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            got = f"{url} ({type(error).__name__})"
            raise BadInput(key="URL", got=got, allowed="where fl serve listens, http://HOST:PORT") from error
        return await ask(client, questions(registry, version, about["parameters"]["labels"]), plan)


def questions(registry: Path, version: str, labels: Sequence[str]) -> Questions:
    """The test examples of the run that ``version`` came from. Raises BadInput where it left none."""
    from fl.registry import Registry

    store = Registry.existing(registry)
    found = store.examples(store.version(version).run_id)
    if found is None:
        raise BadInput(key="--registry", got=str(registry), allowed=f"one with test examples of the run of {version}")
    x, y = found
    holes = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    plain = x.astype(object)
    plain[holes] = None
    return Questions(plain.tolist(), y.reshape(len(y), -1)[:, -1], list(labels) or [str(k) for k in range(10_000)])


async def ask(client: Any, asked: Questions, plan: Plan) -> Traffic:
    """Ask over ``client``, of httpx, until all has been asked and said."""
    seen, later = Traffic(), set[asyncio.Task[None]]()
    draw = generator(plan.seed, purpose="traffic")
    weights = 1.0 / np.arange(1, plan.users + 1) ** 0.5  # few ask much
    users = draw.choice(plan.users, size=plan.requests, p=weights / weights.sum()).tolist()
    numbers = draw.integers(len(asked.rows), size=plan.requests).tolist()
    reacts = draw.random(plan.requests) < plan.feedback
    delays = draw.exponential(plan.delay_seconds, size=plan.requests)
    gaps = draw.exponential(1.0, size=plan.requests)
    began, turn = time.monotonic(), iter(range(plan.requests))
    free = asyncio.Semaphore(plan.connections)

    async def one(place: int) -> None:
        answered = await _question(client, asked, seen, user=users[place], number=numbers[place])
        if answered is not None and reacts[place]:
            task = asyncio.create_task(_react(client, seen, answered, delays[place]))
            later.add(task)
            task.add_done_callback(later.discard)

    async def pressing() -> None:
        for place in turn:
            await one(place)

    async def leisurely() -> None:
        under_way = set[asyncio.Task[None]]()

        async def then_free(place: int) -> None:
            try:
                await one(place)
            finally:
                free.release()

        due = 0.0
        for place in turn:
            due += gaps[place] / (plan.rate * by_day(due, plan.day_seconds))
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            await free.acquire()
            task = asyncio.create_task(then_free(place))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    await asyncio.gather(*([leisurely()] if plan.rate else [pressing() for _ in range(plan.connections)]))
    seen.seconds = time.monotonic() - began
    if later:
        await asyncio.wait(later, timeout=LAST_FEEDBACK_SECONDS)
    return seen


def by_day(seconds: float, day_seconds: float) -> float:
    """How many ask at a time of the day, as a multiple of the mean; night falls where a day begins."""
    return (DAY + NIGHT) / 2 - (DAY - NIGHT) / 2 * math.cos(2 * math.pi * seconds / day_seconds)


async def _question(
    client: Any, asked: Questions, seen: Traffic, *, user: int, number: int
) -> tuple[str, Seen, dict[str, Any], float] | None:
    """Ask; the request's id, the arm, and what is to be said of the answer; None if there was none."""
    import httpx

    began = time.perf_counter()
    try:
        answer = await client.post(
            "/predict", json={"rows": [asked.rows[number]]}, headers={"X-User-Id": f"user-{user}"}
        )
    except httpx.HTTPError:
        seen.statuses[0] += 1
        return None
    took = time.perf_counter() - began
    seen.statuses[answer.status_code] += 1
    if answer.status_code != 200:
        return None
    name = answer.headers.get("x-meadow-arm", NO_ARM)
    arm = seen.arms.setdefault(name, Seen())
    arm.users.add(user)
    arm.seconds.append(took)
    arm.versions.add(answer.headers.get("x-meadow-version", ""))
    if seen.arm_of.setdefault(user, name) != name:
        seen.moved.add(user)
    said, reward = asked.reaction(number, answer.json()["predictions"][0])
    return answer.headers["x-request-id"], arm, said, reward


async def _react(client: Any, seen: Traffic, answered: tuple[str, Seen, dict[str, Any], float], delay: float) -> None:
    import httpx

    number, arm, said, reward = answered
    await asyncio.sleep(delay)
    try:
        status = (await client.post("/feedback", json={"id": number, **said})).status_code
    except httpx.HTTPError:
        status = 0
    seen.feedback[status] += 1
    if status == 200:
        arm.rewards.append(reward)


def _latency(seconds: Sequence[float]) -> dict[str, float | None]:
    known = {"p50_ms": 0.5, "p99_ms": 0.99}
    return {name: 1000 * float(np.quantile(seconds, q)) if seconds else None for name, q in known.items()}


def show(seen: Traffic) -> None:
    """Print what was seen: a line, and a table with a row an arm."""
    from experiments.printing import print_table

    told = seen.to_dict()
    statuses = ", ".join(f"{times} x {status}" for status, times in told["statuses"].items())
    print(f"{told['requests']} requests of {told['users']} users in {told['seconds']:.1f} s: {statuses}")
    print(f"{told['users_who_changed_arms']} users changed arms; feedback: {told['feedback'] or 'none'}")
    columns = ["arm", "version", "requests", "share", "users", "reward", "p50", "p99"]
    rows = [
        [
            *(name, " ".join(arm["versions"]), arm["requests"], f"{arm['share']:.1%}", arm["users"]),
            "" if arm["mean_reward"] is None else f"{arm['mean_reward']:.3f}",
            *(f"{arm[key]:.1f} ms" for key in ("p50_ms", "p99_ms")),
        ]
        for name, arm in told["arms"].items()
    ]
    if rows:
        print_table(columns, rows)
