"""Synthetic(alpha, beta), of FedProx: T. Li et al., Federated Optimization in Heterogeneous Networks, 2020.

    client k:   u_k ~ N(0, alpha)                  B_k ~ N(0, beta)
                W_k, b_k ~ N(u_k, 1)               v_k ~ N(B_k, 1)            its own model; the mean of its inputs
                x ~ N(v_k, diag(j^-1.2))           y = argmax(W_k x + b_k)
    sizes       n_k = floor(lognormal(4, 2)) + 50

alpha says how much the clients' models differ, beta how much their inputs do. As in the authors' program, alpha and
beta are standard deviations.
"""

from __future__ import annotations

import numpy as np

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator


def synthetic(
    *, alpha: float = 1.0, beta: float = 1.0, clients: int = 30, dimension: int = 60, classes: int = 10, seed: int = 0
) -> Dataset:
    """Draw the data of ``clients`` natural clients: x (n, dimension) float32, y in 0 .. classes-1.

    Each client draws from its own address, so the data of client k do not depend on how many clients there are.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < np.inf:
            raise BadInput(key=f"dataset.{name}", got=value, allowed="a number from 0")
    for name, count, least in (("clients", clients, 1), ("dimension", dimension, 1), ("classes", classes, 2)):
        if count < least:
            raise BadInput(key=f"dataset.{name}", got=count, allowed=f"a whole number from {least}")
    drawn = [_client(k, alpha, beta, dimension, classes, seed) for k in range(clients)]
    return from_arrays(
        {
            "x": np.concatenate([x for x, _ in drawn]),
            "y": np.concatenate([y for _, y in drawn]),
            "client": np.repeat(np.arange(clients), [len(y) for _, y in drawn]),
        },
        name="synthetic",
        source="the generator",
        task="classification",
        class_names=[str(c) for c in range(classes)],
        origin=f"drawn: Synthetic({alpha:g}, {beta:g}) of Li et al. 2020, {clients} clients, seed {seed}",
        licence="none needed",
    )


def _client(k: int, alpha: float, beta: float, dimension: int, classes: int, seed: int) -> tuple[Array, Array]:
    draw = generator(seed, purpose="synthetic", client=k)
    num_examples = int(draw.lognormal(4, 2)) + 50
    u, B = draw.normal(0, alpha), draw.normal(0, beta)
    W, b = draw.normal(u, 1, (dimension, classes)), draw.normal(u, 1, classes)
    v = draw.normal(B, 1, dimension)
    deviation = np.arange(1, dimension + 1) ** -0.6
    x = v + deviation * draw.standard_normal((num_examples, dimension))
    return x.astype(np.float32), np.argmax(x @ W + b, axis=1)
