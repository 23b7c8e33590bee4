"""`fl deploy compare`: eight policies on the same simulated users, with challengers of five kinds: the policy table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.release_simulation import CHAMPION_MODEL, KINDS, Outcome, World, play
from fl.deployment import POLICIES, checked_options, policy_for
from fl.deployment.feature_flag import FeatureFlag
from fl.deployment.policies import Governed
from fl.releases import CHALLENGER, CHAMPION, Arm, Policy, Release, point

WORLD = World()
HARMFUL = ("worse", "slower", "crashing")
FLAGGED = 0.1
"""The share of users for whom the simulated operator has the flag on; nobody touches it afterwards."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "blue_green": {"agreement": 0.7, "keep_seconds": 3600.0},
    "shadow": {"requests": 10_000},
}
"""What the comparison sets beside defaults."""

WHEN = {
    "recreate": "two versions cannot run beside each other, and users can wait",
    "rolling": "every release of a tested version, without machines to spare",
    "blue_green": "the switch has to be at once, and so has the way back",
    "canary": "users are many and a bad version costs: the default",
    "shadow": "before any of the others: what does it answer, how fast",
    "ab_test": "it has to be known whether it is better, and by how much",
    "bandit": "rewards come soon, and gaining them matters more than knowing by how much",
    "feature_flag": "people decide who sees it: staff, a country, a customer",
}


def simulated(policy: str, kind: str, *, seed: int, world: World = WORLD, **options: Any) -> Outcome:
    """One release of a challenger of ``kind`` under ``policy``."""
    arms = (Arm(CHAMPION, "0"), Arm(CHALLENGER, "1"))
    whole = checked_options(policy, {**OPTIONS.get(policy, {}), **options}, challengers=1)
    release = Release(f"{policy}-{seed}", policy, "http", CHAMPION, arms, whole, seed, "", "")
    return play(release, _policy(release), {CHAMPION: CHAMPION_MODEL, CHALLENGER: KINDS[kind]}, seed=seed, world=world)


def _policy(release: Release) -> Policy:
    """The policy; the flag is on for a tenth of users, as a flag file would say it."""
    if release.policy != "feature_flag":
        return policy_for(release)
    return Governed(release, FeatureFlag(release, lambda user, _: point(salt="flag", user=user) < FLAGGED, None))


def compare(*, repeats: int, seed: int) -> dict[str, dict[str, list[Outcome]]]:
    """Policy -> kind of challenger -> an outcome a repeat."""
    return {
        policy: {kind: [simulated(policy, kind, seed=seed + n) for n in range(repeats)] for kind in KINDS}
        for policy in POLICIES
    }


def table(found: Mapping[str, Mapping[str, Sequence[Outcome]]]) -> list[dict[str, Any]]:
    """The policy table: means over the repeats, a row a policy."""
    rows = []
    for policy, by_kind in found.items():
        harmful = [one for kind in HARMFUL for one in by_kind[kind]]
        better, worse = by_kind["better"], by_kind["worse"]
        every = [one for outcomes in by_kind.values() for one in outcomes]
        row = {
            "policy": policy,
            "downtime s": f"{_mean(every, 'downtime'):.0f}",
            "better promoted": f"{_share(better, CHALLENGER):.0%}",
            "harmful kept out": f"{_share(harmful, CHAMPION):.0%}",
            "users who met a harmful one": f"{_mean(harmful, 'exposed'):.1%}",
            "biased kept out": f"{_share(by_kind['biased'], CHAMPION):.0%}",
            "minutes, requests to promote": _until([one for one in better if one.winner == CHALLENGER]),
            "minutes, requests to roll back": _until([o for o in harmful if o.action.value == "roll back"]),
            "copies": f"{_mean(every, 'copies'):.0%}",
            "regret if better": f"{_mean(better, 'regret'):.1f}",
            "regret if worse": f"{_mean(worse, 'regret'):.1f}",
            "use it when": WHEN[policy],
        }
        rows.append(row)
    return rows


def show(found: Mapping[str, Mapping[str, Sequence[Outcome]]], *, as_json: bool, markdown: bool) -> None:
    """Print the table, for a terminal, as Markdown, or every outcome as JSON."""
    from experiments.printing import print_table

    rows = table(found)
    if as_json:
        every = {
            policy: {
                kind: [{**asdict(one), "action": one.action.value} for one in outcomes]
                for kind, outcomes in kinds.items()
            }
            for policy, kinds in found.items()
        }
        print(json.dumps({"table": rows, "outcomes": every}, indent=2))
    elif markdown:
        print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
        for row in rows:
            named = {**row, "policy": f"`fl deploy {row['policy']}`"}
            print(f"| {' | '.join(named.values())} |")
    else:
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])


def _mean(outcomes: Sequence[Outcome], field: str) -> float:
    return sum(float(getattr(one, field)) for one in outcomes) / max(1, len(outcomes))


def _share(outcomes: Sequence[Outcome], winner: str) -> float:
    return sum(one.winner == winner for one in outcomes) / len(outcomes)


def _until(outcomes: Sequence[Outcome]) -> str:
    """Minutes and requests to a decision, the means; "never" where there was none."""
    if not outcomes:
        return "never"
    return f"{_mean(outcomes, 'seconds') / 60:,.1f}, {_mean(outcomes, 'requests'):,.0f}"
