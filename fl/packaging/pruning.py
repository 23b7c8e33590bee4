"""Pruning: weights that hardly matter become zero, or hidden units that hardly matter are taken out.

by_magnitude    the smallest weights of the whole model are set to zero (Han et al., NeurIPS 2015). The shapes stay:
                only a file that is compressed (whl, pyz) gets smaller
remove_units    of every hidden layer the weakest units, channels or LSTM cells go (Li et al., ICLR 2017, take filters):
                a smaller dense model, in every format

Both are the first step: what is left is trained again, by server/distillation.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fl.errors import BadInput
from fl.models.lstm import EveryPosition
from fl.parameters import Array, Parameters

PRUNE, UNITS = "--prune", "--prune-units"
GATES = 4
"""An LSTM's arrays have the rows of its four gates one after another."""


def by_magnitude(parameters: Mapping[str, Array], fraction: float, *, of: Iterable[str]) -> Parameters:
    """``parameters`` with the smallest ``fraction`` of all weights set to zero.

    fraction   0 < fraction < 1, of the numbers of those arrays ``of`` (trained ones) that have two dimensions or more:
               biases stay. Of equally small weights the first go

    >>> by_magnitude({"w": np.array([[1.0, -0.1], [0.2, 3.0]])}, 0.5, of=["w"])["w"].tolist()
    [[1.0, 0.0], [0.0, 3.0]]
    """
    _check_fraction(fraction, key=PRUNE)
    names = [name for name in of if parameters[name].ndim > 1]
    if not names:
        raise BadInput(key=PRUNE, got="a model without a matrix of weights", allowed="a network")
    sizes = np.concatenate([np.abs(parameters[name]).ravel() for name in names])
    gone = np.zeros(len(sizes), dtype=bool)
    gone[np.argsort(sizes, kind="stable")[: int(fraction * len(sizes))]] = True
    parts = np.split(gone, np.cumsum([parameters[name].size for name in names])[:-1])
    zeros = {name: part.reshape(parameters[name].shape) for name, part in zip(names, parts, strict=True)}
    return {
        name: np.where(zeros[name], np.zeros_like(value), value) if name in zeros else value.copy()
        for name, value in parameters.items()
    }


def remove_units(
    module: nn.Module, parameters: Mapping[str, Array], *, target: str, arguments: Mapping[str, Any], fraction: float
) -> tuple[dict[str, Any], Parameters]:
    """The arguments of a smaller model of the same ``target``, and its parameters.

    module, arguments   as the target built it, and with what
    fraction            0 < fraction < 1 of the units of each hidden layer; at least one stays

    A unit counts by the product of two norms, of what comes in and of what goes out: moving a factor from one to the
    other changes no answer, and so it changes no order. Raises BadInput for a model whose widths are no options.
    """
    _check_fraction(fraction, key=UNITS)
    hidden = _hidden(module)
    if target not in _ARGUMENTS or not hidden:
        allowed = f"a model with hidden layers whose widths are options: {', '.join(_ARGUMENTS)}"
        raise BadInput(key=UNITS, got=target, allowed=allowed)
    kept = [_strongest(layer.importance(parameters), fraction) for layer in hidden]
    left = dict(parameters)
    for layer, units in zip(hidden, kept, strict=True):
        for cut in layer.cuts:
            left[cut.array] = cut.take(left[cut.array], units)
    return {**arguments, **_ARGUMENTS[target]([len(units) for units in kept])}, left


@dataclass(frozen=True)
class _Cut:
    """How an array is cut to some of the units of a layer.

    axis     the one that goes along the units
    blocks   that axis holds the units so many times over, all of them each time (gates)
    group    so many places in a row belong to one unit (pixels of a channel)
    """

    array: str
    axis: int
    blocks: int = 1
    group: int = 1

    def split(self, value: Array) -> Array:
        """The array as (blocks, units, group, everything else)."""
        front = np.moveaxis(value, self.axis, 0)
        return front.reshape(self.blocks, -1, self.group, *front.shape[1:])

    def norms(self, value: Array) -> Array:
        """The norm of what belongs to each unit."""
        parts = self.split(value).astype(np.float64)
        return np.asarray(np.sqrt(np.square(parts).sum(axis=(0, *range(2, parts.ndim)))))

    def take(self, value: Array, units: Array) -> Array:
        """The array with these units alone."""
        parts = self.split(value)[:, units]
        front = parts.reshape(-1, *parts.shape[3:])
        return np.ascontiguousarray(np.moveaxis(front, 0, self.axis))


@dataclass(frozen=True)
class _Hidden:
    """A hidden layer: the arrays that make its units, and those that use them."""

    made: tuple[_Cut, ...]
    used: tuple[_Cut, ...]

    @property
    def cuts(self) -> tuple[_Cut, ...]:
        return (*self.made, *self.used)

    def importance(self, parameters: Mapping[str, Array]) -> Array:
        """Of each unit."""
        come, go = (
            np.sqrt(sum(np.square(cut.norms(parameters[cut.array])) for cut in cuts)) for cuts in (self.made, self.used)
        )
        return np.asarray(come * go)


def _hidden(module: nn.Module) -> list[_Hidden]:
    """The hidden layers of a sequence, from the input on."""
    if not isinstance(module, nn.Sequential):
        return []
    layers = [
        (name, layer)
        for name, layer in module.named_children()
        if isinstance(layer, nn.Linear | nn.Conv2d | EveryPosition)
    ]
    found = []
    for (name, layer), (after, following) in itertools.pairwise(layers):
        if isinstance(layer, EveryPosition):
            found += _cells(name, layer, after)
            continue
        width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        inputs = following.in_features if isinstance(following, nn.Linear) else width
        made = [_Cut(f"{name}.weight", axis=0), *([_Cut(f"{name}.bias", axis=0)] if layer.bias is not None else [])]
        found.append(_Hidden(tuple(made), (_Cut(f"{after}.weight", axis=1, group=inputs // width),)))
    return found


def _cells(name: str, layer: EveryPosition, after: str) -> list[_Hidden]:
    """The layers of an LSTM; the arrays of ``after`` use those of the last."""
    found = []
    for i in range(layer.num_layers):
        made = [_Cut(f"{name}.weight_{part}_l{i}", axis=0, blocks=GATES) for part in ("ih", "hh")]
        if layer.bias:
            made += [_Cut(f"{name}.bias_{part}_l{i}", axis=0, blocks=GATES) for part in ("ih", "hh")]
        last = i == layer.num_layers - 1
        used = (
            _Cut(f"{name}.weight_hh_l{i}", axis=1),
            _Cut(f"{after}.weight" if last else f"{name}.weight_ih_l{i + 1}", 1),
        )
        found.append(_Hidden(tuple(made), used))
    return found


def _strongest(importance: Array, fraction: float) -> Array:
    """Places of the units that stay, in their order."""
    stay = max(1, len(importance) - int(fraction * len(importance)))
    return np.sort(np.argsort(-importance, kind="stable")[:stay])


def _check_fraction(fraction: float, *, key: str) -> None:
    if not 0 < fraction < 1:
        raise BadInput(key=key, got=fraction, allowed="a share between 0 and 1, such as 0.5")


_ARGUMENTS: dict[str, Callable[[Sequence[int]], dict[str, Any]]] = {
    "fl.models.mlp.build": lambda widths: {"hidden": list(widths)},
    "fl.models.table_mlp.build": lambda widths: {"hidden": list(widths)},
    "fl.models.cnn.build": lambda widths: {"channels": list(widths[:2]), "hidden": widths[2]},
    "fl.models.lstm.build": lambda widths: {"hidden": widths[0]},
}
"""Target -> from the widths of its hidden layers, the options that say so."""
