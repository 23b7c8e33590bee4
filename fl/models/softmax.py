"""Softmax regression: one linear layer on the flattened input. With a regression target, linear regression."""

from __future__ import annotations

import math

from torch import nn

from fl.models.layers import head
from fl.models.requirements import require_numbers
from fl.signature import Signature


def build(signature: Signature) -> nn.Module:
    """(N, *input_shape) -> (N, num_outputs) logits."""
    require_numbers(signature, model="softmax")
    linear = nn.Linear(math.prod(signature.input_shape), signature.num_outputs)
    return nn.Sequential(nn.Flatten(), linear, *head(signature))
