"""SCAFFOLD: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, algorithm 1 with option II.

    client    every local gradient gains c - c_i
              c_i+ = c_i - c + (x - y_i) / (K eta_l);    sends y_i - x and c_i+ - c_i;    keeps c_i+
    server    x <- x + eta_g * mean(y_i - x)
              c <- c + |S| / N * mean(c_i+ - c_i)

S are those who answered, N is the population. The paper's mean of y_i - x is plain; like every algorithm here it
weighs by ``server.weighting``.
"""

from __future__ import annotations

from fl.algorithms import fedavg
from fl.algorithms.algorithm import Aggregate, Algorithm, Correction, LocalRun, ServerState, check, same_as_model
from fl.parameters import Parameters, add, scale, subtract, zeros_like


def build(*, server_learning_rate: float = 1.0) -> Algorithm:
    """SCAFFOLD with server step size eta_g = ``server_learning_rate`` > 0."""
    eta = check("server_learning_rate", server_learning_rate, above=0)

    def server_update(x: Parameters, state: ServerState, aggregate: Aggregate) -> tuple[Parameters, ServerState]:
        x, _ = fedavg.server_update(x, {}, aggregate, eta=eta)
        share = aggregate.num_clients / aggregate.population
        return x, {"c": add(state["c"], scale(aggregate.extra, share))}

    return Algorithm(
        name="scaffold",
        init_server=lambda x: {"c": zeros_like(x)},
        broadcast=lambda state: state["c"],
        init_client=same_as_model,
        extra_like=same_as_model,
        correction=_correction,
        client_update=_client_update,
        server_update=server_update,
    )


def _correction(shared: Parameters, state: Parameters, x: Parameters) -> Correction:
    return Correction(constant=subtract(shared, state))


def _client_update(run: LocalRun) -> tuple[Parameters, Parameters]:
    gradient = scale(subtract(run.start, run.end), 1 / (run.num_steps * run.learning_rate))
    moved = subtract(gradient, run.shared)  # c_i+ - c_i
    return add(run.state, moved), moved
