"""FedAvg by Apple's pfl-research (package ``pfl``), in one process or, under torch.distributed.run, in several.

It takes a client's batches in the order of the data, without shuffling.
"""

from __future__ import annotations

import os
import types
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend  # type: ignore[import-not-found]
from pfl.aggregate.weighting import WeightByDatapoints  # type: ignore[import-not-found]
from pfl.algorithm.base import NNAlgorithmParams  # type: ignore[import-not-found]
from pfl.algorithm.federated_averaging import FederatedAveraging  # type: ignore[import-not-found]
from pfl.callback.base import TrainingProcessCallback  # type: ignore[import-not-found]
from pfl.data.dataset import Dataset  # type: ignore[import-not-found]
from pfl.data.federated_dataset import FederatedDataset  # type: ignore[import-not-found]
from pfl.data.sampling import get_user_sampler  # type: ignore[import-not-found]
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams  # type: ignore[import-not-found]
from pfl.metrics import Metrics, Weighted  # type: ignore[import-not-found]
from pfl.model.pytorch import PyTorchModel  # type: ignore[import-not-found]
from torch import Tensor, nn

from experiments.bench.drivers import networks, record

NEVER = 10**9


class NotedRounds(TrainingProcessCallback):  # type: ignore[misc]  # its base has no types
    """Notes the time after each central iteration."""

    def __init__(self) -> None:
        self.rounds = record.Rounds()

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        """pfl's hook; False: go on."""
        self.rounds.end()
        return False, Metrics()


def _loss(self: nn.Module, inputs: Tensor, targets: Tensor, eval: bool = False) -> Tensor:  # noqa: A002 - pfl's name
    self.train(not eval)
    return networks.loss(self(inputs), targets)


@torch.no_grad()
def _metrics(self: nn.Module, inputs: Tensor, targets: Tensor, eval: bool = True) -> Any:  # noqa: A002 - pfl's name
    self.train(not eval)
    return {"loss": Weighted(float(networks.loss(self(inputs), targets)) * len(inputs), len(inputs))}


def main() -> None:
    """Run the task of this process; the first of several leaves the record."""
    torch.set_num_threads(1)
    task, noted = record.read_task(), NotedRounds()
    module: Any = networks.build(task.model, record.start(task))
    module.loss, module.metrics = types.MethodType(_loss, module), types.MethodType(_metrics, module)
    x, y = (torch.from_numpy(array) for array in record.examples(task))
    users = {client: Dataset((x[client], y[client]), user_id=client) for client in range(task.clients)}
    data = FederatedDataset(
        users.__getitem__,
        get_user_sampler("minimize_reuse", list(users)),
        user_id_to_weight={client: len(examples) for client, examples in users.items()},
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=task.rounds,
            evaluation_frequency=NEVER,
            train_cohort_size=task.cohort,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        model=PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=task.learning_rate,
            local_num_epochs=task.epochs,
            local_batch_size=task.batch_size,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=task.batch_size),
        callbacks=[noted],
    )
    if os.environ.get("RANK", "0") == "0":
        noted.rounds.save(task, networks.parameters_of(module))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
