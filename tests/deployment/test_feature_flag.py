"""A flag by the standard: in memory, a flagd file that operators edit, and another policy behind it."""

import json
import os
import time

import pytest

from fl.decisions import Action
from fl.deployment import policy_for
from fl.errors import BadInput
from fl.releases import CHALLENGER, CHAMPION, assigned

pytest.importorskip("openfeature.contrib.provider.flagd")
USERS = [f"u{n}" for n in range(400)]


def flag_file(path, **flag):
    path.write_text(json.dumps({"flags": {"new-model": {"state": "ENABLED", **flag}}}))
    return str(path)


def arms(policy, state, context=None):
    return [policy.arm_for(state, user, context) for user in USERS]


@pytest.mark.parametrize(
    "value, arm", [(False, CHAMPION), (True, CHALLENGER), (CHALLENGER, CHALLENGER), ("nobody", CHAMPION)]
)
def test_a_flag_in_memory_says_who_sees_the_challenger(value, arm, release):
    policy = policy_for(release("feature_flag", value=value))
    state = policy.begin()
    routing = policy.routing(state)
    assert routing.flagged and routing.shares[CHAMPION] == 1  # for whom the flag is not asked
    assert set(arms(policy, state)) == {arm}


def test_a_flagd_file_gives_a_fraction_of_users_and_follows_its_edits(tmp_path, release):
    variants = {"variants": {"old": CHAMPION, "new": CHALLENGER}, "defaultVariant": "old"}
    path = flag_file(tmp_path / "flags.json", **variants, targeting={"fractional": [["old", 80], ["new", 20]]})
    policy = policy_for(release("feature_flag", flag="new-model", source=path))
    found = arms(policy, policy.begin())
    assert 0.1 < found.count(CHALLENGER) / len(USERS) < 0.3 and arms(policy, policy.begin()) == found
    flag_file(tmp_path / "flags.json", **{**variants, "defaultVariant": "new"})
    os.utime(path, (time.time() + 5, time.time() + 5))
    deadline = time.monotonic() + 20
    while policy.arm_for({}, "u1", None) != CHALLENGER or policy.arm_for({}, "u2", None) != CHALLENGER:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(arms(policy, policy.begin())) == {CHALLENGER}


def test_a_rule_of_the_file_sees_the_context(tmp_path, release):
    rule = {"if": [{"==": [{"var": "context"}, "staff"]}, "on", "off"]}
    variants = {"variants": {"on": True, "off": False}, "defaultVariant": "off"}
    path = flag_file(tmp_path / "flags.json", **variants, targeting=rule)
    policy = policy_for(release("feature_flag", flag="new-model", source=path))
    assert set(arms(policy, {}, "staff")) == {CHALLENGER} and set(arms(policy, {}, "guest")) == {CHAMPION}


def test_another_policy_sits_behind_the_flag(release, played):
    ordered = release("feature_flag", value=True, then="canary", then_options={"steps": [10, 100]})
    policy = policy_for(ordered)
    routing = policy.routing(policy.begin())
    assert routing.flagged and routing.shares == {CHAMPION: 0.9, CHALLENGER: 0.1}
    found = [
        policy.arm_for(policy.begin(), user, None) or assigned(routing, salt=ordered.id, user=user) for user in USERS
    ]
    assert 0.05 < found.count(CHALLENGER) / len(USERS) < 0.16
    state, decision, _ = played(policy, steps=200)[-1]
    assert decision.action is Action.PROMOTE and policy.routing(state).shares[CHALLENGER] == 1
    assert policy.arm_for(state, "u1", None) is None  # the flag's time is over


def test_a_file_without_the_flag_is_refused(tmp_path, release):
    path = flag_file(tmp_path / "flags.json", variants={"on": True}, defaultVariant="on")
    with pytest.raises(BadInput, match=r"--option flag: got old-model, allowed: a flag of .*new-model"):
        release("feature_flag", flag="old-model", source=path)
