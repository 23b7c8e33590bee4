"""Pieces that several models end or are filled with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fl.signature import Signature


class TargetUnit(nn.Module):
    """Put a standardised prediction back into the unit of the target: ``z * target_std + target_mean``.

    Works on any shape. Both numbers belong to the data set's signature, so they are no trained parameters and stay out
    of the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=dtype), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Same shape as ``z``."""
        return z * self.std + self.mean


def head(signature: Signature) -> list[nn.Module]:
    """What follows a model's last Linear layer: nothing, or for a regression the way back to the target's unit."""
    if signature.task != "regression" or (signature.target_mean, signature.target_std) == (0.0, 1.0):
        return []
    return [TargetUnit(signature.target_mean, signature.target_std, float_dtype(signature))]


def perceptron(num_inputs: int, hidden: Sequence[int], num_outputs: int, dropout: float) -> list[nn.Module]:
    """Linear layers of the ``hidden`` widths with ReLU (and dropout where above 0) between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.ReLU(), *dropouts(dropout)]
        num_inputs = width
    return [*layers, nn.Linear(num_inputs, num_outputs)]


def dropouts(probability: float) -> list[nn.Module]:
    """One Dropout layer, or none where nothing would be dropped: a layer that is absent costs nothing."""
    return [nn.Dropout(probability)] if probability else []


def float_dtype(signature: Signature) -> torch.dtype:
    """What a model of this signature computes in: float64 where its inputs are, else float32."""
    return torch.float64 if signature.input_dtype == "float64" else torch.float32
