"""Which version answers a request while a release is open, and what is counted of it.

A router holds the arms' models, each with a queue of its own, so that one that is slow or hangs does not keep the
others waiting. What it applies is one object that is replaced as a whole: a request sees the old routing or the new
one. All of this happens in the thread that answers, and none of it waits, locks or touches a disk.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from fl.parameters import Array
from fl.releases import CHAMPION, Evidence, Figures, Policy, Release, Routing, State, arm_at, assigned, everything_to
from fl.serving.answered import Answered
from fl.serving.batching import Batcher
from fl.serving.counting import Count, Seen, added
from fl.serving.mirrors import Compared, Mirror
from fl.serving.model import Model

ARM_SECONDS = 2.0
"""A challenger that has not answered by then is taken to hang, and the champion answers in its place."""


@dataclass(eq=False, slots=True)
class Lane:
    """A replica: a loaded model and its own queue. ``busy``: requests that it has and has not answered."""

    arm: str
    model: Model
    batcher: Batcher
    busy: int = 0


@dataclass(frozen=True)
class Applied:
    """What a router does now: a routing, and the replicas and shadows that it has for it."""

    routing: Routing
    lanes: Mapping[str, tuple[Lane, ...]] = field(default_factory=dict)
    mirrors: tuple[Mirror, ...] = ()


class Closed(Exception):
    """Nobody is answered now."""


@final
class Router:
    """Of one open release."""

    def __init__(self, release: Release, policy: Policy, state: State) -> None:
        self.release, self.policy, self.state = release, policy, state
        self.applied = Applied(Routing(everything_to(CHAMPION, release.names)))
        self.closed_seconds = 0.0
        self.seen = Seen(release.id)
        self.trouble: dict[str, str] = {}
        self._counts = {name: Count() for name in release.names}
        self._since = time.time()
        self._closed_at: float | None = None
        self._mirrored = 0.0
        self._chance = random.Random().random
        self._sole: Lane | None = None  # who answers everybody

    # --- a request

    def lane(self, number: str | None, *, user: str | None, context: str | None) -> Lane:
        """The replica that is to answer; ``number``: the id that the asker gave the request. Raises Closed.

        Whoever tells neither a user nor an id gets what chance says: a hash of an id that was made here takes longer.
        """
        if self._sole is not None:
            return self._sole
        now = self.applied
        routing = now.routing
        if routing.closed or not now.lanes:
            raise Closed
        arm = None
        if routing.flagged and user is not None:
            arm = self.policy.arm_for(self.state, user, context)
        if arm is None:
            who = user if routing.sticky and user is not None else number
            if who is None:
                arm = arm_at(routing, self._chance, context)
            else:
                arm = assigned(routing, salt=self.release.id, user=who, context=context)
        lanes = now.lanes.get(arm) or self.other(arm)
        return lanes[0] if len(lanes) == 1 else min(lanes, key=_busy)

    def other(self, arm: str) -> tuple[Lane, ...]:
        """The replicas that answer in place of an arm: the champion's, or whoever's there are."""
        lanes = self.applied.lanes
        return lanes.get(CHAMPION) or next(iter(lanes.values()))

    def instead(self, lane: Lane) -> Lane | None:
        """Who answers in place of a challenger that failed; None where it was the champion."""
        lanes = self.applied.lanes.get(CHAMPION)
        return None if lane.arm == CHAMPION or not lanes else lanes[0]

    def answered(self, lane: Lane, *, user: str | None, seconds: float, failed: bool = False) -> None:
        """Count an answer of a replica, or that it failed."""
        count = self._counts[lane.arm]
        count.answered(seconds, failed=failed)
        if user is not None and self.seen.first("answered", lane.arm, user):
            count.users += 1

    def mirror(self, lane: Lane, number: str, *, inputs: Array, outputs: Array) -> None:
        """Hand a copy of what the champion answered to the shadows."""
        now = self.applied
        if not now.mirrors or lane.arm != CHAMPION:
            return
        self._mirrored += now.routing.mirrored_share
        if self._mirrored >= 1.0:
            self._mirrored -= 1.0
            for mirror in now.mirrors:
                mirror.offer(number, inputs, outputs)

    def rewarded(self, answer: Answered, reward: float) -> None:
        """Feedback came to an answer that was given in this release."""
        if answer.release == self.release.id and answer.arm in self._counts:
            first = answer.user is not None and self.seen.first("rewarded", answer.user)
            self._counts[answer.arm].rewarded(reward, context=answer.context, first_of_user=first)

    # --- a step

    def apply(self, applied: Applied) -> None:
        """From now on."""
        now = time.monotonic()
        if self._closed_at is not None:
            self.closed_seconds += now - self._closed_at
        self._closed_at = now if applied.routing.closed else None
        self.applied = applied
        self._sole = _sole(applied)

    def take(self) -> tuple[dict[str, Figures], list[tuple[Mirror, Compared]]]:
        """What has been counted since the last call, by arm, and what the shadows said."""
        counts, self._counts = self._counts, {name: Count() for name in self.release.names}
        said = [(mirror, compared) for mirror in self.applied.mirrors for compared in mirror.take()]
        for mirror, compared in said:
            count, times = counts[mirror.arm], len(compared.copies)
            count.answered(compared.seconds, failed=not compared.answers, times=times)
            count.compared += times if compared.answers else 0
            count.agreed += compared.agreed
        return {arm: count.figures() for arm, count in counts.items() if any(count.latencies) or count.rewards[0]}, said

    def evidence(self, figures: list[dict[str, Figures]]) -> Evidence:
        """Figures of all servers since the last evidence, and which replicas are ready."""
        arms = added(figures)
        for arm in self.trouble:  # a version that cannot be loaded fails whoever is sent to it
            arms[arm] = arms.get(arm, Figures()) + _failure()
        since, self._since = self._since, time.time()
        lanes = self.applied.lanes
        ready = {name: len(lanes.get(name, ())) for name in self.release.names}
        return Evidence(arms=arms, since=since, now=self._since, replicas=ready)

    @property
    def waiting(self) -> int:
        """Examples in the queues of all arms."""
        return sum(lane.batcher.waiting for lanes in self.applied.lanes.values() for lane in lanes)

    def gauges(self) -> list[tuple[str, str, float]]:
        """Figures by arm and name, for whoever watches."""
        now = self.applied
        found = [(arm, "share", share) for arm, share in now.routing.shares.items()]
        found += [(arm, "replicas", float(len(lanes))) for arm, lanes in now.lanes.items()]
        for mirror in now.mirrors:
            found += [(mirror.arm, "mirrors_dropped", float(mirror.dropped))]
            found += [(mirror.arm, "mirror_failures", float(mirror.failures))]
        return [*found, ("", "closed", float(now.routing.closed)), ("", "closed_seconds", self.closed_seconds)]

    def about(self) -> dict[str, Any]:
        """The release, and what is applied now, as JSON values."""
        now = self.applied
        return {
            "release": self.release.id,
            "policy": self.release.policy,
            "arms": {arm.name: arm.version for arm in self.release.arms},
            "shares": dict(now.routing.shares),
            "replicas": {arm: len(lanes) for arm, lanes in now.lanes.items()},
            "mirrors": {
                m.arm: {"dropped": m.dropped, "failures": m.failures, "trouble": m.trouble} for m in now.mirrors
            },
            "closed": now.routing.closed,
            "closed_seconds": self.closed_seconds,
            "trouble": dict(self.trouble),
        }

    def model(self, version: str) -> Model | None:
        """A loaded model of the version with that hash."""
        for lanes in self.applied.lanes.values():
            for lane in lanes:
                if lane.model.hash == version:
                    return lane.model
        return None


def _sole(applied: Applied) -> Lane | None:
    """The replica that answers whoever asks, if there is one: a shadow's champion, above all."""
    routing, (_, names) = applied.routing, applied.routing.pieces(None)
    if routing.closed or routing.flagged or routing.shares_by_context or len(names) > 1:
        return None
    lanes = applied.lanes.get(names[0], ())
    return lanes[0] if len(lanes) == 1 else None


def _busy(lane: Lane) -> int:
    return lane.busy


def _failure() -> Figures:
    count = Count()
    count.answered(0.0, failed=True)
    return replace(count.figures(), users=0)
