"""Layers of several clients at once: every parameter has a leading client axis, and every input too.

A Linear layer of C clients is one batched matrix product. On the way back it moves its weights in place as it goes,

    W.baddbmm_(dY^T, X, beta=1 - lr * wd, alpha=-lr)

which is gradient, weight decay and SGD step in one pass: no weight gradient is ever stored. The usual layers know
their own derivative; autograd differentiates the others, each by itself. Layers without parameters are applied as
they are, with clients and examples in one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fl.models.layers import TargetUnit
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.models.table_preprocessing import TablePreprocessing

ROWWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Identity, nn.Softmax, nn.LogSoftmax,
    nn.Unflatten, TablePreprocessing, RecipePreprocessing, TargetUnit,
)  # fmt: skip
"""Layers without parameters that treat each example by itself."""


@dataclass
class Step:
    """How the parameters of a stack move in one SGD step, for the first ``active`` of its clients.

    proximal   mu of mu (W - W0);   start   name -> W0, shared by all clients
    constant   name -> (C, ...) added to the gradient;   momentum   name -> (C, ...) buffers
    """

    rate: float
    weight_decay: float = 0.0
    momentum_factor: float = 0.0
    proximal: float = 0.0
    start: dict[str, Tensor] = field(default_factory=dict)
    constant: dict[str, Tensor] = field(default_factory=dict)
    momentum: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, name: str, weight: Tensor, add_gradient: Callable[[Tensor, float, float], object]) -> None:
        """Move ``weight`` (k, ...), a prefix of the stack, in place.

        ``add_gradient(target, beta, alpha)`` computes target <- beta target + alpha gradient in place.
        """
        active = len(weight)
        if self.momentum_factor:
            buffer = self.momentum[name][:active]
            add_gradient(buffer, self.momentum_factor, 1.0)
            self._correct(name, buffer, weight, 1.0)
            if self.weight_decay + self.proximal:
                buffer.add_(weight, alpha=self.weight_decay + self.proximal)
            weight.add_(buffer, alpha=-self.rate)
        else:
            add_gradient(weight, 1.0 - self.rate * (self.weight_decay + self.proximal), -self.rate)
            self._correct(name, weight, weight, -self.rate)

    def apply_gradient(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """``apply`` of a gradient that is there."""
        self.apply(
            name,
            weight,
            lambda target, beta, alpha: (target if beta == 1.0 else target.mul_(beta)).add_(gradient, alpha=alpha),
        )

    def _correct(self, name: str, target: Tensor, weight: Tensor, alpha: float) -> None:
        if self.proximal:
            target.add_(self.start[name], alpha=-self.proximal * alpha)
        if self.constant:
            target.add_(self.constant[name][: len(weight)], alpha=alpha)


class Stacked:
    """One layer of a stack. ``differentiable``: something before it learns, so that it has to pass gradients on."""

    learns = False
    differentiable = False

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, ...) -> (k, B, ...), the first k clients' batches; keeps what ``backward`` needs."""
        raise TypeError("an abstract layer")

    def backward(self, dy: Tensor) -> Tensor:
        """Move the parameters, if any; the gradient of the input, which nobody reads unless ``differentiable``."""
        raise TypeError("an abstract layer")


class StackedLinear(Stacked):
    """nn.Linear: weight (C, out, in), bias (C, out) or none."""

    learns = True

    def __init__(self, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        self.step = step
        self.names = _name(prefix, "weight"), _name(prefix, "bias")
        self.weight, self.bias = arrays[self.names[0]], arrays.get(self.names[1])

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, ..., in) -> (k, B, ..., out): y = x W^T + b."""
        k = len(x)
        self.x = flat = x if x.dim() == 3 else x.flatten(1, -2)
        weight = self.weight[:k].mT
        y = torch.bmm(flat, weight) if self.bias is None else torch.baddbmm(self.bias[:k].unsqueeze(1), flat, weight)
        return y if x.dim() == 3 else y.reshape(*x.shape[:-1], y.shape[-1])

    def backward(self, dy: Tensor) -> Tensor:
        """dx = dy W, before W and b move."""
        x, k, shape = self.x, len(dy), dy.shape
        if dy.dim() != 3:
            dy = dy.reshape(*x.shape[:2], -1)
        weight = self.weight[:k]
        dx = torch.bmm(dy, weight) if self.differentiable else dy
        if len(shape) != 3 and self.differentiable:
            dx = dx.reshape(*shape[:-1], dx.shape[-1])
        self.step.apply(
            self.names[0], weight, lambda target, beta, alpha: target.baddbmm_(dy.mT, x, beta=beta, alpha=alpha)
        )
        if self.bias is not None:
            self.step.apply_gradient(self.names[1], self.bias[:k], dy.sum(1))
        return dx


class StackedReLU(Stacked):
    """nn.ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        self.y = x.relu()
        return self.y

    def backward(self, dy: Tensor) -> Tensor:
        """Nothing where the output is zero."""
        dx: Tensor = torch.ops.aten.threshold_backward(dy, self.y, 0)
        return dx


class StackedFlatten(Stacked):
    """nn.Flatten of each example."""

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, ...) -> (k, B, features)."""
        self.shape = x.shape
        return x.flatten(2)

    def backward(self, dy: Tensor) -> Tensor:
        """The shape that came in."""
        return dy.reshape(self.shape)


class StackedDropout(Stacked):
    """nn.Dropout: each client draws its own mask from its own generator, as it would by itself."""

    def __init__(self, probability: float, generators: Sequence[torch.Generator], sizes: list[int]) -> None:
        self.keep, self.generators, self.sizes = 1.0 - probability, generators, sizes

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; ``sizes`` are the clients' true batch sizes of this step."""
        mask = torch.zeros_like(x)
        for row, size, generator in zip(mask, self.sizes, self.generators, strict=False):
            row[:size].copy_(torch.empty_like(row[:size]).bernoulli_(self.keep, generator=generator))
        self.mask = mask.div_(self.keep) if self.keep else mask
        return x * self.mask

    def backward(self, dy: Tensor) -> Tensor:
        """Through the same mask."""
        return dy * self.mask


class _Differentiated(Stacked):
    """A layer that autograd differentiates, by itself: ``compute`` says what it does."""

    def __init__(self, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        self.step = step
        self.parameters = {
            part: (name, arrays[name]) for part in ("weight", "bias") if (name := _name(prefix, part)) in arrays
        }
        self.learns = bool(self.parameters)

    def compute(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """The output from the input and the first k clients' parameters, by their names in the layer."""
        raise TypeError("an abstract layer")

    def forward(self, x: Tensor) -> Tensor:
        """As ``compute``; nothing is recorded where nothing will be asked for."""
        leaves = {part: value[: len(x)].detach() for part, (_, value) in self.parameters.items()}
        self.inputs = [x.detach()] if self.differentiable else []
        for leaf in (*self.inputs, *leaves.values()):
            leaf.requires_grad_()
        with torch.set_grad_enabled(self.learns or self.differentiable):
            self.out = self.compute(self.inputs[0] if self.inputs else x, leaves)
        self.inputs += leaves.values()
        return self.out.detach()

    def backward(self, dy: Tensor) -> Tensor:
        """By autograd, through this layer alone."""
        if not self.inputs:
            return dy
        gradients = list(torch.autograd.grad(self.out, self.inputs, dy))
        dx = gradients.pop(0) if self.differentiable else dy
        for (name, value), gradient in zip(self.parameters.values(), gradients, strict=True):
            self.step.apply_gradient(name, value[: len(dy)], gradient)
        return dx


class StackedLayerNorm(_Differentiated):
    """nn.LayerNorm over the last axes, with a scale and shift a client."""

    def __init__(self, module: nn.LayerNorm, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        super().__init__(prefix, arrays, step)
        self.shape, self.eps = module.normalized_shape, module.eps

    def compute(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Same shape."""
        y = nn.functional.layer_norm(x, self.shape, eps=self.eps)
        between = (len(x), *(1,) * (x.dim() - 1 - len(self.shape)), *self.shape)
        if "weight" in parameters:
            y = y * parameters["weight"].reshape(between)
        return y + parameters["bias"].reshape(between) if "bias" in parameters else y


class StackedEmbedding(_Differentiated):
    """nn.Embedding: one table (C x vocabulary, width) that a client's tokens index at its own offset."""

    def compute(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """(k, B, ...) tokens -> (k, B, ..., width)."""
        weight = parameters["weight"]
        offset = torch.arange(len(x)).reshape(len(x), *(1,) * (x.dim() - 1)) * weight.shape[1]
        return nn.functional.embedding(x + offset, weight.reshape(-1, weight.shape[2]))


class Rowwise(_Differentiated):
    """A layer without parameters, applied to clients and examples in one axis."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__("", {}, Step(0.0))
        self.module = module

    def compute(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """As the module does to each example."""
        out: Tensor = self.module(x.reshape(-1, *x.shape[2:]))
        return out.reshape(*x.shape[:2], *out.shape[1:])


def _name(prefix: str, parameter: str) -> str:
    return f"{prefix}.{parameter}" if prefix else parameter


def flat_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The leaves of nested nn.Sequential, in order, with their names in the state dict."""
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            yield from flat_layers(child, _name(prefix, name))
    else:
        yield prefix, module


def why_not(module: nn.Module) -> str | None:
    """Why a module cannot be stacked, in words; None if it can."""
    seen: set[int] = set()
    for name, layer in flat_layers(module):
        known = type(layer) in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Flatten, nn.Dropout, *ROWWISE)
        if not known:
            return f"no stacked form of {type(layer).__name__} ({name or 'the model'})"
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
    for prefix, layer in flat_layers(module):
        learnt_before = any(before.learns for before in layers)
        match layer:
            case nn.Linear():
                layers.append(StackedLinear(prefix, arrays, step))
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
