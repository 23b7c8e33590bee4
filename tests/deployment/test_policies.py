"""What is promised of every release policy, over all of them."""

import itertools
import json

import pytest

from fl.decisions import Action
from fl.deployment import POLICIES, checked_options, policy_for
from fl.errors import BadInput
from fl.releases import (
    CHALLENGER,
    CHAMPION,
    Evidence,
    Release,
    assigned,
)

ENDS = (Action.PROMOTE, Action.ROLL_BACK, Action.STOP)


@pytest.fixture(params=POLICIES)
def name(request):
    return request.param


def some(name: str) -> list[int]:
    return [1, 2] if POLICIES[name].several else [1]


def test_there_are_eight():
    assert len(POLICIES) == 8


def test_shares_sum_to_one_and_every_arm_has_one(name, release, played):
    for challengers in some(name):
        ordered = release(name, challengers)
        for _, _, routing in played(policy_for(ordered), steps=60):
            assert tuple(routing.shares) == ordered.names and sum(routing.shares.values()) == pytest.approx(1)


def test_a_restarted_policy_goes_on_where_it_was(name, release, played):
    """State through JSON after every step, in a policy that was made anew: the same states and decisions."""
    ordered = release(name)
    straight = played(policy_for(ordered), steps=40)
    state = policy_for(ordered).begin()
    for second, (wanted, decision, _) in enumerate(straight):
        again = policy_for(Release.from_dict(json.loads(json.dumps(ordered.to_dict()))))
        ((state, found, _),) = played(again, start=second, stop=second + 1, state=json.loads(json.dumps(state)))
        assert json.loads(json.dumps(state)) == json.loads(json.dumps(wanted)) and found == decision


def test_the_same_evidence_gives_the_same_decisions(name, release, played):
    first, second = (played(policy_for(release(name)), steps=30) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("harm", [{"errors": 0.3}, {"seconds": 2.0}])
def test_harm_is_rolled_back_and_the_champion_has_everybody(name, harm, release, played):
    if name in ("recreate", "shadow"):  # the one cannot see it in time, the other only reports it
        pytest.skip("does not act on harm")
    told = played(policy_for(release(name)), **harm)
    state, decision, _ = told[-1]
    assert decision.action is Action.ROLL_BACK and len(told) < 60, decision
    routing = policy_for(release(name)).routing(state)
    assert routing.shares == {CHAMPION: 1.0, CHALLENGER: 0.0} and not routing.mirrors and not routing.closed
    again, decision = policy_for(release(name)).step(state, Evidence({}, 0, 1))
    assert again == state and decision.action is Action.HOLD


def test_a_good_challenger_gets_through(name, release, played):
    state, decision, _ = played(policy_for(release(name)), steps=600, reward=0.95)[-1]
    wanted = {"shadow": Action.STOP, "feature_flag": Action.HOLD}.get(name, Action.PROMOTE)
    assert decision.action is wanted, decision
    if wanted is Action.PROMOTE:
        assert state["winner"] == CHALLENGER
        assert policy_for(release(name)).routing(state).shares == {CHAMPION: 0.0, CHALLENGER: 1.0}


def test_nobody_changes_arm_while_shares_only_grow(name, release, played):
    for challengers in some(name):
        ordered = release(name, challengers)
        policy = policy_for(ordered)
        users = [f"u{n}" for n in range(300)]
        found = [
            (r.shares, [assigned(r, salt=ordered.id, user=u) for u in users])
            for _, _, r in played(policy, steps=25, reward=0.85)
            if r.sticky
        ]
        for (before, old), (after, new) in itertools.pairwise(found):
            if all(after[arm] >= before[arm] for arm in ordered.names[1:]):
                assert all(b in (a, CHAMPION) for b, a in zip(old, new, strict=True))


def test_the_worse_of_two_challengers_leaves_and_the_other_goes_on(release, figures):
    for name in ("canary", "ab_test", "bandit"):
        policy = policy_for(release(name, 2))
        state = policy.begin()
        for second in range(600):
            shares = policy.routing(state).shares
            counted = {arm: figures(round(1000 * share), reward=0.8) for arm, share in shares.items()}
            counted["challenger"] = figures(round(1000 * shares["challenger"]), errors=0.4, reward=0.6)
            counted["challenger-2"] = figures(round(1000 * shares["challenger-2"]), reward=0.9)
            state, decision = policy.step(state, Evidence(counted, second, second + 1))
            if decision.action in ENDS:
                break
        assert decision.action is Action.PROMOTE and state["winner"] == "challenger-2", (name, decision)


def test_every_default_is_allowed_and_every_option_explained(name):
    kind = POLICIES[name]
    for option in kind.options.values():
        assert option.fits(option.default) and option.means and option.allowed
    assert json.loads(json.dumps(checked_options(name, {}, challengers=1)))


BAD = [
    ("canary", {"steps": [5, 1]}, 1, "--option steps: got .*allowed: numbers above 0, rising"),
    ("canary", {"step": [1]}, 1, "--option: got step, allowed: for canary: steps, requests"),
    ("canary", {"confidence": 1.0}, 1, "--option confidence: got 1.0, allowed: a number between 0.5 and 1"),
    ("rolling", {"replicas": 0}, 1, "an integer from 1"),
    ("rolling", {}, 2, "--challenger: got 2 of them, allowed: one, for rolling"),
    ("bandit", {"algorithm": "softmax"}, 1, "thompson, ucb, epsilon_greedy"),
    ("bandit", {"contextual": 1}, 1, "false, true"),
    ("ab_test", {"power": 0.99}, 1, "from 0.5 to 0.95"),
    ("feature_flag", {"then": "feature_flag"}, 1, "any other policy"),
    ("feature_flag", {"source": "nowhere.json"}, 1, "--option source: got nowhere.json"),
    ("feature_flag", {"then": "canary", "then_options": {"steps": []}}, 1, "--option steps"),
    ("green_blue", {}, 1, "POLICY: got green_blue, allowed: recreate, rolling"),
]


@pytest.mark.parametrize("policy, options, challengers, words", BAD)
def test_options_are_checked_before_anything_is_ordered(policy, options, challengers, words):
    with pytest.raises(BadInput, match=words):
        checked_options(policy, options, challengers=challengers)
