"""FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys
2020, algorithm 2.

    client    y minimises F_k(y) + mu/2 |y - x|^2, inexactly: every local gradient gains mu (y - x)
    server    as FedAvg
"""

from __future__ import annotations

from functools import partial

from fl.algorithms import fedavg
from fl.algorithms.algorithm import Algorithm, Correction, check
from fl.parameters import Parameters


def build(*, mu: float = 0.01, server_learning_rate: float = 1.0) -> Algorithm:
    """FedProx with proximal weight ``mu`` >= 0; with 0 it is FedAvg."""
    mu = check("mu", mu, least=0)
    eta = check("server_learning_rate", server_learning_rate, above=0)

    def correction(shared: Parameters, state: Parameters, x: Parameters) -> Correction:
        return Correction(proximal=mu)

    return Algorithm(name="fedprox", correction=correction, server_update=partial(fedavg.server_update, eta=eta))
