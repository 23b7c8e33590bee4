"""FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, algorithm 1.

    client    K local steps of SGD on F_k from x
    server    x <- x + eta * sum_k (n_k / n) (y_k - x)

With eta = 1 that is the paper's weighted mean of local models; eta is the server step size of later work.
"""

from __future__ import annotations

from functools import partial

from fl.algorithms.algorithm import Aggregate, Algorithm, ServerState, check
from fl.parameters import Parameters, add, scale


def build(*, server_learning_rate: float = 1.0) -> Algorithm:
    """FedAvg with server step size eta = ``server_learning_rate`` > 0."""
    eta = check("server_learning_rate", server_learning_rate, above=0)
    return Algorithm(name="fedavg", server_update=partial(server_update, eta=eta))


def server_update(
    x: Parameters, state: ServerState, aggregate: Aggregate, *, eta: float
) -> tuple[Parameters, ServerState]:
    """x <- x + eta * delta. Other papers whose server half is FedAvg's use it too."""
    return add(x, scale(aggregate.delta, eta)), state
