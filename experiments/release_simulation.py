"""Simulated users under a release policy, in virtual time: what the policy would have cost them.

Users come back under ids that stick; load goes up and down over the day; each request is answered by the arm that the
policy's routing gives it, fails or not, takes its time, and earns a reward of 0 or 1 that is known later, or never.
Nothing here serves: the policies are the real ones, and the models are what is said of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fl.decisions import Action, Decision
from fl.releases import CHAMPION, LATENCY_EDGES, Evidence, Figures, Policy, Release, Routing, point
from fl.seeds import generator

if TYPE_CHECKING:
    from fl.parameters import Array

PERIOD = 10.0
"""Seconds between two steps of a policy."""
STOPPING, STARTING = 3, 12
"""Seconds that replicas take to stop and to start, as the simulated fleet of them does it."""
EASE = 0.1
"""Users differ: each one's chance of a reward is the model's plus what is drawn from -EASE to EASE."""
MINORITY = 0.1
"""The share of users for whom a biased model is worse."""


@dataclass(frozen=True)
class Model:
    """A version as users meet it.

    accuracy    chance that an answer is right: its reward;  ``bias`` is added for the minority
    errors      chance that a request fails
    seconds     median of the latency, which is log-normal with a sigma of 0.5
    agreement   chance that a copy is answered like the champion's
    """

    accuracy: float = 0.8
    errors: float = 0.002
    seconds: float = 0.02
    agreement: float = 0.9
    bias: float = 0.0

    @property
    def value(self) -> float:
        """The mean reward of a request, a failed one earning none."""
        return (self.accuracy + MINORITY * self.bias) * (1 - self.errors)


CHAMPION_MODEL = Model()
KINDS: Mapping[str, Model] = {
    "better": Model(accuracy=0.85),
    "worse": Model(accuracy=0.7, agreement=0.75),
    "slower": Model(seconds=0.08),
    "crashing": Model(errors=0.2),
    "biased": Model(accuracy=0.81, bias=-0.2),
}
"""Challengers to a champion with 80 % of answers right. The biased one is better by a point, and worse by 19 for a
minority."""


@dataclass(frozen=True)
class World:
    """Who asks, how often, and when it is known how good an answer was."""

    users: int = 20_000
    per_second: float = 20.0
    feedback_seconds: float = 300.0
    missing: float = 0.4
    seconds: float = 8 * 3600.0


@dataclass(frozen=True)
class Outcome:
    """What a release came to. Until ``seconds`` it was open; regret is of the whole time of the world.

    exposed    fraction of users whom a challenger answered; all of them if it won
    copies     mirrored answers as a fraction of requests while it was open
    regret     rewards lost against giving everybody the best arm from the start, a 1,000 requests
    """

    action: Action
    reason: str
    winner: str
    seconds: float
    requests: int
    downtime: float
    exposed: float
    copies: float
    regret: float


def play(release: Release, policy: Policy, models: Mapping[str, Model], *, seed: int, world: World) -> Outcome:
    """Let simulated users meet a release until it ends, or the world does. The same for the same seed."""
    random = generator(seed, purpose="simulated users")
    users = _Users(release, world, random)
    state, decision = policy.begin(), Decision(Action.HOLD, "")
    value = {name: model.value for name, model in models.items()}
    now, requests, mirrored, closed, lost = 0.0, 0, 0, 0.0, 0.0
    replicas: dict[str, list[float]] = defaultdict(list)
    while now < world.seconds and decision.action not in (Action.PROMOTE, Action.ROLL_BACK, Action.STOP):
        routing = policy.routing(state)
        period = 1.0 if routing.closed else PERIOD
        number = int(random.poisson(_load(world, now) * period))
        requests += number
        if routing.closed:
            closed += period
            lost += number * max(value.values())
            counted: dict[str, Figures] = {}
        else:
            arms = users.assigned(policy, state, routing, number)
            counted = users.answered(routing, arms, models, now, period)
            mirrored += len(routing.mirrors) * number
            lost += sum(
                (max(value.values()) - value[name]) * int((arms[1] == k).sum()) for k, name in enumerate(models)
            )
        now += period
        ready = _ready(replicas, routing, now)
        state, decision = policy.step(state, Evidence(counted, now - period, now, ready))
    winner = state.get("winner", CHAMPION)
    after = sum(_load(world, t) for t in np.arange(now, world.seconds, 600.0)) * 600.0
    lost += after * (max(value.values()) - value[winner])
    exposed = 1.0 if winner != CHAMPION else float(users.seen[1:].any(axis=0).mean())
    ended = decision.action if "ended" in state else Action.HOLD
    return Outcome(
        ended,
        decision.reason,
        winner,
        now,
        requests,
        closed,
        exposed,
        mirrored / max(1, requests),
        1000 * lost / (requests + after),
    )


def _load(world: World, now: float) -> float:
    """Requests a second: half as many more at the peak of the day, half as many at its low."""
    return world.per_second * (1 + 0.5 * math.sin(2 * math.pi * now / 86_400))


def _ready(replicas: dict[str, list[float]], routing: Routing, now: float) -> dict[str, int]:
    """How many replicas of each arm are ready, after those that the routing asks for were started or stopped."""
    if routing.replicas is None:
        return {}
    for name, wanted in routing.replicas.items():
        if name not in replicas and name == CHAMPION:
            replicas[name] = [0.0] * max(wanted, 1)
        while len(replicas[name]) < wanted:
            replicas[name].append(now + STARTING)
        if len(replicas[name]) > wanted and now > STOPPING:
            del replicas[name][wanted:]
    return {name: sum(at <= now for at in known) for name, known in replicas.items()}


class _Users:
    """The users of a world, what they have met, and the feedback that is under way."""

    def __init__(self, release: Release, world: World, random: np.random.Generator) -> None:
        self.release, self.world, self.random = release, world, random
        self.names = release.names
        self.ids = [f"user-{n}" for n in range(world.users)]
        self.points = np.array([point(salt=release.id, user=user) for user in self.ids])
        self.ease = random.uniform(-EASE, EASE, world.users)
        self.minority = random.random(world.users) < MINORITY
        self.seen = np.zeros((len(self.names), world.users), bool)
        self.told = np.zeros(world.users, bool)
        self.due: dict[int, list[tuple[int, Array, Array]]] = defaultdict(list)
        self.flagged: Array | None = None

    def assigned(self, policy: Policy, state: Any, routing: Routing, number: int) -> tuple[Array, Array]:
        """Users of so many requests, and the arm of each, by its number."""
        users = self.random.integers(0, self.world.users, number)
        ends, names = routing.pieces(None)
        points = self.points[users] if routing.sticky else self.random.random(number)
        numbers = np.array([self.names.index(name) for name in names])
        arms = numbers[np.minimum(np.searchsorted(ends, points, side="right"), len(names) - 1)]
        if routing.flagged:
            if self.flagged is None:
                said = [policy.arm_for(state, user, None) for user in self.ids]
                self.flagged = np.array([-1 if arm is None else self.names.index(arm) for arm in said])
            arms = np.where(self.flagged[users] >= 0, self.flagged[users], arms)
        return users, arms

    def answered(
        self, routing: Routing, assigned: tuple[Array, Array], models: Mapping[str, Model], now: float, period: float
    ) -> dict[str, Figures]:
        """What is counted of each arm: its answers, its copies, and the feedback that has come by now."""
        users, arms = assigned
        counted = {}
        for k, name in enumerate(self.names):
            mine = users[arms == k]
            counted[name] = self._requests(models[name], mine, k)
            if name in routing.mirrors:
                counted[name] = counted[name] + self._copies(models[name], len(users))
            self._await_feedback(models[name], mine, k, now)
        come = [one for b in [b for b in self.due if b * PERIOD <= now + period] for one in self.due.pop(b)]
        for k, name in enumerate(self.names):
            of_it = [(whose, rewards) for arm, whose, rewards in come if arm == k]
            if of_it:
                whose, rewards = (np.concatenate(parts) for parts in zip(*of_it, strict=True))
                counted[name] = counted[name] + self._feedback(whose, rewards)
        return counted

    def _requests(self, model: Model, users: Array, arm: int) -> Figures:
        fresh = np.unique(users[~self.seen[arm, users]])
        self.seen[arm, fresh] = True
        errors, latencies = self._served(model, len(users))
        return Figures(requests=len(users), errors=errors, users=len(fresh), latency_counts=latencies)

    def _copies(self, model: Model, number: int) -> Figures:
        errors, latencies = self._served(model, number)
        agreed = int(self.random.binomial(number - errors, model.agreement))
        return Figures(requests=number, errors=errors, latency_counts=latencies, compared=number, agreed=agreed)

    def _served(self, model: Model, number: int) -> tuple[int, tuple[int, ...]]:
        seconds = model.seconds * np.exp(0.5 * self.random.standard_normal(number))
        bins = np.searchsorted(LATENCY_EDGES, seconds, side="right")
        counts = np.bincount(bins, minlength=len(LATENCY_EDGES) + 1).tolist()
        return int(self.random.binomial(number, model.errors)), tuple(counts)

    def _await_feedback(self, model: Model, users: Array, arm: int, now: float) -> None:
        random, world = self.random, self.world
        users = users[random.random(len(users)) >= 1 - (1 - world.missing) * (1 - model.errors)]
        chance = model.accuracy + self.ease[users] + model.bias * self.minority[users]
        rewards = (random.random(len(users)) < chance).astype(float)
        buckets = ((now + random.exponential(world.feedback_seconds, len(users))) // PERIOD + 1).astype(int)
        for bucket in np.unique(buckets):
            mine = buckets == bucket
            self.due[int(bucket)].append((arm, users[mine], rewards[mine]))

    def _feedback(self, users: Array, rewards: Array) -> Figures:
        _, earliest = np.unique(users, return_index=True)
        first = earliest[~self.told[users[earliest]]]
        self.told[users] = True
        total, of_users = float(rewards.sum()), float(rewards[first].sum())
        return Figures(
            rewards=len(users),
            reward_sum=total,
            reward_squares=total,
            user_rewards=len(first),
            user_reward_sum=of_users,
            user_reward_squares=of_users,
        )
