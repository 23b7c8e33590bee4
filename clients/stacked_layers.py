"""Layers of several clients at once: every parameter has a leading client axis, and every input too.

A Linear layer of C clients is one batched matrix product. Its backward updates the weights in place as it goes,

    W.baddbmm_(dY^T, X, beta=1 - lr * wd, alpha=-lr)

which is gradient, weight decay and SGD step in one pass: no weight gradient is ever stored. Activations and other
layers without parameters are applied as they are, with clients and examples in one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fl.models.layers import TargetUnit
from fl.models.table_preprocessing import TablePreprocessing

ROWWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Identity, nn.Softmax, nn.LogSoftmax,
    nn.Unflatten, TablePreprocessing, TargetUnit,
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

    def _correct(self, name: str, target: Tensor, weight: Tensor, alpha: float) -> None:
        if self.proximal:
            target.add_(self.start[name], alpha=-self.proximal * alpha)
        if self.constant:
            target.add_(self.constant[name][: len(weight)], alpha=alpha)


class _Linear(torch.autograd.Function):
    """y = x W^T + b for each client; backward moves W and b. ``token`` makes autograd call it for the first layer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, weight: Tensor, bias: Tensor | None, layer: StackedLinear
    ) -> Tensor:
        flat = x if x.dim() == 3 else x.flatten(1, -2)
        ctx.save_for_backward(flat)
        ctx.layer, ctx.weight, ctx.bias, ctx.shape = layer, weight, bias, x.shape
        y = torch.bmm(flat, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
        return y if x.dim() == 3 else y.reshape(*x.shape[:-1], weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (flat,) = ctx.saved_tensors
        layer, weight, bias = ctx.layer, ctx.weight, ctx.bias
        dy = gradients[0].reshape(*flat.shape[:2], weight.shape[1])
        dx = torch.bmm(dy, weight).reshape(ctx.shape) if ctx.needs_input_grad[0] else None
        step = layer.step
        step.apply(layer.name("weight"), weight, lambda t, beta, alpha: t.baddbmm_(dy.mT, flat, beta=beta, alpha=alpha))
        if bias is not None:
            db = dy.sum(1)
            step.apply(layer.name("bias"), bias, lambda t, beta, alpha: t.mul_(beta).add_(db, alpha=alpha))
        return dx, None, None, None, None


class Stacked:
    """One layer of a stack: takes (k, B, ...), the first k clients' batches."""

    def __init__(self, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        self.prefix, self.arrays, self.step = prefix, arrays, step

    def name(self, parameter: str) -> str:
        """The name of a parameter in the model."""
        return f"{self.prefix}.{parameter}" if self.prefix else parameter

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """(k, B, ...) -> (k, B, ...)."""
        raise TypeError("an abstract layer")

    def finish(self) -> None:
        """After backward: move what did not move itself."""


class StackedLinear(Stacked):
    """nn.Linear: weight (C, out, in), bias (C, out)."""

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """(k, B, ..., in) -> (k, B, ..., out)."""
        k, bias = len(x), self.arrays.get(self.name("bias"))
        out: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            x, token, self.arrays[self.name("weight")][:k], None if bias is None else bias[:k], self
        )
        return out


class _WithGradients(Stacked):
    """A layer whose few parameters keep their gradients until ``finish`` moves them."""

    def __init__(self, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        super().__init__(prefix, arrays, step)
        self._leaves: dict[str, Tensor] = {}

    def leaf(self, parameter: str, k: int) -> Tensor | None:
        """The first k clients' values of a parameter, as a leaf that collects a gradient."""
        name = self.name(parameter)
        if name not in self.arrays:
            return None
        self._leaves[name] = self.arrays[name][:k].detach().requires_grad_()
        return self._leaves[name]

    def finish(self) -> None:
        """Move the parameters by the gradients that backward left."""
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                gradient = leaf.grad
                if gradient is not None:
                    weight = self.arrays[name][: len(leaf)]
                    self.step.apply(name, weight, lambda t, beta, alpha, g=gradient: t.mul_(beta).add_(g, alpha=alpha))  # type: ignore[misc]
        self._leaves = {}


class StackedLayerNorm(_WithGradients):
    """nn.LayerNorm over the last axes, with a scale and shift a client."""

    def __init__(self, module: nn.LayerNorm, prefix: str, arrays: dict[str, Tensor], step: Step) -> None:
        super().__init__(prefix, arrays, step)
        self.shape, self.eps = module.normalized_shape, module.eps

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """Same shape."""
        y = nn.functional.layer_norm(x, self.shape, eps=self.eps)
        weight, bias = self.leaf("weight", len(x)), self.leaf("bias", len(x))
        between = (len(x), *(1,) * (x.dim() - 1 - len(self.shape)), *self.shape)
        y = y if weight is None else y * weight.reshape(between)
        return y if bias is None else y + bias.reshape(between)


class StackedEmbedding(_WithGradients):
    """nn.Embedding: one table (C x vocabulary, width) that a client's tokens index at its own offset."""

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """(k, B, ...) tokens -> (k, B, ..., width)."""
        weight = self.leaf("weight", len(x))
        assert weight is not None
        offset = torch.arange(len(x)).reshape(len(x), *(1,) * (x.dim() - 1)) * weight.shape[1]
        return nn.functional.embedding(x + offset, weight.reshape(-1, weight.shape[2]))


class Rowwise(Stacked):
    """A layer without parameters, applied to clients and examples in one axis."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__("", {}, Step(0.0))
        self.module = module

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """As the module does to each example."""
        out: Tensor = self.module(x.reshape(-1, *x.shape[2:]))
        return out.reshape(*x.shape[:2], *out.shape[1:])


class StackedFlatten(Stacked):
    """nn.Flatten of each example."""

    def __init__(self) -> None:
        super().__init__("", {}, Step(0.0))

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """(k, B, ...) -> (k, B, features)."""
        return x.reshape(*x.shape[:2], -1)


class StackedDropout(Stacked):
    """nn.Dropout: each client draws its own mask from its own generator, as it would by itself."""

    def __init__(self, probability: float, generators: Sequence[torch.Generator], sizes: list[int]) -> None:
        super().__init__("", {}, Step(0.0))
        self.keep, self.generators, self.sizes = 1.0 - probability, generators, sizes

    def __call__(self, x: Tensor, token: Tensor) -> Tensor:
        """Same shape; ``sizes`` are the clients' true batch sizes of this step."""
        mask = torch.zeros_like(x)
        for row, size, generator in zip(mask, self.sizes, self.generators, strict=False):
            row[:size].copy_(torch.empty_like(row[:size]).bernoulli_(self.keep, generator=generator))
        return x * mask.div_(self.keep) if self.keep else x * mask


Layers: TypeAlias = list[tuple[str, nn.Module]]


def flat_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The leaves of nested nn.Sequential, in order, with their names in the state dict."""
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            yield from flat_layers(child, f"{prefix}.{name}" if prefix else name)
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
        match layer:
            case nn.Linear():
                layers.append(StackedLinear(prefix, arrays, step))
            case nn.LayerNorm():
                layers.append(StackedLayerNorm(layer, prefix, arrays, step))
            case nn.Embedding():
                layers.append(StackedEmbedding(prefix, arrays, step))
            case nn.Flatten():
                layers.append(StackedFlatten())
            case nn.Dropout():
                layers.append(StackedDropout(layer.p, generators, sizes))
            case _:
                layers.append(Rowwise(layer))
    return layers
