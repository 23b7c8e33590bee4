"""The CNN of McMahan et al. (AISTATS 2017): two 5x5 convolutions, each with 2x2 max pooling, and 512 units.

1,663,370 parameters on 28 x 28 images of one channel and 10 classes: the convolutions keep the size (padding 2), which
is the only reading of the paper that gives its count.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fl.errors import BadInput
from fl.models.layers import head, perceptron
from fl.models.requirements import positive, probability, require_images
from fl.signature import Signature


def build(
    signature: Signature, *, channels: Sequence[int] = (32, 64), hidden: int = 512, dropout: float = 0.0
) -> nn.Module:
    """(N, C, H, W) -> (N, num_outputs) logits, for H and W of at least 4; an odd size loses its last row or column."""
    require_images(signature, model="cnn", smallest=4)
    in_channels, height, width = signature.input_shape
    if len(channels) != 2:
        raise BadInput(key="model.channels", got=channels, allowed="two whole numbers above 0, one a convolution")
    first, second = (positive(c, key="model.channels") for c in channels)
    units = positive(hidden, key="model.hidden")
    rate = probability(dropout, key="model.dropout")
    return nn.Sequential(
        nn.Conv2d(in_channels, first, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *perceptron(second * (height // 4) * (width // 4), [units], signature.num_outputs, rate),
        *head(signature),
    )
