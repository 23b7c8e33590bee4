"""The reference: one client, one plain PyTorch loop.

Every faster way to train must give what this gives, to a stated tolerance. Gradients come from ``autograd.grad`` and
plain SGD is applied in place over all tensors at once: the same steps as ``torch.optim.SGD`` without an optimiser
object a client, whose first use alone costs a second of imports in every process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.schedule import Schedule
from fl.algorithms.algorithm import Correction
from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.metrics import Mean
from fl.models import arrays, tasks
from fl.parameters import Array, Parameters
from fl.seeds import generator, process_wide
from fl.signature import Signature


@dataclass(frozen=True)
class TrainingOptions:
    """How a client trains; the ``client`` section of the configuration.

    batch_size      examples a step; None: the whole training part at once
    local_epochs    passes over the training part, unless ``local_steps`` says how many steps to take instead
    optimizer       "sgd", or any class of torch.optim by name
    clip_norm       the gradient's Euclidean norm is scaled down to it; None: never
    """

    batch_size: int | None = 10
    local_epochs: int | None = 1
    local_steps: int | None = None
    learning_rate: float = 0.1
    schedule: Schedule = field(default_factory=Schedule)
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        above_zero = {
            "batch_size": self.batch_size,
            "local_epochs": self.local_epochs,
            "local_steps": self.local_steps,
            "learning_rate": self.learning_rate,
            "clip_norm": self.clip_norm,
        }
        for name, value in above_zero.items():
            if value is not None and not value > 0:
                raise BadInput(key=f"client.{name}", got=value, allowed="above 0")
        if self.local_epochs is None and self.local_steps is None:
            raise BadInput(key="client.local_epochs", got=None, allowed="a number of epochs, or client.local_steps")
        if not 0 <= self.momentum < 1:
            raise BadInput(key="client.momentum", got=self.momentum, allowed="at least 0, below 1")
        if self.weight_decay < 0:
            raise BadInput(key="client.weight_decay", got=self.weight_decay, allowed="at least 0")
        if self.nesterov and not self.momentum:
            raise BadInput(key="client.nesterov", got=True, allowed="false, or a client.momentum above 0")
        if self.optimizer != "sgd":
            _try_out(self)

    def num_steps(self, num_examples: int) -> int:
        """How many steps a client of ``num_examples`` takes; ValueError where there are none."""
        if num_examples < 1:
            raise ValueError("there is no example to train on")
        if self.local_steps is not None:
            return self.local_steps
        return (self.local_epochs or 0) * math.ceil(num_examples / (self.batch_size or num_examples))

    def specialised(self, *, epochs: int | None, learning_rate: float | None) -> TrainingOptions:
        """The same with another number of epochs, and with a rate that is the same in every round; None: unchanged."""
        options = self if epochs is None else replace(self, local_epochs=epochs, local_steps=None)
        return options if learning_rate is None else replace(options, learning_rate=learning_rate, schedule=Schedule())


@dataclass(frozen=True)
class Trained:
    """What a client's training gave: parameters ``end``, steps taken, the rate used, the mean loss seen, the time."""

    end: Parameters
    num_steps: int
    learning_rate: float
    loss: Mean
    seconds: float = 0.0

    def timed(self, seconds: float) -> Trained:
        """The same, and how long it took."""
        return replace(self, seconds=seconds)


def train(
    module: nn.Module,
    start: Mapping[str, Array],
    examples: Examples,
    signature: Signature,
    options: TrainingOptions,
    *,
    correction: Correction,
    seed: int,
    round: int,
    client: int,
    purpose: str = "train",
    weights: Array | None = None,
) -> Trained:
    """Train ``module`` from ``start`` on one client's training part; ``module`` is scratch space.

    ``weights`` (n,) multiply the examples' losses, those that are told as well.

    Batches are drawn from (seed, "<purpose>/shuffle", round, client), what the module draws itself (dropout) from
    (seed, "<purpose>/module", round, client). The last batch of an epoch may be short.
    """
    arrays.load_parameters(module, start)
    named: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    learnt = list(named.values())
    x, y = arrays.to_inputs(examples.x, signature), arrays.to_targets(examples.y, signature)
    factors = None if weights is None else torch.from_numpy(weights).float()
    rate = options.learning_rate * options.schedule.factor(round)
    step = _sgd(learnt, options, rate) if options.optimizer == "sgd" else _torch_optim(learnt, options, rate)
    correct = _corrector(named, start, correction)
    orders = generator(seed, purpose=f"{purpose}/shuffle", round=round, client=client)
    total, seen, num_steps = torch.zeros((), dtype=torch.float64), 0, 0
    was_training = module.training
    module.train()
    with process_wide(seed, purpose=f"{purpose}/module", round=round, client=client):
        for batch in batches(len(y), options, orders):
            outputs = module(arrays.laid_out(x[batch]))
            if factors is None:
                loss = tasks.loss(signature, outputs, y[batch])
            else:
                loss = (tasks.losses(signature, outputs, y[batch]) * factors[batch]).mean()
            gradients = list(torch.autograd.grad(loss, learnt, materialize_grads=True))
            with torch.no_grad():
                correct(gradients)
                if options.clip_norm is not None:
                    clip(gradients, options.clip_norm)
                step(gradients)
                total += loss.detach().double() * len(batch)
            seen += len(batch)
            num_steps += 1
    module.train(was_training)
    end = {name: np.array(value, copy=True) for name, value in arrays.parameters_of(module).items()}
    return Trained(end, num_steps, rate, Mean(float(total), float(seen)))


def batches(num_examples: int, options: TrainingOptions, orders: np.random.Generator) -> Iterator[Tensor]:
    """Index tensors of the steps: a fresh permutation an epoch, cut into batches, until the steps are done."""
    size, left = options.batch_size or num_examples, options.num_steps(num_examples)
    while left > 0:
        order = torch.from_numpy(orders.permutation(num_examples))
        for batch in order.split(size)[:left]:
            yield batch
            left -= 1


def clip(gradients: list[Tensor], limit: float) -> None:
    """Scale all gradients down together, in place, so that their Euclidean norm is at most ``limit``."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (limit / norm.clamp(min=limit)).item())


def _corrector(named: dict[str, Tensor], start: Mapping[str, Array], correction: Correction) -> Any:
    """In place: gradient += proximal (y - x) + constant."""
    weights = list(named.values())
    constant = [torch.from_numpy(np.array(correction.constant[n])) for n in named] if correction.constant else []
    anchor = [torch.from_numpy(np.array(start[n])) for n in named] if correction.proximal else []

    def correct(gradients: list[Tensor]) -> None:
        if anchor:
            torch._foreach_add_(gradients, torch._foreach_sub(weights, anchor), alpha=correction.proximal)
        if constant:
            torch._foreach_add_(gradients, constant)

    return correct


def _sgd(weights: list[Tensor], options: TrainingOptions, rate: float) -> Any:
    """torch.optim.SGD's step, over all tensors at once."""
    momentum: list[Tensor] = []

    def step(gradients: list[Tensor]) -> None:
        if options.weight_decay:
            torch._foreach_add_(gradients, weights, alpha=options.weight_decay)
        if options.momentum:
            if momentum:
                torch._foreach_mul_(momentum, options.momentum)
                torch._foreach_add_(momentum, gradients)
            else:
                momentum.extend(g.clone() for g in gradients)
            if options.nesterov:
                torch._foreach_add_(gradients, momentum, alpha=options.momentum)
            else:
                gradients = momentum
        torch._foreach_add_(weights, gradients, alpha=-rate)

    return step


def _torch_optim(weights: list[Tensor], options: TrainingOptions, rate: float) -> Any:
    optimizer = _torch_optimizer(weights, options, rate)

    def step(gradients: list[Tensor]) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _torch_optimizer(weights: list[Tensor], options: TrainingOptions, rate: float) -> torch.optim.Optimizer:
    """The class of torch.optim of that name in any case, with those of our options that are set."""
    kinds: dict[str, Any] = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    set_options = {name: getattr(options, name) for name in ("momentum", "nesterov", "weight_decay")}
    optimizer: torch.optim.Optimizer = kinds[options.optimizer.lower()](
        weights, lr=rate, **{name: value for name, value in set_options.items() if value}
    )
    return optimizer


def _try_out(options: TrainingOptions) -> None:
    """One step on one number, before anything depends on it."""
    weight = torch.ones(1, requires_grad=True)
    try:
        _torch_optim([weight], options, options.learning_rate)([torch.ones(1)])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        allowed = f"sgd, or a class of torch.optim that steps by gradients with these options ({error})"
        raise BadInput(key="client.optimizer", got=options.optimizer, allowed=allowed) from error
