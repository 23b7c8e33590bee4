"""Each algorithm against its paper's equations, worked out by hand. What all of them promise is in tests/contracts."""

from __future__ import annotations

import numpy as np
import pytest

from fl.algorithms import fedadam, fedavg, fedprox, scaffold
from fl.algorithms.algorithm import Aggregate, Algorithm, Correction, LocalRun, check, load_algorithm
from fl.errors import BadInput


def of(value):
    return {"w": np.array([float(value)])}


def number(parameters):
    return parameters["w"].item()


def aggregate(delta, *, extra=None, num_clients=2, population=2):
    return Aggregate(of(delta), {} if extra is None else of(extra), num_clients, population)


# --- FedAvg -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta, expected", [(1.0, 1.5), (0.5, 1.25)])
def test_fedavg_steps_by_eta_times_the_mean(eta, expected):
    x, state = fedavg.build(server_learning_rate=eta).server_update(of(1), {}, aggregate(0.5))
    assert (number(x), state) == (expected, {})


# --- FedProx ----------------------------------------------------------------------------------------------------


def test_fedprox_adds_mu_times_the_way_from_x_and_nothing_else():
    algorithm = fedprox.build(mu=0.25, server_learning_rate=2.0)
    assert algorithm.correction({}, {}, of(1)) == Correction(proximal=0.25, constant={})
    assert number(algorithm.server_update(of(1), {}, aggregate(0.5))[0]) == 2.0
    assert not algorithm.keeps_client_state


def test_fedprox_without_mu_is_fedavg():
    assert fedprox.build(mu=0).correction({}, {}, of(1)) == Correction()


# --- FedAdam ----------------------------------------------------------------------------------------------------


def test_fedadam_takes_the_two_steps_worked_out_by_hand():
    """beta_1 = beta_2 = tau = 1/2, eta = 2/5, x = 0; deltas 1/2, then 7/2.

    m_0 = 0             v_0 = tau^2 = 1/4
    m_1 = 1/4           v_1 = 1/8 + 1/8 = 1/4         x_1 = 0 + 2/5 * (1/4) / (1/2 + 1/2) = 1/10
    m_2 = 1/8 + 7/4     v_2 = 1/8 + 49/8 = 25/4       x_2 = 1/10 + 2/5 * (15/8) / (5/2 + 1/2) = 7/20
    """
    algorithm = fedadam.build(server_learning_rate=0.4, beta_1=0.5, beta_2=0.5, tau=0.5)
    state = algorithm.init_server(of(0))
    assert (number(state["m"]), number(state["v"])) == (0, 0.25)
    x, state = algorithm.server_update(of(0), state, aggregate(0.5))
    assert (number(state["m"]), number(state["v"])) == (0.25, 0.25)
    assert number(x) == pytest.approx(1 / 10, rel=1e-15)
    x, state = algorithm.server_update(x, state, aggregate(3.5))
    assert (number(state["m"]), number(state["v"])) == (1.875, 6.25)
    assert number(x) == pytest.approx(7 / 20, rel=1e-15)


def test_fedadam_corrects_no_bias_and_steps_each_number_by_its_own_scale():
    algorithm = fedadam.build(server_learning_rate=0.1, beta_1=0.0, beta_2=0.0, tau=1e-9)
    x = {"w": np.zeros(3)}
    moved, _ = algorithm.server_update(
        x, algorithm.init_server(x), Aggregate({"w": np.array([1e-3, -5.0, 0.0])}, {}, 2, 2)
    )
    assert moved["w"] == pytest.approx([0.1, -0.1, 0.0], rel=1e-5)


# --- SCAFFOLD ---------------------------------------------------------------------------------------------------


def test_scaffold_option_two_by_hand():
    """x = 1, y_i = 0.4 after K = 3 steps of 0.1: mean gradient 2; c = 0.5, c_i = 0.25.

    c_i+ = c_i - c + 2 = 1.75, sent is c_i+ - c_i = 1.5.
    """
    algorithm = scaffold.build()
    assert number(algorithm.correction(of(0.5), of(0.25), of(1)).constant) == 0.25
    assert algorithm.correction(of(0.5), of(0.25), of(1)).proximal == 0
    state, extra = algorithm.client_update(LocalRun(of(1), of(0.4), 3, 0.1, of(0.5), of(0.25)))
    assert number(state) == pytest.approx(1.75, rel=1e-14)
    assert number(extra) == pytest.approx(1.5, rel=1e-14)


def test_scaffolds_c_moves_by_the_share_of_the_population_that_answered():
    algorithm = scaffold.build(server_learning_rate=0.5)
    assert number(algorithm.broadcast(algorithm.init_server(of(1)))) == 0
    answered = aggregate(0.5, extra=2, num_clients=3, population=12)
    x, state = algorithm.server_update(of(1), {"c": of(0.25)}, answered)
    assert number(x) == 1.25
    assert number(algorithm.broadcast(state)) == 0.25 + 2 * 3 / 12


def test_scaffolds_c_stays_the_mean_of_all_clients_c_i():
    """However few take part in a round, as long as c and every c_i begin at zero."""
    algorithm, draw, population = scaffold.build(), np.random.default_rng(0), 5
    x, server = of(1), algorithm.init_server(of(1))
    states = [algorithm.init_client(x) for _ in range(population)]
    for round in range(20):
        cohort, sent = draw.choice(population, size=1 + round % population, replace=False), []
        for client in cohort:
            run = LocalRun(x, of(draw.normal()), 4, 0.1, algorithm.broadcast(server), states[client])
            states[client], extra = algorithm.client_update(run)
            sent.append(number(extra))
        x, server = algorithm.server_update(
            x, server, aggregate(draw.normal(), extra=np.mean(sent), num_clients=len(cohort), population=population)
        )
        assert number(server["c"]) == pytest.approx(np.mean([number(c) for c in states]), abs=1e-12)


# --- from the configuration -------------------------------------------------------------------------------------


def test_an_algorithm_is_built_by_the_function_that_is_named():
    algorithm = load_algorithm({"_target_": "fl.algorithms.fedprox.build", "mu": 0.5})
    assert algorithm.name == "fedprox"
    assert algorithm.correction({}, {}, of(1)).proximal == 0.5


@pytest.mark.parametrize(
    "target", ["", "None", "build", "fl.algorithms.absent.build", "fl.algorithms.fedavg.absent", "."]
)
def test_a_function_that_is_not_there_is_named(target):
    with pytest.raises(BadInput, match="a function that builds an algorithm") as raised:
        load_algorithm({"_target_": target})
    assert (raised.value.key, raised.value.got) == ("algorithm._target_", target)


def test_a_configuration_without_a_function_says_so():
    with pytest.raises(BadInput, match=r"algorithm\._target_: got None"):
        load_algorithm({})


@pytest.mark.parametrize("target", ["builtins.dict", "math.pi", "collections.OrderedDict"])
def test_what_gives_no_algorithm_is_named(target):
    with pytest.raises(BadInput, match="a function that returns an Algorithm") as raised:
        load_algorithm({"_target_": target})
    assert (raised.value.key, raised.value.got) == ("algorithm._target_", target)


def test_an_option_that_is_missing_is_named():
    with pytest.raises(BadInput, match=r"algorithm\.server_update: got nothing, allowed: a value"):
        load_algorithm({"_target_": "fl.algorithms.algorithm.Algorithm", "name": "own"})


def test_an_option_that_is_unknown_is_named_with_those_there_are():
    with pytest.raises(BadInput) as raised:
        load_algorithm({"_target_": "fl.algorithms.fedprox.build", "mü": 1})
    expected = "algorithm.mü: got 1, allowed: only what fl.algorithms.fedprox.build takes: mu, server_learning_rate"
    assert str(raised.value) == expected


def test_only_a_server_half_is_needed():
    algorithm = Algorithm(name="own", server_update=lambda x, state, aggregate: (x, state))
    x = of(1)
    assert not algorithm.keeps_client_state
    assert (
        algorithm.init_server(x) == algorithm.broadcast({}) == algorithm.init_client(x) == algorithm.extra_like(x) == {}
    )
    assert algorithm.correction({}, {}, x) == Correction()
    assert algorithm.client_update(LocalRun(x, x, 1, 0.1, {}, {})) == ({}, {})


@pytest.mark.parametrize(
    "limits, good, bad, allowed",
    [
        ({"above": 0}, [1e-9, 1, 10**6], [0, -1], "a number above 0"),
        ({"least": 0}, [0, 0.5], [-1e-9], "a number at least 0"),
        ({"least": 0, "below": 1}, [0, 0.999], [1, -0.1], "a number at least 0 and below 1"),
    ],
)
def test_limits(limits, good, bad, allowed):
    for value in good:
        assert check("mu", value, **limits) == value
        assert isinstance(check("mu", value, **limits), float)
    for value in (*bad, float("nan"), float("inf"), "1", None, True, [1]):
        with pytest.raises(BadInput) as raised:
            check("mu", value, **limits)
        assert str(raised.value) == f"algorithm.mu: got {value!r}, allowed: {allowed}"
