"""FedAvg, FedProx and SCAFFOLD reach the fixed points of two quadratics, through the real round loop.

Two clients, f_i(x) = a_i/2 (x - b_i)^2, a = (1, 10), b = (0, 1), step size 0.05, both in every round. As a regression
data set: one feature sqrt(a_i/2) with the target b_i sqrt(a_i/2), under a linear model without bias and the mean
squared error. A client takes as many local steps as it holds copies of its example, one at a time.

FedAvg's fixed point is sum c_i b_i / sum c_i with c_i = 1 - (1 - 0.05 a_i)^tau_i. FedProx's is known from the same
recursion with mu (y - x) added to the gradient; SCAFFOLD's is the optimum of the mean, 10/11, whatever tau. The figures
were computed to twelve digits apart from this project.
"""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compose import compose
from experiments.run import simulate
from fl.registry import Registry

A, B, LEARNING_RATE = (1.0, 10.0), (0.0, 1.0), 0.05
OPTIMUM = 10 / 11
TEN_DIGITS = 5e-11

FEDAVG, FEDPROX, SCAFFOLD = ["algorithm=fedavg"], ["algorithm=fedprox", "algorithm.mu=1"], ["algorithm=scaffold"]

# algorithm, tau, fixed point, rounds until ten digits stand
CASES = [
    pytest.param(FEDAVG, (2, 2), 0.884955752212, 48, id="fedavg-2-2", marks=pytest.mark.slow),
    pytest.param(FEDAVG, (10, 10), 0.713442169685, 22, id="fedavg-10-10"),
    pytest.param(FEDAVG, (1, 10), 0.952336622603, 36, id="fedavg-1-10"),
    pytest.param(FEDAVG, (10, 1), 0.554776981071, 44, id="fedavg-10-1", marks=pytest.mark.slow),
    pytest.param(FEDPROX, (2, 2), 0.884146341463, 50, id="fedprox-2-2", marks=pytest.mark.slow),
    pytest.param(FEDPROX, (10, 10), 0.736187894143, 28, id="fedprox-10-10"),
    pytest.param(FEDPROX, (1, 10), 0.947850467067, 40, id="fedprox-1-10"),
    pytest.param(FEDPROX, (10, 1), 0.605575573095, 48, id="fedprox-10-1", marks=pytest.mark.slow),
    pytest.param(SCAFFOLD, (2, 2), OPTIMUM, 36, id="scaffold-2-2", marks=pytest.mark.slow),
    pytest.param(SCAFFOLD, (10, 10), OPTIMUM, 38, id="scaffold-10-10"),
    pytest.param(SCAFFOLD, (1, 10), OPTIMUM, 44, id="scaffold-1-10"),
    pytest.param(SCAFFOLD, (10, 1), OPTIMUM, 340, id="scaffold-10-1", marks=pytest.mark.slow),
]


def write_quadratics(path, tau):
    """tau_i copies of client i's one example; the server's test set is the same, and decides nothing here."""
    x = np.concatenate([np.full((copies, 1), np.sqrt(a / 2)) for a, copies in zip(A, tau, strict=True)])
    y = np.concatenate([np.full(copies, b * np.sqrt(a / 2)) for a, b, copies in zip(A, B, tau, strict=True)])
    np.savez(path, x=x, y=y, client=np.repeat([0, 1], tau), x_test=x, y_test=y)


def simulated(tmp_path, algorithm, tau, num_rounds):
    """The versions of a run, as numbers."""
    write_quadratics(tmp_path / "quadratics.npz", tau)
    run_dir = simulate(
        compose(
            [
                "dataset=npz",
                f"dataset.path={tmp_path / 'quadratics.npz'}",
                "dataset.task=regression",
                "dataset.standardize=false",
                "dataset.validation_fraction=0",
                "dataset.test_fraction=0",
                "dataset.public_fraction=0",
                "partition=natural",
                "model=custom",
                "model._target_=torch.nn.Linear",
                "model.in_features=1",
                "model.out_features=1",
                "model.bias=false",
                *algorithm,
                "client.batch_size=1",
                "client.local_epochs=1",
                f"client.learning_rate={LEARNING_RATE}",
                "client.schedule.name=constant",
                "server=random",
                "server.weighting=uniform",
                "server.tensorboard=false",
                "server.terminal=false",
                "engine=inprocess",
                "cohort_size=2",
                f"num_rounds={num_rounds}",
                "evaluate_every=null",
                "evaluate_clients_every=null",
                f"run_dir={tmp_path / 'run'}",
                f"registry_dir={tmp_path / 'registry'}",
            ]
        )
    )
    registry = Registry(tmp_path / "registry")
    weights = [registry.parameters(version)["weight"] for version in registry.versions(run_dir.name)]
    assert {weight.dtype for weight in weights} == {np.dtype(np.float64)}
    return [weight.item() for weight in weights]


@pytest.mark.parametrize("algorithm, tau, fixed_point, num_rounds", CASES)
def test_the_fixed_point_is_reached_to_ten_digits(tmp_path, algorithm, tau, fixed_point, num_rounds):
    x = simulated(tmp_path, algorithm, tau, num_rounds)
    assert len(x) == num_rounds + 1
    assert abs(x[0] - fixed_point) > 0.1  # it had a way to go
    assert x[-1] == pytest.approx(fixed_point, rel=0, abs=TEN_DIGITS)


@pytest.mark.parametrize("path", ["stacked", "one_by_one"])
def test_a_round_is_what_the_papers_recursion_says(tmp_path, path):
    """FedAvg from any x: every client contracts towards its own optimum by (1 - lr a_i)^tau_i."""
    tau = (3, 2)
    before, after = simulated(tmp_path, [*FEDAVG, f"client.path={path}"], tau, 1)
    ends = [b + (1 - LEARNING_RATE * a) ** steps * (before - b) for a, b, steps in zip(A, B, tau, strict=True)]
    assert after == pytest.approx(sum(ends) / 2, rel=1e-14)
