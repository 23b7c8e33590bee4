"""The gate to the champion: where success criteria are set, an accepted version passes, or an override with its reason.

Criteria are known by evidence: ``understand`` or ``accept`` with goals or constraints, of the version or of another one
of its run, which was trained for the same. ``accept`` holds accepted, reasons, and override: null, or reason, by and
time. Where nothing of this is known, nobody asked for anything, and every version may be champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.registry import evidence as evidences
from fl.registry.layout import evidence_folder, now
from fl.registry.versions import Version, list_versions, parent_of

ACCEPT, UNDERSTAND = "accept", "understand"
NEVER_HELD = "it was never held against its success criteria: fl accept does"


def refusals(folder: Path, version: Version) -> tuple[str, ...]:
    """What stands against ``version`` as champion, in words; empty if nothing does."""
    known = evidences.evidence(folder, version).get(ACCEPT)
    if known is not None:
        passes = known["accepted"] or known.get("override")
        return () if passes else tuple(known["reasons"]) or ("it was refused",)
    return (NEVER_HELD,) if any(map(asks_for_something, run_evidence(folder, version))) else ()


def override(folder: Path, version: Version, against: tuple[str, ...], *, reason: str, by: str) -> None:
    """Record that ``version`` passes all the same: why, who says so, and when."""
    known = evidences.evidence(folder, version).get(ACCEPT) or {"accepted": False, "reasons": list(against)}
    evidences.attach(folder, version, ACCEPT, {**known, "override": {"reason": reason, "by": by, "time": now()}})


def run_evidence(folder: Path, version: Version) -> list[dict[str, dict[str, Any]]]:
    """The evidence of ``version``, then of every other version of its run that has any, the newest first.

    What was made of another version by compressing it is asked for the same: that one's evidence follows, and so on.
    """
    others = [v for v in reversed(list_versions(folder, version.run_id)) if v.hash != version.hash]
    there = [v for v in others if evidence_folder(folder, v.hash).is_dir()]
    known = [evidences.evidence(folder, v) for v in (version, *there)]
    parent = parent_of(folder, version) if version.manifest.get("compression") is not None else None
    return known if parent is None else [*known, *run_evidence(folder, parent)]


def asks_for_something(known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether evidence tells of success criteria."""
    for asked in (known.get(UNDERSTAND, {}), known.get(ACCEPT, {}).get("criteria", {})):
        limits = (asked.get("constraints") or {}).values()
        if asked.get("success") or asked.get("no_worse_than_champion") or any(one is not None for one in limits):
            return True
    return False
