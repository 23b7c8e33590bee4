"""What the release policies promise users, shown on simulated ones."""

import math

import numpy as np
import pytest

from experiments.release_comparison import simulated
from experiments.release_simulation import World
from fl.decisions import Action
from fl.deployment import checked_options, policy_for
from fl.deployment.ab_test import plan
from fl.deployment.confidence import Difference, Sample
from fl.releases import CHALLENGER, CHAMPION, Arm, Evidence, Figures, Release

PLAN = plan(checked_options("ab_test", {}, challengers=1), challengers=1)
LOOK = 20
"""Users of each arm between two looks of the real policy."""


def experiment(seed: int, *, effect: float, mean: float):
    """One A/B test by the real policy on users of two Bernoulli means, looked at all the time."""
    arms = (Arm(CHAMPION, "0"), Arm(CHALLENGER, "1"))
    options = checked_options("ab_test", {}, challengers=1)
    policy = policy_for(Release("ab", "ab_test", "http", CHAMPION, arms, options, seed, "", ""))
    random, state, now = np.random.default_rng([7, seed]), policy.begin(), 0
    while True:
        counted = {}
        for name, chance in ((CHAMPION, mean), (CHALLENGER, mean + effect)):
            right = float((random.random(LOOK) < chance).sum())
            counted[name] = Figures(users=LOOK, user_rewards=LOOK, user_reward_sum=right, user_reward_squares=right)
        state, decision = policy.step(state, Evidence(counted, now, now + 1))
        now += 1
        if decision.action is not Action.HOLD:
            return decision, 2 * LOOK * now


def test_the_plan_says_how_many_users_at_most():
    assert 7000 < PLAN["users"] < 10_000 and PLAN["hypothesis"].endswith("by 0.05 or more")
    decision, users = experiment(1, effect=0.0, mean=0.5)
    assert decision.action is Action.ROLL_BACK and users <= PLAN["users"] + 2 * LOOK


@pytest.mark.parametrize("mean", [0.5, 0.8])
def test_a_difference_that_is_none_is_claimed_in_at_most_5_percent_of_tests_after_each_user(mean):
    """400 tests looked at after every pair of users, up to the planned end; the naive test errs far more often."""
    random, n = np.random.default_rng(3), np.arange(1, PLAN["users"] // 2 + 1)
    first, second = ((random.random((400, len(n))) < mean).cumsum(axis=1) for _ in range(2))
    variance = sum((s - s**2 / n) / np.maximum(n - 1, 1) / n for s in (first, second))
    variance[:, :50] = np.inf  # no look before the first 50
    information, found = 1 / variance, (second - first) / n
    mixed = 0.05**2 * information
    ratio = -0.5 * np.log1p(mixed) + mixed * information * found**2 / (2 * (1 + mixed))
    for k in (60, 500, 3000):
        ours = Difference(*(Sample(k + 1, float(s[0, k]), float(s[0, k])) for s in (first, second)), tau=0.05)
        assert ours.log_ratio() == pytest.approx(ratio[0, k])
    claimed = (ratio >= math.log(20)).any(axis=1).mean()
    naive = (np.abs(found) * np.sqrt(information) > 1.96).any(axis=1).mean()
    assert claimed <= 0.05 and naive > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.5, 0.8])
def test_the_policy_claims_a_difference_that_is_none_in_at_most_5_percent_of_400_tests(mean):
    decisions = [experiment(seed, effect=0.0, mean=mean)[0] for seed in range(400)]
    assert sum("differs by" in decision.reason for decision in decisions) <= 0.05 * 400
    assert sum("cannot be trusted" in decision.reason for decision in decisions) == 0


@pytest.mark.slow
def test_the_policy_finds_the_planned_effect_in_at_least_90_percent_of_400_tests():
    found = [experiment(seed, effect=0.05, mean=0.475) for seed in range(400)]
    assert sum(decision.action is Action.PROMOTE for decision, _ in found) >= 0.9 * 400
    assert np.mean([users for _, users in found]) < 0.7 * PLAN["users"]  # and earlier than planned


def test_a_difference_to_the_worse_is_never_promoted():
    found = [experiment(seed, effect=-0.4, mean=0.8)[0] for seed in range(20)]
    assert all(decision.action is Action.ROLL_BACK for decision in found)
    assert any("differs by -" in decision.reason for decision in found)


def test_users_who_were_not_split_as_they_should_be_end_the_test():
    arms = (Arm(CHAMPION, "0"), Arm(CHALLENGER, "1"))
    options = checked_options("ab_test", {}, challengers=1)
    policy = policy_for(Release("ab", "ab_test", "http", CHAMPION, arms, options, 1, "", ""))
    counted = {CHAMPION: Figures(users=5000), CHALLENGER: Figures(users=4500)}
    _, decision = policy.step(policy.begin(), Evidence(counted, 0, 1))
    assert decision.action is Action.ROLL_BACK and "cannot be trusted" in decision.reason


SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 11))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["worse", "slower", "crashing"])
def test_a_canary_that_does_harm_is_rolled_back_before_5_percent_of_users_met_it(kind, seed):
    found = simulated("canary", kind, seed=seed)
    assert found.action is Action.ROLL_BACK and found.exposed < 0.05, found


@pytest.mark.parametrize("policy", ["blue_green", "shadow"])
def test_nobody_meets_a_challenger_that_crashes_on_copies(policy):
    assert simulated(policy, "crashing", seed=1).exposed == 0


@pytest.mark.parametrize("seeds", [range(1, 5), pytest.param(range(1, 31), marks=pytest.mark.slow)])
def test_thompson_loses_fewer_rewards_than_the_ab_test(seeds):
    regret = {
        policy: np.mean([simulated(policy, kind, seed=s).regret for s in seeds for kind in ("better", "worse")])
        for policy in ("bandit", "ab_test")
    }
    assert regret["bandit"] < regret["ab_test"]


def test_only_recreate_has_downtime_and_it_is_what_stopping_and_starting_takes():
    assert 12 <= simulated("recreate", "better", seed=1).downtime <= 20
    assert simulated("rolling", "better", seed=1).downtime == 0


def test_a_contextual_bandit_gives_each_context_its_own_best():
    arms = (Arm(CHAMPION, "0"), Arm(CHALLENGER, "1"))
    options = checked_options("bandit", {"contextual": True, "rewards": 10**6, "value_remaining": 0.0}, challengers=1)
    policy = policy_for(Release("b", "bandit", "http", CHAMPION, arms, options, 1, "", ""))
    chances = {"day": {CHAMPION: 0.8, CHALLENGER: 0.6}, "night": {CHAMPION: 0.5, CHALLENGER: 0.7}}
    random, state = np.random.default_rng(4), policy.begin()
    for now in range(60):
        routing, counted = policy.routing(state), {}
        for name in (CHAMPION, CHALLENGER):
            shares = {c: (routing.shares_by_context or {}).get(c, routing.shares)[name] for c in chances}
            told = {c: (n := round(100 * shares[c]), float(random.binomial(n, chances[c][name]))) for c in chances}
            count, total = sum(n for n, _ in told.values()), sum(right for _, right in told.values())
            counted[name] = Figures(requests=count, rewards=count, reward_sum=total, by_context=told)
        state, decision = policy.step(state, Evidence(counted, now, now + 1))
        assert decision.action in (Action.HOLD, Action.GO_ON)
    shares = policy.routing(state).shares_by_context
    assert shares["day"][CHAMPION] > 0.95 and shares["night"][CHALLENGER] > 0.95


@pytest.mark.parametrize("algorithm", ["ucb", "epsilon_greedy"])
def test_the_other_bandits_find_the_better_one_too(algorithm):
    assert simulated("bandit", "better", seed=2, algorithm=algorithm).winner == CHALLENGER


def test_a_simulation_is_the_same_for_the_same_seed():
    small = World(users=500, per_second=5.0, seconds=600.0)
    first, second = (simulated("bandit", "biased", seed=9, world=small) for _ in range(2))
    assert first == second != simulated("bandit", "biased", seed=10, world=small)
