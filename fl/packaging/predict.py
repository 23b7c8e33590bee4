"""What a reader of an exported file gives: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fl.models.arrays import GrowingModule
from fl.parameters import Array

Predict: TypeAlias = Callable[[Array], Array]
"""From a batch as the model takes it, (N, *input_shape) in input_dtype and scaled, to its raw outputs."""


def as_tensor(inputs: Array) -> Tensor:
    """A tensor of its own: torch warns about memory that may not be written."""
    return torch.from_numpy(np.array(inputs, order="C"))


class Asked(GrowingModule):
    """A file as a module: whatever measures a module then measures the file. It has no parameters of its own."""

    def __init__(self, predict: Predict) -> None:
        super().__init__()
        self._predict = predict

    def forward(self, inputs: Tensor) -> Tensor:
        """What the file answers."""
        return as_tensor(self._predict(inputs.contiguous().numpy()))

    def load_arrays(self, parameters: Mapping[str, Array]) -> None:
        """Nothing: the file has its own."""

    def why_not(self, parameters: Mapping[str, Array]) -> str | None:
        """None: whatever is sent, the file answers."""
        return None
