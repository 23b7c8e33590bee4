"""Read a torch module as the list of operations that the small formats are printed from.

A layer that is none of them is refused by its name, and with it every format that is printed from the list.
safetensors, pt2 and onnx take any model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from fl.errors import BadInput
from fl.models.layers import TargetUnit
from fl.models.lstm import EveryPosition
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.models.table_preprocessing import TablePreprocessing
from fl.models.xgboost import TreeEnsemble
from fl.packaging.formulas import trace
from fl.packaging.operations import (
    Activation,
    Affine,
    Convolution,
    Embedding,
    Features,
    Flatten,
    Lstm,
    MaxPool,
    Operation,
    Program,
    Trees,
    Unit,
)
from fl.parameters import Array
from fl.signature import Signature
from fl.transforms.arithmetic import Arithmetic, Column


def program_of(module: nn.Module, signature: Signature) -> Program:
    """The operations of ``module``. Raises BadInput, naming the layer, if one of its layers is none of them."""
    operations = tuple(o for name, layer in _layers("", module) for o in _operations(name, layer, signature))
    shapes = [signature.input_shape]
    for operation in operations:
        shapes.append(operation.shape(shapes[-1]))
    return Program(signature, operations, tuple(shapes))


def _layers(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child_name, child in module.named_children():
            yield from _layers(f"{name}.{child_name}" if name else child_name, child)
    else:
        yield name, module


def _operations(name: str, layer: nn.Module, signature: Signature) -> Sequence[Operation]:
    read = _READERS.get(type(layer))  # the exact type: a subclass may compute something else
    found = None if read is None else read(layer)
    if found is None:
        what = f"layer {name!r}, {_kind(layer)}" if name else _kind(layer)
        raise BadInput(key="model", got=what, allowed=f"layers that can be written down: {', '.join(_NAMES)}")
    return found


def _kind(layer: nn.Module) -> str:
    inner = layer.extra_repr()
    return f"{type(layer).__name__}({inner})" if "\n" not in inner else type(layer).__name__


def _linear(layer: nn.Linear) -> list[Operation]:
    return [Affine(_array(layer.weight), _bias(layer.bias, layer.out_features, layer.weight))]


def _convolution(layer: nn.Conv2d) -> list[Operation] | None:
    plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not plain or isinstance(layer.padding, str):
        return None
    bias = _bias(layer.bias, layer.out_channels, layer.weight)
    return [Convolution(_array(layer.weight), bias, _pair(layer.stride), _pair(layer.padding))]


def _max_pool(layer: nn.MaxPool2d) -> list[Operation] | None:
    plain = _pair(layer.padding) == (0, 0) and _pair(layer.dilation) == (1, 1) and not layer.ceil_mode
    return [MaxPool(_pair(layer.kernel_size), _pair(layer.stride))] if plain and not layer.return_indices else None


def _embedding(layer: nn.Embedding) -> list[Operation] | None:
    return [Embedding(_array(layer.weight))] if layer.max_norm is None else None


def _lstm(layer: EveryPosition) -> list[Operation] | None:
    if not layer.batch_first or layer.bidirectional or layer.proj_size:
        return None
    operations: list[Operation] = []
    for i in range(layer.num_layers):
        from_input, from_state = (_array(getattr(layer, f"weight_{part}_l{i}")) for part in ("ih", "hh"))
        bias = np.zeros(len(from_state), from_state.dtype)
        if layer.bias:
            bias = _array(getattr(layer, f"bias_ih_l{i}")) + _array(getattr(layer, f"bias_hh_l{i}"))
        operations.append(Lstm(from_input, from_state, bias))
    return operations


def _table(layer: TablePreprocessing) -> list[Operation]:
    medians, means, stds = (tensor.double().tolist() for tensor in (layer.medians, layer.mean, layer.std))

    def compute(columns: Sequence[Column], a: Arithmetic) -> list[Column]:
        missing = [a.isnan(x) for x in columns]
        filled = [
            (a.where(m, a.number(median), x) - a.number(mean)) / a.number(std)
            for x, m, median, mean, std in zip(columns, missing, medians, means, stds, strict=True)
        ]
        return [*filled, *(a.flag(missing[i]) for i in layer.indicators.tolist())]

    return [Features(trace(compute, inputs=len(medians)))]


def _recipe(layer: RecipePreprocessing) -> list[Operation]:
    recipe = layer.recipe
    return [Features(trace(lambda c, a: list(recipe.compute(c, a).values()), inputs=len(recipe.inputs)))]


def _trees(layer: TreeEnsemble) -> list[Operation]:
    names = ("feature", "threshold", "left", "right", "default_left", "leaf")
    tables = {name: _array(getattr(layer, name)) for name in names}
    roots, base = _array(layer.roots)[0], float(layer.base)
    return [Flatten(), Trees(roots, **tables, base=base, zero_first=layer.signature.num_outputs == 2)]


_READERS: dict[type[nn.Module], Callable[..., Sequence[Operation] | None]] = {
    nn.Linear: _linear,
    nn.ReLU: lambda _: [Activation("relu")],
    nn.Tanh: lambda _: [Activation("tanh")],
    nn.Sigmoid: lambda _: [Activation("sigmoid")],
    nn.Flatten: lambda layer: [Flatten()] if (layer.start_dim, layer.end_dim) == (1, -1) else None,
    nn.Identity: lambda _: [],
    nn.Dropout: lambda _: [],  # drops nothing after training
    nn.Conv2d: _convolution,
    nn.MaxPool2d: _max_pool,
    nn.Embedding: _embedding,
    EveryPosition: _lstm,
    TargetUnit: lambda layer: [Unit(float(layer.std), float(layer.mean))],
    TablePreprocessing: _table,
    RecipePreprocessing: _recipe,
    TreeEnsemble: _trees,
}
_NAMES = sorted(kind.__name__ for kind in _READERS)


def _array(tensor: torch.Tensor) -> Array:
    return np.array(tensor.detach().numpy(force=True), order="C")


def _bias(bias: torch.Tensor | None, size: int, weight: torch.Tensor) -> Array:
    return np.zeros(size, _array(weight).dtype) if bias is None else _array(bias)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
