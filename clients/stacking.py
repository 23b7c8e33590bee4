"""Which modules can be stacked, and the stacked layers of those that can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from clients.stacked_images import StackedConv2d, StackedMaxPool2d, pooled_first, why_no_image_layer
from clients.stacked_layers import (
    Rowwise,
    Stacked,
    StackedDropout,
    StackedEmbedding,
    StackedFlatten,
    StackedLayerNorm,
    StackedLinear,
    StackedReLU,
    Step,
    parameter_name,
)
from fl.models.layers import TargetUnit
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.models.table_preprocessing import TablePreprocessing

STACKED: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.LayerNorm, nn.Embedding, nn.Flatten, nn.Dropout,
)  # fmt: skip
"""Layers that have a stacked form of their own."""

ROWWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Identity, nn.Softmax, nn.LogSoftmax,
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Unflatten, TablePreprocessing, RecipePreprocessing, TargetUnit,
)  # fmt: skip
"""Layers without parameters that treat each example by itself."""


def goes_alone(module: nn.Module) -> bool:
    """Whether a stack of it holds one client: convolutions of several have nothing to share."""
    return any(isinstance(layer, nn.Conv2d) for _, layer in flat_layers(module))


def flat_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The leaves of nested nn.Sequential, in order, with their names in the state dict."""
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            yield from flat_layers(child, parameter_name(prefix, name))
    else:
        yield prefix, module


def why_not(module: nn.Module) -> str | None:
    """Why a module cannot be stacked, in words; None if it can."""
    seen: set[int] = set()
    for name, layer in flat_layers(module):
        if type(layer) not in (*STACKED, *ROWWISE):
            return f"no stacked form of {type(layer).__name__} ({name or 'the model'})"
        if why := why_no_image_layer(layer):
            return f"{why} ({name or 'the model'})"
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
            return f"a Flatten of other axes than all but the first ({name})"
        if isinstance(layer, nn.Embedding) and (layer.padding_idx is not None or layer.max_norm or layer.sparse):
            return f"an Embedding with padding, a largest norm or sparse gradients ({name})"
        if isinstance(layer, nn.Softmax | nn.LogSoftmax) and layer.dim != -1:
            return f"a {type(layer).__name__} over another axis than the last ({name})"
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            return f"hooks on {name}"
        for parameter in layer.parameters(recurse=False):
            if id(parameter) in seen:
                return f"a tensor that two layers share ({name})"
            if not parameter.requires_grad:
                return f"frozen parameters ({name})"
            seen.add(id(parameter))
    return None if seen else "it has no parameters"


def stack(
    module: nn.Module,
    arrays: dict[str, Tensor],
    step: Step,
    draws: Callable[[], Sequence[torch.Generator]],
    sizes: list[int],
) -> list[Stacked]:
    """The stacked layers of ``module``, over ``arrays``: name -> (C, ...). ``why_not(module)`` must be None.

    ``draws`` makes a generator a client, where a layer draws; ``sizes`` will hold the batch sizes of a step.
    """
    layers: list[Stacked] = []
    dropping = any(isinstance(layer, nn.Dropout) for _, layer in flat_layers(module))
    generators = draws() if dropping else ()
    for prefix, layer in pooled_first(list(flat_layers(module))):
        learnt_before = any(before.learns for before in layers)
        match layer:
            case nn.Linear():
                layers.append(StackedLinear(prefix, arrays, step))
            case nn.Conv2d():
                layers.append(StackedConv2d(layer, prefix, arrays, step))
            case nn.MaxPool2d():
                layers.append(StackedMaxPool2d(layer))
            case nn.LayerNorm():
                layers.append(StackedLayerNorm(layer, prefix, arrays, step))
            case nn.Embedding():
                layers.append(StackedEmbedding(prefix, arrays, step))
            case nn.Flatten():
                layers.append(StackedFlatten())
            case nn.ReLU():
                layers.append(StackedReLU())
            case nn.Dropout():
                layers.append(StackedDropout(layer.p, generators, sizes))
            case _:
                layers.append(Rowwise(layer))
        layers[-1].differentiable = learnt_before
    return layers
