"""A multilayer perceptron; by default the 2NN of McMahan et al. (AISTATS 2017): 784-200-200-10, 199,210 parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from fl.models.layers import head, perceptron
from fl.models.requirements import probability, require_numbers, widths
from fl.signature import Signature


def build(signature: Signature, *, hidden: Sequence[int] = (200, 200), dropout: float = 0.0) -> nn.Module:
    """(N, *input_shape) -> (N, num_outputs) logits. ``hidden`` widths with ReLU; ``dropout`` in [0, 1) after each."""
    require_numbers(signature, model="mlp")
    rate = probability(dropout, key="model.dropout")
    layers = perceptron(math.prod(signature.input_shape), widths(hidden), signature.num_outputs, rate)
    return nn.Sequential(nn.Flatten(), *layers, *head(signature))
