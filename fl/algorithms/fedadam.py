"""FedAdam: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR
2021, algorithm 2.

    client    as FedAvg
    server    m <- beta_1 m + (1 - beta_1) delta
              v <- beta_2 v + (1 - beta_2) delta^2
              x <- x + eta m / (sqrt(v) + tau)

As in the paper there is no bias correction, and v starts at tau^2.
"""

from __future__ import annotations

import numpy as np

from fl.algorithms.algorithm import Aggregate, Algorithm, ServerState, check
from fl.parameters import Parameters, add, scale, zeros_like


def build(
    *, server_learning_rate: float = 0.01, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """FedAdam with server step size eta > 0, decay rates in [0, 1) and adaptivity tau > 0."""
    eta = check("server_learning_rate", server_learning_rate, above=0)
    beta_1, beta_2 = check("beta_1", beta_1, least=0, below=1), check("beta_2", beta_2, least=0, below=1)
    tau = check("tau", tau, above=0)

    def init_server(x: Parameters) -> ServerState:
        return {"m": zeros_like(x), "v": {name: np.full_like(value, tau**2) for name, value in x.items()}}

    def server_update(x: Parameters, state: ServerState, aggregate: Aggregate) -> tuple[Parameters, ServerState]:
        delta = aggregate.delta
        m = add(scale(state["m"], beta_1), scale(delta, 1 - beta_1))
        v = add(scale(state["v"], beta_2), scale({k: d * d for k, d in delta.items()}, 1 - beta_2))
        x = add(x, scale({k: m[k] / (np.sqrt(v[k]) + v[k].dtype.type(tau)) for k in x}, eta))
        return x, {"m": m, "v": v}

    return Algorithm(name="fedadam", init_server=init_server, server_update=server_update)
