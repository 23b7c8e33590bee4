"""The bench's models in plain PyTorch, with the names that our own builders give their arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.drivers.record import Array, Task


class EveryPosition(nn.LSTM):
    """An LSTM that returns its output at every position."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, T, features) -> (N, T, hidden)."""
        outputs: Tensor = super().forward(x)[0]
        return outputs


def softmax() -> nn.Module:
    """Softmax regression on 28 x 28 images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def mlp() -> nn.Module:
    """McMahan's 2NN."""
    hidden = [nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(200, 10))


def cnn() -> nn.Module:
    """McMahan's CNN."""
    first = [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10))


def lstm() -> nn.Module:
    """LEAF's model of the next character, over 80 of them."""
    return nn.Sequential(nn.Embedding(80, 8), EveryPosition(8, 256, num_layers=2, batch_first=True), nn.Linear(256, 80))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"softmax": softmax, "mlp": mlp, "cnn": cnn, "lstm": lstm}


def build(name: str, parameters: Mapping[str, Array]) -> nn.Module:
    """The model ``name`` with these parameters."""
    module = NETWORKS[name]()
    module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in parameters.items()})
    return module


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy; every position of a sequence counts as one."""
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))


def parameters_of(module: nn.Module) -> dict[str, Array]:
    """The arrays of a model by name."""
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def fit(module: nn.Module, x: Tensor, y: Tensor, task: Task) -> None:
    """Train on one client's examples as PyTorch's tutorials do."""
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate)
    for _ in range(task.epochs):
        for batch in torch.randperm(len(x)).split(task.batch_size):
            optimizer.zero_grad()
            loss(module(x[batch]), y[batch]).backward()
            optimizer.step()
