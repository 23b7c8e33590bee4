"""What a reader of an exported file gives: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fl.parameters import Array

Predict: TypeAlias = Callable[[Array], Array]
"""From a batch as the model takes it, (N, *input_shape) in input_dtype and scaled, to its raw outputs."""


def as_tensor(inputs: Array) -> Tensor:
    """A tensor of its own: torch warns about memory that may not be written."""
    return torch.from_numpy(np.array(inputs, order="C"))
