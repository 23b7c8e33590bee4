"""The acceptance test: what was measured against what was asked for, and the verdict with every reason.

A pure policy: evidence of ``evaluate`` in, Verdict out. What was asked for and not measured is a reason against.
Whoever calls it attaches the verdict to the version as evidence ``accept``, by which fl/registry/gate.py goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fl.decisions import Action, Decision
from fl.evaluation.goals import METRICS, Goal, goals

CONSTRAINTS = ("latency_seconds", "size_bytes", "epsilon", "fairness_floor")
SIGNIFICANCE = 0.05
"""A model is called worse than the champion where chance would make it look so in fewer cases than this."""


@dataclass(frozen=True)
class Criteria:
    """Goals on metrics, limits by the names of CONSTRAINTS, and whether it may be worse than the champion."""

    goals: tuple[Goal, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    no_worse_than_champion: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.goals or self.limits or self.no_worse_than_champion)

    def to_dict(self) -> dict[str, Any]:
        """As a section ``business`` has them; ``criteria`` reads it again."""
        return {
            "success": {goal.metric: goal.threshold for goal in self.goals},
            "constraints": dict(self.limits),
            "no_worse_than_champion": self.no_worse_than_champion,
        }


@dataclass(frozen=True)
class Verdict:
    """``reasons`` against, ``held`` what was fulfilled; both in words. Accepted where there is no reason against."""

    reasons: tuple[str, ...]
    held: tuple[str, ...]

    @property
    def decision(self) -> Decision:
        """GO_ON, or REFUSE with every reason."""
        if self.reasons:
            return Decision(Action.REFUSE, f"refused: {'; '.join(self.reasons)}")
        return Decision(Action.GO_ON, f"accepted: {'; '.join(self.held) or 'no success criterion is set'}")

    def to_dict(self) -> dict[str, Any]:
        """The evidence ``accept``, with no override."""
        return {
            "accepted": not self.reasons,
            "reasons": list(self.reasons),
            "held": list(self.held),
            "override": None,
        }


def criteria(business: Mapping[str, Any]) -> Criteria:
    """From a section ``business``: ``success``, ``constraints``, ``no_worse_than_champion``. BadInput for a goal on a
    metric that nothing here measures.
    """
    limits = {k: float(v) for k, v in (business.get("constraints") or {}).items() if v is not None}
    return Criteria(
        goals=goals(business.get("success") or {}),
        limits=limits,
        no_worse_than_champion=bool(business.get("no_worse_than_champion", False)),
    )


def accept(evidence: Mapping[str, Any], wanted: Criteria) -> Verdict:
    """Hold the evidence ``evaluate`` of a version against ``wanted``."""
    reasons: list[str] = []
    held: list[str] = []
    for good, words in _checks(evidence, wanted):
        (held if good else reasons).append(words)
    return Verdict(tuple(reasons), tuple(held))


def _checks(evidence: Mapping[str, Any], wanted: Criteria) -> Iterator[tuple[bool, str]]:
    metrics = evidence.get("metrics", {})
    for goal in wanted.goals:
        found = metrics.get(goal.metric)
        if found is None or found["value"] is None:
            known = ", ".join(name for name in METRICS if name in metrics)
            yield False, f"{goal}: it was not measured, only {known or 'nothing'}"
        else:
            yield goal.reached(found["value"]), f"{goal}: {_told(found)}"
    for name in CONSTRAINTS:
        if name in wanted.limits:
            yield _CHECKS[name](evidence, wanted.limits[name])
    if wanted.no_worse_than_champion:
        yield _no_worse(evidence)


def _latency(evidence: Mapping[str, Any], limit: float) -> tuple[bool, str]:
    found = evidence.get("measured", {}).get("latency_seconds")
    return _at_most("latency_seconds", found, limit, unit=" s for one example")


def _size(evidence: Mapping[str, Any], limit: float) -> tuple[bool, str]:
    return _at_most("size_bytes", evidence.get("resources", {}).get("bytes"), limit, unit=" bytes")


def _epsilon(evidence: Mapping[str, Any], limit: float) -> tuple[bool, str]:
    privacy = evidence.get("privacy") or {"absent": "nobody accounted for what was spent"}
    if "absent" in privacy:
        return False, f"epsilon at most {limit:g}: {privacy['absent']}"
    return _at_most("epsilon", privacy["epsilon"], limit, unit=f" spent, at delta {privacy['delta']:.3g}")


def _fairness(evidence: Mapping[str, Any], floor: float) -> tuple[bool, str]:
    clients = evidence.get("clients", {})
    worst = clients.get("worst")
    if worst is None:
        return False, f"fairness_floor {floor:g}: clients were not asked ({clients.get('absent', 'no evidence')})"
    words = (
        f"fairness_floor {floor:g}: client {worst['client']} is served worst, "
        f"{worst['metric']} {worst['value']:.4g} on {worst['examples']} examples"
    )
    return worst["value"] >= floor, words


def _no_worse(evidence: Mapping[str, Any]) -> tuple[bool, str]:
    champion = evidence.get("champion", {})
    if "worse_p" not in champion:
        return True, f"no worse than the champion: {champion.get('absent', 'there is none')}"
    p = champion["worse_p"]
    words = (
        f"no worse than the champion {champion['version']}: {champion['metric']} {champion['value']:.4g} against "
        f"{champion['other']:.4g}, p {p:.3g} that chance makes it look so much worse ({champion['test']})"
    )
    return p >= SIGNIFICANCE, words


def _at_most(name: str, found: float | None, limit: float, *, unit: str) -> tuple[bool, str]:
    if found is None:
        return False, f"{name} at most {limit:g}: it was not measured"
    return found <= limit, f"{name} at most {limit:g}: {found:.6g}{unit}"


def _told(found: Mapping[str, Any]) -> str:
    between = f" ({found['low']:.4g} to {found['high']:.4g})" if found.get("low") is not None else ""
    return f"{found['value']:.4g}{between}"


_CHECKS = {"latency_seconds": _latency, "size_bytes": _size, "epsilon": _epsilon, "fairness_floor": _fairness}


def known_criteria(evidence: Sequence[Mapping[str, Mapping[str, Any]]]) -> Criteria | None:
    """What is asked for by the evidence of a version, then of the others of its run; None where nothing is known.

    The ``business`` that ``understand`` wrote down counts, since a verdict may be about other thresholds.
    """
    for known in evidence:
        if "understand" in known:
            goal = known["understand"]
            success = {one["metric"]: one["threshold"] for one in goal["success"]}
            return criteria({**goal, "success": success})
        if "criteria" in known.get("accept", {}):
            return criteria(known["accept"]["criteria"])
    return None
