"""What policies and routers say to each other: sticky users, figures that add up, records that survive JSON."""

import itertools
import json
import pickle

import numpy as np
import pytest
from scipy import stats

from fl.errors import BadInput
from fl.releases import (
    CHAMPION,
    LATENCY_EDGES,
    Arm,
    Figures,
    Release,
    Routing,
    arm_names,
    assigned,
    latency_bin,
)

USERS = [f"user-{n}" for n in range(4000)]


def routed(*challengers: float, salt: str = "canary-1", users: list[str] = USERS) -> list[str]:
    names = arm_names(len(challengers))
    shares = dict(zip(names, (1 - sum(challengers), *challengers), strict=True))
    return [assigned(Routing(shares), salt=salt, user=user) for user in users]


@pytest.mark.parametrize("shares", [(0.0,), (1.0,), (0.01,), (0.2, 0.3), (0.7, 0.2), (0.3, 0.3, 0.3), (0.0, 0.9, 0.05)])
def test_users_are_split_as_the_shares_say(shares):
    found = routed(*shares)
    for name, share in zip(arm_names(len(shares)), (1 - sum(shares), *shares), strict=True):
        count = found.count(name)
        assert count == round(share * len(USERS)) or stats.binomtest(count, len(USERS), share).pvalue > 1e-4


@pytest.mark.parametrize("challengers", [1, 2])
def test_no_user_leaves_an_arm_while_its_share_grows(challengers):
    random = np.random.default_rng(5)
    for _ in range(12):
        path = np.sort(random.dirichlet(np.ones(challengers + 1), size=4)[:, :challengers], axis=0)
        path = path[path.sum(axis=1) <= 1]
        for before, after in itertools.pairwise([routed(*map(float, step)) for step in path]):
            moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
            assert all(b == CHAMPION for b, _ in moved)


def test_five_challengers_that_grow_together_keep_their_users():
    steps = [routed(*[share] * 5) for share in (0.01, 0.05, 0.1, 0.2)]
    for before, after in itertools.pairwise(steps):
        assert all(b in (a, CHAMPION) for b, a in zip(before, after, strict=True))
    assert CHAMPION not in steps[-1]


def test_the_order_of_the_shares_changes_nothing():
    shares = {CHAMPION: 0.4, "challenger": 0.1, "challenger-2": 0.5}
    turned = dict(sorted(shares.items(), reverse=True))
    for user in USERS[:300]:
        assert assigned(Routing(shares), salt="x", user=user) == assigned(Routing(turned), salt="x", user=user)


def test_the_users_of_one_release_are_not_those_of_the_next():
    first, second = routed(0.5, salt="canary-1"), routed(0.5, salt="canary-2")
    both = sum(a == b == "challenger" for a, b in zip(first, second, strict=True))
    assert stats.binomtest(both, len(USERS), 0.25).pvalue > 1e-4


def test_shares_of_a_context_are_used_for_it_alone():
    routing = Routing({CHAMPION: 1.0, "challenger": 0.0}, shares_by_context={"night": {CHAMPION: 0, "challenger": 1}})
    assert assigned(routing, salt="r", user="a") == CHAMPION == assigned(routing, salt="r", user="a", context="day")
    assert assigned(routing, salt="r", user="a", context="night") == "challenger"


@pytest.mark.parametrize("shares", [{"champion": 0.5}, {"champion": 1.5, "challenger": -0.5}])
def test_shares_that_do_not_sum_to_one_are_refused(shares):
    with pytest.raises(BadInput, match="fractions that sum to 1"):
        Routing(shares)


def test_figures_of_two_spans_add_up_and_survive_json():
    one = Figures(requests=2, errors=1, rewards=2, reward_sum=1.5, by_context={"a": (1, 0.5), "b": (1, 1.0)})
    two = Figures(requests=3, users=1, latency_counts=(1,) * 62, by_context={"b": (2, 0.25)})
    both = one + two
    assert (both.requests, both.errors, both.users, both.reward_sum) == (5, 1, 1, 1.5)
    assert both.latency_counts == (1,) * 62 and both.by_context == {"a": (1, 0.5), "b": (3, 1.25)}
    assert Figures.from_dict(json.loads(json.dumps(both.to_dict()))) == both
    assert one + Figures() == one


def test_a_latency_falls_between_its_edges():
    for seconds in (0.00011, 0.003, 0.25, 7.0):
        bin_ = latency_bin(seconds)
        assert LATENCY_EDGES[bin_ - 1] <= seconds < LATENCY_EDGES[bin_]
    assert len(Figures().latency_counts) == len(LATENCY_EDGES) + 1 == 62


def test_a_release_survives_json_and_pickling():
    arms = (Arm("champion", "a" * 64), Arm("challenger", "b" * 64))
    release = Release("canary-1", "canary", "http", "champion", arms, {"steps": [0.1, 1.0]}, 1, "2026", "ann")
    assert (
        Release.from_dict(json.loads(json.dumps(release.to_dict()))) == release == pickle.loads(pickle.dumps(release))
    )
    assert release.version("challenger") == "b" * 64 and release.names == ("champion", "challenger")
