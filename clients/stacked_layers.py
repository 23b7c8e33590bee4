"""Layers of several clients at once: every parameter has a leading client axis, and every input too.

A Linear layer of C clients is one batched matrix product. On the way back it moves its weights in place as it goes,

    W.baddbmm_(dY^T, X, beta=1 - lr * wd, alpha=-lr)

which is gradient, weight decay and SGD step in one pass: no weight gradient is ever stored. The usual layers know
their own derivative; autograd differentiates the others, each by itself. Layers without parameters are applied as
they are, with clients and examples in one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

LARGE_BYTES = 2**21
"""Of a weight that does not fit a core's cache: a product with it on the left took two thirds of the time."""

SMALL_PRODUCT = 2**17
"""Multiplications of a client's product up to which NumPy's takes a third of the time of torch's. They are too few for
its BLAS to share them among threads, whose number the bits would depend on.
"""


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
        self.names = parameter_name(prefix, "weight"), parameter_name(prefix, "bias")
        self.all = weight, _ = arrays[self.names[0]], arrays.get(self.names[1])
        self.is_large = weight[0].nbytes > LARGE_BYTES
        self.most_rows = SMALL_PRODUCT // max(1, weight[0].numel())
        self.is_numpys = weight.is_cpu and weight.dtype in (torch.float32, torch.float64)
        self._take_part(len(weight))

    def forward(self, x: Tensor) -> Tensor:
        """(k, B, ..., in) -> (k, B, ..., out): y = x W^T + b."""
        if len(x) != self.k:
            self._take_part(len(x))
        self.x = flat = x if x.dim() == 3 else x.flatten(1, -2)
        weight, bias = self.weight, self.bias
        if self.transposed is not None and flat.shape[1] <= self.most_rows:
            y = torch.from_numpy(np.matmul(flat.numpy(), self.transposed))
            if bias is not None:
                y += bias.unsqueeze(1)
        elif self.is_large:
            y = torch.bmm(weight, flat.mT) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, flat.mT)
            y = y.mT.contiguous()
        else:
            y = torch.bmm(flat, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
        return y if x.dim() == 3 else y.reshape(*x.shape[:-1], y.shape[-1])

    def backward(self, dy: Tensor) -> Tensor:
        """dx = dy W, before W and b move."""
        x, shape = self.x, dy.shape
        if dy.dim() != 3:
            dy = dy.reshape(*x.shape[:2], -1)
        dx = torch.bmm(dy, self.weight) if self.differentiable else dy
        if len(shape) != 3 and self.differentiable:
            dx = dx.reshape(*shape[:-1], dx.shape[-1])
        self.step.apply(
            self.names[0], self.weight, lambda target, beta, alpha: target.baddbmm_(dy.mT, x, beta=beta, alpha=alpha)
        )
        if self.bias is not None:
            self.step.apply_gradient(self.names[1], self.bias, dy.sum(1))
        return dx

    def _take_part(self, k: int) -> None:
        """The first ``k`` clients' arrays, until others take part: most steps have the same ones."""
        weight, bias = self.all
        self.k, self.weight, self.bias = k, weight[:k], None if bias is None else bias[:k]
        self.transposed = self.weight.mT.numpy() if self.is_numpys else None


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
        self.x = x
        return x.flatten(2)

    def backward(self, dy: Tensor) -> Tensor:
        """The shape that came in, and its layout: images before it are in channels_last."""
        dx = dy.reshape(self.x.shape)
        return dx if self.x.is_contiguous() else torch.empty_like(self.x).copy_(dx)


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
        names = {part: parameter_name(prefix, part) for part in ("weight", "bias")}
        self.parameters = {part: (name, arrays[name]) for part, name in names.items() if name in arrays}
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


def parameter_name(prefix: str, parameter: str) -> str:
    """Of a parameter of the layer ``prefix``, in the state dict."""
    return f"{prefix}.{parameter}" if prefix else parameter
