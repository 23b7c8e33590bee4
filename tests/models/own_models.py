"""Models as a user would write them, right and wrong."""

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, input_shape, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Dropout(0.5), nn.Linear(width, num_classes))
        self.input_shape = input_shape

    def forward(self, x):
        return self.layers(x)

    class Inside(nn.Flatten):
        pass


class Normalised(nn.Sequential):
    def __init__(self, num_outputs):
        super().__init__(nn.Flatten(), nn.Linear(4, num_outputs), nn.BatchNorm1d(num_outputs))


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Half(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(4, 3))
        self.register_buffer("sixteen", torch.zeros(1, dtype=torch.bfloat16))


def without_parameters(**options):
    return nn.Flatten()


def a_number(num_outputs):
    return num_outputs


def needs(signature, *, depth):
    return nn.Linear(depth, depth)


def breaks():
    raise RuntimeError("no such thing")


not_callable = 5
