"""A release over the devices: the centre asks them by query rounds, and leads it by what their sums say.

Devices assign themselves, by the release's id and their own: nobody here knows who has which arm. What comes back of an
arm is one sum over a unit's devices (fl/messages.py, ``served``), and here over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import final

from fl.data.analytics import Ask
from fl.decisions import Decision
from fl.messages import SERVED, Query, release_number
from fl.metrics import Statistics, Sums, merge
from fl.registry import releases
from fl.releases import LATENCY_EDGES, Evidence, Figures, Policy, Release, State


def evidence(ask: Ask, release: Release, *, since: float, until: float) -> Evidence:
    """What devices answered in a release in that time (seconds since 1970), by arm; of those that were reached."""
    numbers = {
        "release": (float(release_number(release.id)),),
        "since": (since,),
        "until": (until,),
        "edges": LATENCY_EDGES,
    }
    answers = ask(Query("served", tuple(range(len(release.arms))), numbers))
    found: Statistics = merge(report.statistics for report in answers.reports)
    arms = {arm.name: figures(found[str(number)]) for number, arm in enumerate(release.arms) if str(number) in found}
    return Evidence(arms, since, until)


def figures(sums: object) -> Figures:
    """The sums of an arm as a policy reads them. Raises ValueError for what is no such sum."""
    if not isinstance(sums, Sums) or len(sums.values) != len(SERVED) + len(LATENCY_EDGES) + 1:
        raise ValueError("what devices answered is no sum of SERVED and latencies")
    told = dict(zip(SERVED, sums.values, strict=False))
    return Figures(
        requests=int(told["answers"]),
        errors=int(told["errors"]),
        users=int(told["users"]),
        latency_counts=tuple(int(count) for count in sums.values[len(SERVED) :]),
        rewards=int(told["rewards"]),
        reward_sum=told["reward"],
        reward_squares=told["reward_squares"],
        user_rewards=int(told["user_rewards"]),
        user_reward_sum=told["user_reward"],
        user_reward_squares=told["user_reward_squares"],
        compared=int(told["compared"]),
        agreed=int(told["agreed"]),
    )


@final
@dataclass
class Leader:
    """Leads ``release`` of the registry in ``folder`` by ``policy``; the state goes on from where it was kept.

    Only the process that holds ``fl.registry.releases.lead`` may step.
    """

    folder: Path
    release: Release
    policy: Policy
    ask: Ask
    clock: Callable[[], float] = time.time
    state: State = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        standing = releases.read_state(self.folder, self.release.id)
        self.state = releases.resumed(self.folder, self.release, self.policy)
        self.since = datetime.fromisoformat(standing.when if standing else self.release.started).timestamp()

    def step(self) -> Decision:
        """One query round and one step: the state is kept, and where the release ends the alias moves."""
        now = max(self.clock(), self.since)
        found = evidence(self.ask, self.release, since=self.since, until=now)
        self.state, decision = releases.advance(self.folder, self.release, self.policy, self.state, found)
        self.since = now
        return decision

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return releases.ending(self.folder, self.release.id) is not None
