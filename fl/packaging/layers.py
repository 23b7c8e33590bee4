"""Models that are preprocessing and then dense layers, or trees: what languages made for tables can say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fl.errors import BadInput
from fl.packaging.operations import Activation, Affine, Features, Flatten, Program, Trees, Unit
from fl.parameters import Array


@dataclass(frozen=True)
class Dense:
    """``weight`` (m, n) times a vector, plus ``bias`` (m,), and then "relu", "tanh", "sigmoid" or nothing."""

    weight: Array
    bias: Array
    activation: str | None = None


def dense_layers(program: Program, *, language: str, with_trees: bool) -> tuple[Features | None, Trees | list[Dense]]:
    """The preprocessing of a model, if it has any, and what comes after. BadInput names what ``language`` has not.

    The unit of a regression's target is part of the last layer.
    """
    operations = [operation for operation in program.operations if not isinstance(operation, Flatten)]
    features = operations.pop(0) if isinstance(operations[0], Features) else None
    assert features is None or isinstance(features, Features)
    if with_trees and len(operations) == 1 and isinstance(operations[0], Trees):
        return features, operations[0]
    layers: list[Dense] = []
    for operation in operations:
        match operation:
            case Affine(weight=weight, bias=bias):
                layers.append(Dense(weight, bias))
            case Activation(function=function) if layers and layers[-1].activation is None:
                layers[-1] = replace(layers[-1], activation=function)
            case Unit(factor=factor, shift=shift) if layers and layers[-1].activation is None:
                last = layers[-1]
                scaled, moved = (np.asarray(array, np.float64) * factor for array in (last.weight, last.bias))
                layers[-1] = Dense(scaled, moved + shift)
            case _:
                allowed = "preprocessing, linear layers and activations between them" + ", or trees" * with_trees
                raise BadInput(key="model", got=f"{type(operation).__name__}: {language} has none", allowed=allowed)
    return features, layers
