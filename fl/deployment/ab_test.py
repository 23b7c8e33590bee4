"""A/B test: users split for good, a hypothesis stated first, a test that may be looked at any time.

Planned before it starts: the smallest effect that matters, the error rate and the power give the information at which
the test ends at the latest, and so the largest number of users (where the rewards vary as much as they can; they end
earlier where they vary less). Of each user the first feedback counts alone, so that observations are independent.

    promote      the mean reward is higher: Lambda >= 1/alpha and the difference positive (fl/deployment/confidence.py)
    let go       it is lower, or an effect as large as the planned one is excluded
    let go       errors or latency do harm (fl/deployment/health.py)
    stop         users were not split as they should have been: nothing that was measured can be trusted then
                 (Fabijan et al., Diagnosing sample ratio mismatch, 2019; sequentially: Lindon, Malek, 2022)

With k challengers alpha is divided by k (Bonferroni), so that all claims together err with alpha at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from fl.decisions import Action, Decision
from fl.deployment.confidence import Difference, Sample, bounds, planned_information
from fl.deployment.health import HEALTH, harms, judged, watched, watching
from fl.deployment.options import Options, integer, number, text
from fl.releases import CHAMPION, Evidence, Figures, Release, Routing, State, promoted, rolled_back

OPTIONS: Options = {
    "hypothesis": text("", "what is claimed, in words; left out, it is written from the numbers"),
    "minimal_effect": number(0.05, "the smallest difference in mean reward that matters", low=0, high=1, strict=True),
    "alpha": number(0.05, "how often a difference may be claimed where there is none", low=1e-6, high=0.5),
    "power": number(0.9, "how often the minimal effect has to be found", low=0.5, high=0.95),
    "least": integer(50, "users with feedback in each arm before the first look", low=2),
    "mismatch_alpha": number(0.001, "how often a sound split may be taken for a broken one", low=0, high=0.1),
    "patience_seconds": number(10.0**7, "the longest time of the test", low=0.1, high=10**9),
    **{name: option for name, option in HEALTH.items() if name != "quality"},
}


@final
@dataclass(frozen=True)
class ABTest:
    """``plan``: what was fixed first; ``users`` and ``rewards`` by arm, of the time in which nobody had left."""

    release: Release

    def begin(self) -> State:
        """The hypothesis and the plan, before anybody was counted."""
        names = self.release.names
        return {
            "plan": plan(self.release.options, challengers=len(names) - 1),
            "alive": list(names[1:]),
            "users": dict.fromkeys(names, 0),
            "rewards": {name: [0, 0.0, 0.0] for name in names},
            **watching(self.release.options),
        }

    def routing(self, state: State) -> Routing:
        """Equal shares; the shares of challengers that were let go are the champion's."""
        part = 1 / len(self.release.names)
        shares = {name: part if name in state["alive"] else 0.0 for name in self.release.names[1:]}
        return Routing({CHAMPION: 1 - sum(shares.values()), **shares})

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Look: at the split, at harm, at the difference; then at the end of the plan."""
        options, challengers = self.release.options, len(self.release.names) - 1
        state = self._counted(watched(state, evidence, self.release.names), evidence)
        why = _mismatch(state["users"], options["mismatch_alpha"]) if len(state["alive"]) == challengers else ""
        if why:
            return rolled_back(state, f"the test cannot be trusted: {why}")
        won: list[tuple[float, str, str]] = []
        lost: dict[str, str] = {}
        told = []
        for name in state["alive"]:
            verdict, harm = judged(harms(state, name, options, quality=False))
            if verdict == "worse":
                lost[name] = harm
                continue
            finding, words = self._difference(state, name)
            told.append(f"{name} {words}")
            if finding == "higher":
                won.append((_sample(state, name).mean, name, words))
            elif finding == "let go":
                lost[name] = words
        if won:
            _, name, words = max(won)
            return promoted(state, name, f"{name} {words}")
        alive = [name for name in state["alive"] if name not in lost]
        gone = "; ".join(f"{name} {words}" for name, words in lost.items())
        if not alive:
            return rolled_back(state, gone)
        if state["seconds"] > options["patience_seconds"]:
            return rolled_back(state, f"no decision in {state['seconds']:.0f} s: {'; '.join(told)}")
        if lost:
            return {**state, "alive": alive}, Decision(Action.GO_ON, gone)
        return state, Decision(Action.HOLD, "; ".join(told))

    def _counted(self, state: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
        """Users and first feedback added up, also of those from whom the champion's first latencies were learnt."""
        users = {name: count + evidence.of(name).users for name, count in state["users"].items()}
        rewards = {
            name: [a + b for a, b in zip(known, _first_feedback(evidence.of(name)), strict=True)]
            for name, known in state["rewards"].items()
        }
        return {**state, "users": users, "rewards": rewards}

    def _difference(self, state: State, name: str) -> tuple[str, str]:
        """What is found of a challenger's mean reward: higher, let go, or nothing yet; and the words."""
        options, planned = self.release.options, state["plan"]
        first, second = _sample(state, CHAMPION), _sample(state, name)
        if min(first.count, second.count) < options["least"]:
            return "", f"has feedback of {second.count} users, {CHAMPION} of {first.count}"
        found, effect, alpha = (
            Difference(first, second, tau=options["minimal_effect"]),
            options["minimal_effect"],
            planned["alpha"],
        )
        low, high = found.interval(alpha)
        words = f"{found.value:+.4f} ({low:+.4f} to {high:+.4f}) after {first.count + second.count} users"
        if found.log_ratio() >= -math.log(alpha):
            return ("higher" if found.value > 0 else "let go"), f"differs by {words}"
        if high < effect:
            return "let go", f"does not reach {effect:g}: {words}"
        if found.information >= planned["information"]:
            return "let go", f"shows no difference at the planned end: {words}"
        return "", f"{words}, {found.information / planned['information']:.0%} of the plan"


def plan(options: Any, *, challengers: int) -> dict[str, Any]:
    """What is fixed before the test: hypothesis, alpha of each claim, information and users at the end.

    The users are those with feedback, of all arms, at the largest variance of rewards in [0, 1], 1/4.
    """
    effect, alpha = options["minimal_effect"], options["alpha"] / challengers
    information = planned_information(effect, alpha=alpha, power=options["power"])
    arms = challengers + 1
    words = options["hypothesis"] or f"a challenger's mean reward is higher than the champion's, by {effect:g} or more"
    users = math.ceil(information * 2 * 0.25) * arms
    return {"hypothesis": words, "alpha": alpha, "information": information, "users": users}


def _first_feedback(figures: Figures) -> tuple[int, float, float]:
    return figures.user_rewards, figures.user_reward_sum, figures.user_reward_squares


def _sample(state: State, name: str) -> Sample:
    return Sample(*state["rewards"][name])


def _mismatch(users: Any, alpha: float) -> str:
    """Words for an arm whose share of users is not what it should be, "" if all may be; alpha is shared by all arms."""
    total, wanted = sum(users.values()), 1 / len(users)
    for name, count in users.items():
        low, high = bounds(total, count, alpha=alpha / len(users)) if alpha else (0.0, 1.0)
        if not low <= wanted <= high:
            return f"{name} has {count} of {total} users, which should be {wanted:.1%}"
    return ""
