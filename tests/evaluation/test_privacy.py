"""What the noise of rounds bought: the closed form by SciPy, Opacus' accountants, and a run with Flower's strategy."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from experiments import cli
from experiments.run import simulate
from fl.evaluation.privacy import Round, gaussian_delta, gaussian_epsilon, spent
from fl.registry import Registry

FIXED = {
    "_target_": "flwr.serverapp.strategy.DifferentialPrivacyServerSideFixedClipping",
    "strategy": {"_target_": "flwr.serverapp.strategy.FedAvg"},
    "noise_multiplier": 2.0,
    "clipping_norm": 1.0,
}
DELTA = 1e-5


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_epsilon_is_the_closed_form_s(mu):
    from scipy.optimize import brentq
    from scipy.stats import norm

    def delta(epsilon):
        far = epsilon + norm.logcdf(-mu / 2 - epsilon / mu)
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(far)

    assert gaussian_epsilon(mu, DELTA) == pytest.approx(brentq(lambda e: delta(e) - DELTA, 0, 2000), rel=1e-6)
    assert gaussian_delta(mu, 0.7 * mu) == pytest.approx(delta(0.7 * mu), rel=1e-9)


def test_delta_is_what_the_mechanism_itself_shows():
    """By its definition: the most that P(output) - e^eps P'(output) comes to, over outputs drawn by the mechanism."""
    mu, epsilon = 1.5, 1.0
    x = np.random.default_rng(1).normal(mu, 1.0, 2_000_000)
    loss = mu * x - mu * mu / 2  # log of the ratio of the two densities
    assert gaussian_delta(mu, epsilon) == pytest.approx(np.maximum(0, 1 - np.exp(epsilon - loss)).mean(), abs=1e-3)


@pytest.mark.parametrize("noise, rounds", [(1.0, 1), (4.0, 20), (8.0, 3)])
def test_opacus_accountants_say_the_same_where_everybody_takes_part(noise, rounds):
    accountants = pytest.importorskip("opacus.accountants")
    found = spent(
        [Round(range(5), 5)] * rounds,
        strategy={**FIXED, "noise_multiplier": noise}, weighting="uniform", cohort_size=5, num_clients=5,
    )  # fmt: skip
    assert found["delta"] == DELTA and found["most_rounds_of_a_client"] == rounds
    told = {}
    for kind in ("RDPAccountant", "PRVAccountant"):
        accountant = getattr(accountants, kind)()
        accountant.history = [(noise, 1.0, rounds)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told[kind] = accountant.get_epsilon(DELTA)
    assert found["epsilon"] == pytest.approx(told["PRVAccountant"], abs=0.02)  # its stated error is 0.01
    assert found["epsilon"] <= told["RDPAccountant"] * 1.0001 < found["epsilon"] * 1.3  # a bound, and not far off


def test_who_was_asked_most_often_counts_and_fewer_answers_cost_more():
    def epsilon(*rounds):
        return spent(rounds, strategy=FIXED, weighting="uniform", cohort_size=2, num_clients=4)["epsilon"]

    one = gaussian_epsilon(1 / 2, DELTA)
    assert epsilon(Round([0, 1], 2), Round([2, 3], 2)) == pytest.approx(one)
    assert epsilon(Round([0, 1], 2), Round([1, 3], 2)) == pytest.approx(gaussian_epsilon(math.sqrt(2) / 2, DELTA))
    assert epsilon(Round([0, 1], 1)) == pytest.approx(gaussian_epsilon(1.0, DELTA))  # the noise was made for two
    assert epsilon(Round([0, 1], 0)) == epsilon() == 0.0  # nothing was released


@pytest.mark.parametrize(
    "change, words",
    [
        ({"strategy": {"_target_": None}}, "adds no noise"),
        ({"strategy": {**FIXED, "_target_": FIXED["_target_"].replace("Fixed", "Adaptive")}}, "adapts"),
        ({"strategy": {**FIXED, "strategy": {"_target_": "flwr.serverapp.strategy.FedAdam"}}}, "FedAdam"),
        ({"strategy": {**FIXED, "noise_multiplier": 0.0}}, "multiplier is 0"),
        ({"weighting": "examples"}, "server.weighting=uniform"),
        ({"earlier": True}, "another run"),
        ({"rounds": [Round([0], None)]}, "how many answered"),
    ],
)
def test_what_cannot_be_accounted_says_why(change, words):
    given = {"strategy": FIXED, "weighting": "uniform", "cohort_size": 1, "num_clients": 4, **change}
    assert words in spent(given.pop("rounds", [Round([0], 1)]), **given)["absent"]


def test_a_run_with_noise_is_accounted_and_accepted_by_it(settings, tmp_path, capsys):
    noisy = ("strategy=dp_server_fixed", "strategy.noise_multiplier=3", "server.weighting=uniform")
    simulate(settings(*noisy, name="noisy"))
    registry = Registry(tmp_path / "registry")
    where = ["--registry", str(registry.folder)]
    latest = registry.latest("noisy")
    assert latest is not None and latest.round == 2
    assert cli.run(["accept", latest.name, "epsilon=0.1", *where, "--json"]) == 4
    (reason,) = json.loads(capsys.readouterr().out)["reasons"]
    found = registry.evidence(latest)["evaluate"]["privacy"]
    cohorts = [set(registry.version(f"noisy:{r}").manifest["cohort"]) for r in (1, 2)]
    assert found["most_rounds_of_a_client"] == (2 if cohorts[0] & cohorts[1] else 1)
    assert found["epsilon"] == pytest.approx(gaussian_epsilon(math.sqrt(found["most_rounds_of_a_client"]) / 3, DELTA))
    assert reason == f"epsilon at most 0.1: {found['epsilon']:.6g} spent, at delta 1e-05"
    assert cli.run(["accept", latest.name, "epsilon=5", *where]) == 0
    simulate(settings(*noisy[:2], name="weighed"))
    capsys.readouterr()
    assert cli.run(["accept", "weighed:2", "epsilon=5", *where, "--json"]) == 4
    assert "server.weighting=uniform" in json.loads(capsys.readouterr().out)["reasons"][0]
