"""The eight release policies by name, and the one that a release orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, final

from fl.decisions import Action, Decision
from fl.deployment import ab_test, bandit, blue_green, canary, feature_flag, recreate, rolling, shadow
from fl.deployment.options import Options, checked
from fl.errors import BadInput
from fl.releases import Evidence, Policy, Release, Routing, State, everything_to


class Rules(Protocol):
    """What a policy says while its release is open."""

    def begin(self) -> State: ...
    def routing(self, state: State) -> Routing: ...
    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]: ...


@dataclass(frozen=True)
class Kind:
    """A policy by name: what it does, its options, how it is made, whether it takes several challengers."""

    means: str
    options: Options
    make: Callable[[Release], Rules]
    several: bool = True


def _flagged(release: Release) -> Rules:
    options, then = release.options, release.options["then"]
    inner = Release(**{**vars(release), "policy": then, "options": options["then_options"]}) if then else None

    @cache
    def flag() -> feature_flag.Flag:
        from fl.deployment.flags import opened

        return opened(options["flag"], options["source"], options["value"])

    return feature_flag.FeatureFlag(
        release, lambda user, context: flag()(user, context), policy_for(inner) if inner else None
    )


POLICIES: Mapping[str, Kind] = {
    "recreate": Kind("stop the champion, then start the challenger", recreate.OPTIONS, recreate.Recreate, False),
    "rolling": Kind("replica by replica", rolling.OPTIONS, rolling.Rolling, False),
    "blue_green": Kind(
        "on copies of requests first, then all users at once", blue_green.OPTIONS, blue_green.BlueGreen, False
    ),
    "canary": Kind("more and more users while no harm is seen", canary.OPTIONS, canary.Canary),
    "shadow": Kind("only copies of requests, and a report", shadow.OPTIONS, shadow.Shadow),
    "ab_test": Kind("a planned experiment on users", ab_test.OPTIONS, ab_test.ABTest),
    "bandit": Kind("traffic follows rewards", bandit.OPTIONS, bandit.Bandit),
    "feature_flag": Kind("who sees it is said by a flag", feature_flag.OPTIONS, _flagged),
}


@final
@dataclass(frozen=True)
class Governed:
    """A policy with what is the same for all: a release that has ended stays so, and the winner has everybody."""

    release: Release
    rules: Rules

    def begin(self) -> State:
        """The state before anything was counted."""
        return self.rules.begin()

    def routing(self, state: State) -> Routing:
        """What the router is to apply."""
        if "ended" in state:
            return Routing(everything_to(state["winner"], self.release.names))
        return self.rules.routing(state)

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """The next state, and why."""
        if "ended" in state:
            return state, Decision(Action.HOLD, f"the release was {state['ended']}")
        return self.rules.step(state, evidence)

    def arm_for(self, state: State, user: str, context: str | None) -> str | None:
        """The arm that a flag gives a user, None without one."""
        if "ended" in state or not isinstance(self.rules, feature_flag.FeatureFlag):
            return None
        return self.rules.arm_for(user, context)


def policy_for(release: Release) -> Policy:
    """The policy that a release orders. Costs nothing; a flag is opened when the first user asks for it."""
    return Governed(release, POLICIES[release.policy].make(release))


def checked_options(policy: str, given: Mapping[str, Any], *, challengers: int) -> dict[str, Any]:
    """The whole options of a policy for so many challengers. Raises BadInput, before anything is ordered."""
    if policy not in POLICIES:
        raise BadInput(key="POLICY", got=policy, allowed=", ".join(POLICIES))
    kind = POLICIES[policy]
    if challengers > 1 and not kind.several:
        raise BadInput(key="--challenger", got=f"{challengers} of them", allowed=f"one, for {policy}")
    whole = checked(kind.options, given, policy=policy)
    if policy == "feature_flag":
        from fl.deployment.flags import check

        check(whole["flag"], whole["source"])
        if whole["then"] == policy:
            raise BadInput(key="--option then", got=policy, allowed="any other policy")
        if whole["then"]:
            whole["then_options"] = checked_options(whole["then"], whole["then_options"], challengers=challengers)
        elif whole["then_options"]:
            raise BadInput(key="--option then_options", got=whole["then_options"], allowed="with `then` only")
    return whole
