"""Layers of images in a stack. Clients go through a convolution one after the other, in channels_last.

What is gained over autograd: weights keep the layout that the convolution computes in, where a module's are laid out
anew at each call; a ReLU before a pooling follows it, on a quarter of the values; and the Linear layers behind move
their weights as they go (clients/stacked_layers.py), which are most of such a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clients.stacked_layers import Stacked, Step, parameter_name
from fl.models.arrays import laid_out

aten = torch.ops.aten


class StackedConv2d(Stacked):
    """nn.Conv2d: weight (C, out, in, height, width), bias (C, out) or none."""

    learns = True

    def __init__(self, module: nn.Conv2d, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        self.step = step
        self.names = parameter_name(prefix, "weight"), parameter_name(prefix, "bias")
        weight = arrays[self.names[0]]
        self.weight = arrays[self.names[0]] = laid_out(weight.flatten(0, 1)).unflatten(0, weight.shape[:2])
        self.bias = arrays.get(self.names[1])
        self.options = [list(module.stride), list(module.padding), list(module.dilation), False, [0, 0], module.groups]

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, in, height, width) -> (k, B, out, height, width)."""
        self.x = [laid_out(one) for one in x]
        biases = [None] * len(x) if self.bias is None else list(self.bias[: len(x)])
        return _together(
            [
                aten.convolution(one, weight, bias, *self.options)
                for one, weight, bias in zip(self.x, self.weight, biases, strict=False)
            ]
        )

    def backward(self, dy: Tensor) -> Tensor:
        """By the gradients of each client's convolution."""
        k, sizes = len(dy), None if self.bias is None else [dy.shape[2]]
        wanted = [self.differentiable, True, self.bias is not None]
        found = [
            aten.convolution_backward(one, x, weight, sizes, *self.options, wanted)
            for one, x, weight in zip(dy, self.x, self.weight, strict=False)
        ]
        inputs, weights, biases = zip(*found, strict=True)
        self.step.apply_gradient(self.names[0], self.weight[:k], _together(weights))
        if self.bias is not None:
            self.step.apply_gradient(self.names[1], self.bias[:k], _together(biases))
        return _together(inputs) if self.differentiable else dy


class StackedMaxPool2d(Stacked):
    """nn.MaxPool2d: an example's pooling has nothing to do with whose it is."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        sides = (module.kernel_size, module.stride, module.padding, module.dilation)
        self.options = [*(list(nn.modules.utils._pair(side)) for side in sides), module.ceil_mode]

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, channels, height, width) -> the same of smaller pictures."""
        self.x = x.flatten(0, 1)
        y, self.places = aten.max_pool2d_with_indices(self.x, *self.options)
        pooled: Tensor = y.unflatten(0, x.shape[:2])
        return pooled

    def backward(self, dy: Tensor) -> Tensor:
        """To where each largest value stood."""
        dx = aten.max_pool2d_with_indices_backward(dy.flatten(0, 1), self.x, *self.options, self.places)
        back: Tensor = dx.unflatten(0, dy.shape[:2])
        return back


def pooled_first(layers: Sequence[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Each ReLU that a pooling follows, after it: the largest of the values above zero is the same, on either way, to
    the bit, and so is what gets a gradient.
    """
    found = list(layers)
    for place in range(len(found) - 1):
        if type(found[place][1]) is nn.ReLU and type(found[place + 1][1]) is nn.MaxPool2d:
            found[place], found[place + 1] = found[place + 1], found[place]
    return found


def why_no_image_layer(layer: nn.Module) -> str | None:
    """Why a convolution or a pooling has no stacked form; None if it has."""
    if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
        return "a convolution whose padding is no number of zeros"
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        return "a pooling that returns places"
    return None


def _together(found: Sequence[Tensor]) -> Tensor:
    """With a client axis, each client's in its layout. One client's is not copied."""
    if len(found) == 1:
        return found[0].unsqueeze(0)
    if found[0].dim() == 4:
        return torch.stack([one.permute(0, 2, 3, 1) for one in found]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(found))
