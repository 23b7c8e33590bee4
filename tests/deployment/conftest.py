"""Releases without a registry, and steps of a policy with requests as its routing says."""

import pytest

from fl.decisions import Action
from fl.deployment import checked_options
from fl.releases import CHALLENGER, CHAMPION, Arm, Evidence, Figures, Release, arm_names, latency_bin

ENDS = (Action.PROMOTE, Action.ROLL_BACK, Action.STOP)


def make_release(policy: str, challengers: int = 1, **options) -> Release:
    arms = tuple(Arm(name, name * 4) for name in arm_names(challengers))
    whole = checked_options(policy, options, challengers=challengers)
    return Release(f"{policy}-1", policy, "http", CHAMPION, arms, whole, 3, "", "")


def make_figures(requests: int, *, errors=0.0, reward=None, seconds=0.01, agreed=0.95, users=0) -> Figures:
    latencies = [0] * 62
    latencies[latency_bin(seconds)] = requests
    told = {} if reward is None else {"rewards": requests, "reward_sum": reward * requests}
    if reward is not None:  # of 0 and 1
        of_users = {"user_rewards": requests, "user_reward_sum": reward * requests}
        told |= {"reward_squares": reward * requests, **of_users, "user_reward_squares": reward * requests}
    count = round(errors * requests)
    compared = {"compared": requests, "agreed": round(agreed * requests)}
    return Figures(requests=requests, errors=count, users=users, latency_counts=tuple(latencies), **told, **compared)


def play(policy, *, steps=400, requests=400, state=None, start=0, stop=None, **challenger):
    """Steps of a second with requests as the routing says; states and decisions up to the end of the release."""
    state, told = policy.begin() if state is None else state, []
    for second in range(start, steps):
        routing = policy.routing(state)
        counted = {}
        shares = {CHAMPION: 0.5, CHALLENGER: 0.5} if routing.flagged else routing.shares  # a flag that is on for half
        for name, share in shares.items():
            number = requests if name in routing.mirrors else 0 if routing.closed else round(share * requests)
            about = {"reward": 0.8} if name == CHAMPION else {"reward": 0.8, **challenger}
            if name in routing.mirrors:
                about["reward"] = None
            counted[name] = make_figures(number, users=number, **about)
        ready = dict(routing.replicas or {})
        state, decision = policy.step(state, Evidence(counted, second, second + 1, ready))
        told.append((state, decision, routing))
        if decision.action in ENDS or second + 1 == stop:
            break
    return told


@pytest.fixture
def release():
    """A release of so many challengers under a policy, with these options."""
    return make_release


@pytest.fixture
def figures():
    """Figures of so many requests."""
    return make_figures


@pytest.fixture
def played():
    """Play steps of a second; states, decisions and routings up to the end of the release."""
    return play
