"""Whether a challenger does harm: errors, latency and quality beside the champion's, with confidence at any time.

Each is a mean in [0, 1]: the share of requests that failed, the share slower than nearly all of the champion's, and
one minus the mean reward. The harm is how much higher the challenger's is, and lies between the differences of the
bounds of both (fl/deployment/confidence.py). All bounds of one challenger hold together with ``confidence``. Requests
are taken to be independent of each other, which those of one user are not quite: an A/B test counts every user once.

fine      the harm is at most what is tolerated
worse     there is harm, and it is not known to be tolerable
unclear   neither is known yet
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fl.deployment.confidence import bounds
from fl.deployment.options import Options, number
from fl.releases import CHAMPION, LATENCY_EDGES, Evidence, Figures, State, latency_bin

Verdict: TypeAlias = Literal["fine", "worse", "unclear"]

WARM_UP = 100
"""Requests of the champion that say what is slow; they are then left out of the comparison."""
SLOWEST = 0.05
"""The share of the champion's requests that may count as slow."""

HEALTH: Options = {
    "errors": number(0.01, "tolerated: how much larger the share of failed requests may be", low=0, high=1),
    "latency": number(0.05, "tolerated: how much larger the share of slow requests may be", low=0, high=1),
    "quality": number(0.05, "tolerated: how much lower the mean reward may be, where there is feedback", low=0, high=1),
    "confidence": number(0.95, "of all these together, for each challenger", low=0.5, high=1, strict=True),
    "slow_seconds": number(
        None, "what is slow; null: slower than 95 % of the champion's first 100", low=1e-4, high=100
    ),
}


@dataclass(frozen=True)
class Harm:
    """How much worse the challenger is in one respect, between what bounds, and how much is tolerated."""

    name: str
    low: float
    high: float
    tolerated: float

    @property
    def verdict(self) -> Verdict:
        """What is known of it."""
        if self.high <= self.tolerated:
            return "fine"
        return "worse" if self.low > 0 else "unclear"

    def __str__(self) -> str:
        return f"{self.name} {self.low:+.3f} to {self.high:+.3f}, tolerated {self.tolerated:g}"


def watching(options: Mapping[str, Any]) -> State:
    """The part of a state that adds up evidence, before any."""
    given = options["slow_seconds"]
    return {"figures": {}, "slow_bin": None if given is None else latency_bin(given), "seconds": 0.0}


def watched(state: State, evidence: Evidence, names: Sequence[str]) -> dict[str, Any]:
    """``state`` with ``evidence`` added."""
    figures = {name: (figures_of(state, name) + evidence.of(name)).to_dict() for name in names}
    slow_bin, champion = state["slow_bin"], Figures.from_dict(figures[CHAMPION])
    if slow_bin is None and champion.requests >= WARM_UP:
        slow_bin, figures = _slow_bin(champion.latency_counts), {}
    return {**state, "figures": figures, "slow_bin": slow_bin, "seconds": state["seconds"] + evidence.seconds}


def figures_of(state: State, name: str) -> Figures:
    """What was counted of an arm since the state began, or since the champion's first requests."""
    return Figures.from_dict(state["figures"][name]) if name in state["figures"] else Figures()


def harms(state: State, name: str, options: Mapping[str, Any], *, quality: bool = True) -> list[Harm]:
    """What is known of the harm that the challenger ``name`` does; none before the champion's first requests.

    Quality is judged from the champion's first feedback on, and if ``quality``.
    """
    if state["slow_bin"] is None:
        return []
    first, second = figures_of(state, CHAMPION), figures_of(state, name)
    alpha = (1 - options["confidence"]) / 6  # three respects, two means each
    slow = [(f.requests, float(sum(f.latency_counts[state["slow_bin"] + 1 :]))) for f in (first, second)]
    means: dict[str, list[tuple[int, float]]] = {
        "errors": [(f.requests, float(f.errors)) for f in (first, second)],
        "latency": slow,
    }
    if quality and first.rewards:
        means["quality"] = [(f.rewards, f.rewards - f.reward_sum) for f in (first, second)]
    found = []
    for respect, (ours, theirs) in means.items():
        low, high = bounds(*ours, alpha=alpha)
        their_low, their_high = bounds(*theirs, alpha=alpha)
        found.append(Harm(respect, their_low - high, their_high - low, options[respect]))
    return found


def judged(found: Sequence[Harm]) -> tuple[Verdict, str]:
    """The verdict over all respects, and the words for it."""
    for verdict in ("worse", "unclear"):
        of_it = [str(harm) for harm in found if harm.verdict == verdict]
        if of_it:
            return verdict, f"{verdict}: {'; '.join(of_it)}"
    return ("fine", "no harm beyond what is tolerated") if found else ("unclear", "the champion's first requests")


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The upper edge, seconds, of the bin in which the quantile ``q`` of latencies lies; None if there are none."""
    wanted, below = q * sum(counts), 0
    for k, count in enumerate(counts):
        below += count
        if count and below >= wanted:
            return LATENCY_EDGES[min(k, len(LATENCY_EDGES) - 1)]
    return None


def _slow_bin(counts: Sequence[int]) -> int:
    """The last bin that is not slow: at most SLOWEST of all lie above it."""
    above, total = 0, sum(counts)
    for k in range(len(counts) - 1, 0, -1):
        above += counts[k]
        if above > SLOWEST * total:
            return k
    return 0
