"""Bandit: traffic goes where rewards are, while they come in; it ends when hardly anything is left to be gained.

    epsilon_greedy   1 - epsilon to the arm with the best mean, epsilon to all alike         Sutton, Barto, 2018, 2.4
    ucb              all to the arm with the highest mean + sqrt(2 ln N / n)                 Auer et al., 2002 (UCB1)
    thompson         to each arm the probability that it is the best, by its posterior       Thompson, 1933;
                     Beta(1 + sum, 1 + n - sum), for rewards in [0, 1]                       Agrawal, Goyal, 2012

Shares are set at each step, so that an arm answers by them until feedback has come: the algorithms in batches. It ends
after ``rewards``, or earlier once, with 95 % probability, no other arm has a mean reward that is higher than the best
one's by more than ``value_remaining`` of it (Scott, Multi-armed bandit experiments in the online service economy,
2015).

With ``contextual`` each context that requests name has its own posterior and its own shares (a bandit a context), up to
``rewards``: as long as contexts differ, one arm for all would lose; which one wins then is decided over all. Requests
are assigned, not users: a user may meet several arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from fl.decisions import Action, Decision
from fl.deployment.health import HEALTH, harms, judged, watched, watching
from fl.deployment.options import Options, integer, number, one_of
from fl.releases import CHAMPION, Evidence, Release, Routing, State, promoted, rolled_back
from fl.seeds import generator

Counts: TypeAlias = Mapping[str, Sequence[float]]
"""Arm -> rewards, and their sum."""

ALGORITHMS = ("thompson", "ucb", "epsilon_greedy")
DRAWS = 1000
"""Draws from the posterior: shares are known to about a point and a half."""

OPTIONS: Options = {
    "algorithm": one_of("thompson", "how shares are set", *ALGORITHMS),
    "epsilon": number(0.1, "of epsilon_greedy: the share that all arms have alike", low=0, high=1),
    "contextual": one_of(False, "whether each context has its own shares", False, True),
    "rewards": integer(20_000, "after so many it ends", low=1),
    "least": integer(200, "and not before so many", low=1),
    "value_remaining": number(0.01, "of the best mean: what may be left to be gained", low=0, high=1),
    **{name: option for name, option in HEALTH.items() if name != "quality"},
}


@final
@dataclass(frozen=True)
class Bandit:
    """``rewards``: arm -> count and sum; ``contexts``: the same a context; ``shares`` of the last look."""

    release: Release

    def begin(self) -> State:
        """Equal shares."""
        names = self.release.names
        return {
            "alive": list(names),
            "looks": 0,
            "rewards": {name: [0, 0.0] for name in names},
            "contexts": {},
            "shares": dict.fromkeys(names, 1 / len(names)),
            "shares_by_context": {},
            **watching(self.release.options),
        }

    def routing(self, state: State) -> Routing:
        """The shares of the last look; for a context that was never seen those of all."""
        whole = {name: state["shares"][name] for name in self.release.names}
        return Routing(whole, sticky=False, shares_by_context=state["shares_by_context"] or None)

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Learn from the rewards that came in, let harmful arms go, and set new shares."""
        options, names = self.release.options, self.release.names
        state = self._learnt(watched(state, evidence, names), evidence)
        verdicts = {name: judged(harms(state, name, options, quality=False)) for name in state["alive"][1:]}
        alive = [CHAMPION, *(name for name, (verdict, _) in verdicts.items() if verdict != "worse")]
        told = "; ".join(f"{name} {why}" for name, (verdict, why) in verdicts.items() if verdict == "worse")
        if alive == [CHAMPION]:
            return rolled_back(state, told)
        gone = len(alive) < len(state["alive"])
        state = {**state, "alive": alive, "looks": state["looks"] + 1}
        rewards = {name: state["rewards"][name] for name in alive}
        drawn = posterior(rewards, self.release.seed, state["looks"])
        total = sum(count for count, _ in rewards.values())
        remaining, best = value_remaining(drawn), alive[int(drawn.mean(axis=0).argmax())]
        settled = not options["contextual"] and total >= options["least"] and remaining <= options["value_remaining"]
        if settled or total >= options["rewards"]:
            why = (
                f"{best} is the best after {total:.0f} rewards: {_means(rewards)}; {remaining:.1%} may be left to gain"
            )
            return rolled_back(state, why) if best == CHAMPION else promoted(state, best, why)
        shares = self._shares(rewards, drawn)
        by_context = {
            context: self._shares(known, posterior(known, self.release.seed, state["looks"], context))
            for context, counts in state["contexts"].items()
            if (known := {name: counts[name] for name in alive})
        }
        changed = gone or max(alive, key=shares.__getitem__) != max(state["shares"], key=state["shares"].__getitem__)
        told = told or f"{_means(rewards)} after {total:.0f} rewards; {remaining:.1%} may be left to gain"
        state = {**state, "shares": shares, "shares_by_context": by_context}
        return state, Decision(Action.GO_ON if changed else Action.HOLD, told)

    def _learnt(self, state: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
        names = self.release.names
        rewards = {
            name: [
                state["rewards"][name][0] + evidence.of(name).rewards,
                state["rewards"][name][1] + evidence.of(name).reward_sum,
            ]
            for name in names
        }
        contexts = {context: dict(counts) for context, counts in state["contexts"].items()}
        for name in names if self.release.options["contextual"] else ():
            for context, (count, total) in evidence.of(name).by_context.items():
                counts = contexts.setdefault(context, {other: [0, 0.0] for other in names})
                counts[name] = [counts[name][0] + count, counts[name][1] + total]
        return {**state, "rewards": rewards, "contexts": contexts}

    def _shares(self, rewards: Counts, drawn: np.ndarray[Any, Any]) -> dict[str, float]:
        """What each arm gets until the next look; arms that were let go get nothing."""
        options, alive = self.release.options, list(rewards)
        if options["algorithm"] == "thompson":
            best = np.bincount(drawn.argmax(axis=1), minlength=len(alive)) / len(drawn)
            found = dict(zip(alive, map(float, best), strict=True))
        elif options["algorithm"] == "ucb":
            first = max(alive, key=upper_bounds(rewards).__getitem__)
            found = {name: float(name == first) for name in alive}
        else:
            first = max(alive, key=lambda name: rewards[name][1] / max(1, rewards[name][0]))
            spread = options["epsilon"] / len(alive)
            found = {name: spread + (1 - options["epsilon"]) * (name == first) for name in alive}
        return {name: found.get(name, 0.0) for name in self.release.names}


def upper_bounds(rewards: Counts) -> dict[str, float]:
    """UCB1's index of each arm: infinite for one without rewards."""
    total = sum(count for count, _ in rewards.values())
    return {
        name: reward / count + math.sqrt(2 * math.log(total) / count) if count else math.inf
        for name, (count, reward) in rewards.items()
    }


def posterior(rewards: Counts, seed: int, look: int, context: str = "") -> np.ndarray[Any, Any]:
    """(DRAWS, arms) draws of the mean rewards, the same for the same seed, look and context."""
    random = generator(seed, purpose=f"bandit/{context}", round=look)
    a = np.array([1 + total for _, total in rewards.values()])
    b = np.array([1 + count - total for count, total in rewards.values()])
    return random.beta(a, np.maximum(b, 1e-9), size=(DRAWS, len(a)))


def value_remaining(drawn: np.ndarray[Any, Any]) -> float:
    """The 95 % quantile of by how much another arm may be better than the best one, as a fraction of that one."""
    best = drawn[:, drawn.mean(axis=0).argmax()]
    return float(np.quantile((drawn.max(axis=1) - best) / np.maximum(best, 1e-9), 0.95))


def _means(rewards: Counts) -> str:
    return ", ".join(f"{name} {total / max(1, count):.3f}" for name, (count, total) in rewards.items())
