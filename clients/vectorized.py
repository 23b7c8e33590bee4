"""A unit of clients trained at once: the same steps as clients/training.py, one batched operation for all of them.

Clients are sorted by their number of steps, most first, so that at every step those still training are a prefix of
the stack, and a view. Short batches are padded, and the padding weighs nothing. The results agree with the one-by-one
path to rounding (tests hold 1e-5 relative); the same unit gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clients.stacked_layers import Step
from clients.stacking import stack, why_not
from clients.training import Trained, TrainingOptions
from fl.algorithms.algorithm import Correction
from fl.data.dataset import Examples
from fl.metrics import Mean
from fl.models import arrays, tasks
from fl.parameters import Array
from fl.seeds import address, generator
from fl.signature import Signature

STEPS_AT_ONCE = 64
"""Steps whose batches are gathered together: enough to spare calls, few enough to stay in the cache."""

SHORT_ROW, MANY_NUMBERS = 16, 512
"""Classes up to which log_softmax goes through a row number by number, where it takes several rows at once along
another axis: of this many outputs and more, turning them round costs less than that.
"""


def why_one_by_one(module: nn.Module, options: TrainingOptions) -> str | None:
    """Why a client must train by itself, in words; None where a unit can be stacked."""
    if options.optimizer != "sgd":
        return f"the optimiser is {options.optimizer}"
    if options.nesterov:
        return "Nesterov momentum needs every gradient by itself"
    if options.clip_norm is not None:
        return "clipping needs every gradient before any step"
    if persistent := sorted(
        module.state_dict().keys() - {n for n, _ in module.named_parameters(remove_duplicate=False)}
    ):
        return f"it tracks {persistent[0]} by itself"
    return why_not(module)


def train_stacked(
    module: nn.Module,
    start: Mapping[str, Array],
    examples: Sequence[Examples],
    signature: Signature,
    options: TrainingOptions,
    *,
    corrections: Sequence[Correction],
    seed: int,
    round: int,
    clients: Sequence[int],
    purpose: str = "train",
) -> list[Trained]:
    """What ``clients.training.train`` gives for each of ``clients``, trained together.

    ``corrections`` share one ``proximal``. Batches and dropout come from the same addresses as there.
    """
    rate = options.learning_rate * options.schedule.factor(round)
    plans = [
        plan(len(e.y), options, generator(seed, purpose=f"{purpose}/shuffle", round=round, client=c))
        for e, c in zip(examples, clients, strict=True)
    ]
    ranks = sorted(range(len(clients)), key=lambda i: -len(plans[i].sizes))
    stacked = _copies(start, len(clients))
    step = _step(start, stacked, [corrections[i] for i in ranks], options, rate)
    sizes: list[int] = []
    draws = partial(_generators, seed, purpose, round, [clients[i] for i in ranks])
    layers = stack(module, stacked, step, draws, sizes)
    learning = layers[next(i for i, layer in enumerate(layers) if layer.learns) :]
    sums = np.zeros(len(clients))
    with torch.no_grad():
        for block in _blocks([examples[i] for i in ranks], signature, [plans[i] for i in ranks]):
            losses = _Losses(signature, block, next(reversed(stacked.values())).dtype)
            for number, inputs in enumerate(block.inputs):
                sizes[:] = block.sizes(number)
                outputs = inputs
                for layer in layers:
                    outputs = layer.forward(outputs)
                gradient = losses.gradient(number, outputs)
                for layer in reversed(learning):
                    gradient = layer.backward(gradient)
            sums[: block.counts.shape[1]] += losses.sums()
    ends = {name: value.contiguous().numpy() for name, value in stacked.items()}
    trained = [
        Trained(
            {name: value[rank] for name, value in ends.items()},
            len(plans[i].sizes),
            rate,
            Mean(float(sums[rank]), float(plans[i].sizes.sum())),
        )
        for rank, i in enumerate(ranks)
    ]
    return [trained[ranks.index(i)] for i in range(len(clients))]


@dataclass(frozen=True)
class Plan:
    """A client's batches: row t of ``index`` names the examples of step t, the first ``sizes[t]`` of its entries."""

    index: Array
    sizes: Array


def plan(num_examples: int, options: TrainingOptions, orders: np.random.Generator) -> Plan:
    """The batches of a client: the same draws as ``clients.training.batches``. Padding names example 0."""
    size, num_steps = options.batch_size or num_examples, options.num_steps(num_examples)
    an_epoch = -(-num_examples // size)
    epochs = -(-num_steps // an_epoch)
    index = np.zeros((epochs, an_epoch * size), dtype=np.int64)
    for row in index:
        row[:num_examples] = orders.permutation(num_examples)
    sizes = np.full((epochs, an_epoch), size)
    sizes[:, -1] = num_examples - (an_epoch - 1) * size
    return Plan(index.reshape(-1, size)[:num_steps], sizes.reshape(-1)[:num_steps])


def _copies(start: Mapping[str, Array], count: int) -> dict[str, Tensor]:
    """``count`` copies of each array along a new first axis."""
    copies = {}
    for name, value in start.items():
        copies[name] = torch.empty((count, *value.shape), dtype=torch.from_numpy(np.empty(0, value.dtype)).dtype)
        copies[name].numpy()[...] = value
    return copies


def _step(
    start: Mapping[str, Array],
    stacked: Mapping[str, Tensor],
    corrections: Sequence[Correction],
    options: TrainingOptions,
    rate: float,
) -> Step:
    constant = {
        name: torch.from_numpy(np.stack([c.constant[name] for c in corrections]))
        for name in stacked
        if corrections[0].constant
    }
    return Step(
        rate=rate,
        weight_decay=options.weight_decay,
        momentum_factor=options.momentum,
        proximal=corrections[0].proximal,
        start={n: torch.from_numpy(np.array(v)) for n, v in start.items()} if corrections[0].proximal else {},
        constant=constant,
        momentum={n: torch.zeros_like(v) for n, v in stacked.items()} if options.momentum else {},
    )


def _generators(seed: int, purpose: str, round: int, clients: Sequence[int]) -> list[torch.Generator]:
    """What ``fl.seeds.process_wide`` seeds torch with for each client, as a generator of its own."""
    numbers = [address(seed, purpose=f"{purpose}/module", round=round, client=client) for client in clients]
    return [torch.Generator().manual_seed(number % 2**63) for number in numbers]


@dataclass(frozen=True)
class _Block:
    """Some steps of a stack. ``counts`` (steps, k): the clients' true batch sizes, 0 of those that are done.

    inputs, targets   (k, B, ...) a step, of those that take part, as wide as the largest of their batches
    """

    counts: Array
    inputs: Sequence[Tensor]
    targets: Sequence[Tensor]

    def sizes(self, step: int) -> list[int]:
        """Of those that take part in a step."""
        some: list[int] = self.counts[step, : len(self.inputs[step])].tolist()
        return some


def _blocks(examples: Sequence[Examples], signature: Signature, plans: Sequence[Plan]) -> Iterator[_Block]:
    """Every step, STEPS_AT_ONCE together."""
    lengths = [len(p.sizes) for p in plans]
    for first in range(0, lengths[0], STEPS_AT_ONCE):
        steps = range(first, min(first + STEPS_AT_ONCE, lengths[0]))
        active = sum(length > first for length in lengths)
        counts = np.zeros((len(steps), active), dtype=np.int64)
        for rank, p in enumerate(plans[:active]):
            some = p.sizes[first : steps.stop]
            counts[: len(some), rank] = some
        width = int(counts.max())
        index = np.zeros((active, len(steps), width), dtype=np.int64)
        for rank, p in enumerate(plans[:active]):
            some = p.index[first : steps.stop, :width]
            index[rank, : len(some), : some.shape[1]] = some
        inputs = arrays.to_inputs(_gathered([e.x for e in examples[:active]], index), signature, owned=True)
        targets = arrays.to_targets(_gathered([e.y for e in examples[:active]], index), signature)
        parts = list(zip((counts > 0).sum(1).tolist(), counts.max(1).tolist(), strict=True))
        yield _Block(
            counts,
            _prefixes(inputs.unflatten(0, index.shape).unbind(1), parts),
            _prefixes(targets.unflatten(0, index.shape).unbind(1), parts),
        )


def _prefixes(steps: Sequence[Tensor], parts: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Of each step (k, B, ...) its part: so many clients and so many places of each."""
    return [one if one.shape[:2] == part else one[: part[0], : part[1]] for one, part in zip(steps, parts, strict=True)]


def _gathered(values: Sequence[Array], index: Array) -> Array:
    """Each client's examples in the order that its part of ``index`` names them, one client after the other."""
    out = np.empty((*index.shape[:1], index[0].size, *values[0].shape[1:]), dtype=np.result_type(*values))
    for value, order, place in zip(values, index, out, strict=True):
        np.take(value, order.reshape(-1), axis=0, out=place, mode="clip")
    return out.reshape(-1, *out.shape[2:])


class _Losses:
    """Of a block's steps. A padded row gets no gradient and counts nothing.

    What does not depend on the outputs is made once for all steps: on small models it took longer than their layers.
    """

    def __init__(self, signature: Signature, block: _Block, dtype: torch.dtype) -> None:
        """``dtype``: of the outputs."""
        self.signature, self.targets = signature, block.targets
        self.by_class = signature.task != "regression"
        first = block.targets[0]
        self.positions = first[0, 0].numel()
        parts = [(len(one), one.shape[1]) for one in block.targets]
        self.even = [bool((row[:k] == width).all()) for row, (k, width) in zip(block.counts, parts, strict=True)]
        widest = max(width for _, width in parts)
        self.parts = parts
        self.values = torch.zeros((len(parts), len(first), widest, *first.shape[2:]), dtype=dtype)
        self.into = _prefixes(self.values.unbind(0), parts)
        if self.by_class:
            self.at = [targets.unsqueeze(-1) for targets in self.targets]
            self.into = [values.unsqueeze(-1) for values in self.into]
            self.minus_one = torch.full((), -1.0, dtype=dtype).expand(*self.values.shape[1:], 1)
        if not all(self.even):
            counts = torch.from_numpy(block.counts).double().unsqueeze(2)
            self.real = torch.arange(widest) < counts
            shares = (self.real / counts.clamp(min=1) / self.positions).to(dtype)
            self.shares = _prefixes(shares.unbind(0), parts)

    def gradient(self, step: int, outputs: Tensor) -> Tensor:
        """The gradient of the sum over clients of each client's mean loss at their outputs (k, B, ...) of a step."""
        gradient = self._of_classes(step, outputs) if self.by_class else self._differentiated(step, outputs)
        width = self.parts[step][1]
        if self.even[step]:
            return gradient.div_(width * self.positions)
        return gradient.mul_(self.shares[step].reshape(*gradient.shape[:2], *(1,) * (gradient.dim() - 2)))

    def sums(self) -> Array:
        """Of each client, over the examples of all steps: of an example, the mean over its positions."""
        values = self.values.neg_() if self.by_class else self.values
        if not all(self.even):
            values *= self.real.reshape(*self.real.shape, *(1,) * (values.dim() - 3))
        summed: Array = values.flatten(2).sum(2, dtype=torch.float64).div_(self.positions).sum(0).numpy()
        return summed

    def _of_classes(self, step: int, outputs: Tensor) -> Tensor:
        """Of the cross-entropy: softmax minus one at the target."""
        at, into, minus_one, dim = self.at[step], self.into[step], self.minus_one, -1
        if turned := outputs.dim() == 3 and outputs.shape[-1] < SHORT_ROW and outputs.numel() >= MANY_NUMBERS:
            outputs, at, into, minus_one, dim = outputs.mT.contiguous(), at.mT, into.mT, minus_one.mT, 1
        logits = torch.log_softmax(outputs, dim)
        torch.gather(logits, dim, at, out=into)
        logits.exp_().scatter_add_(dim, at, minus_one)
        return logits.mT if turned else logits

    def _differentiated(self, step: int, outputs: Tensor) -> Tensor:
        targets = self.targets[step]
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            losses = tasks.losses(self.signature, leaf.flatten(0, 1), targets.flatten(0, 1))
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        self.into[step].copy_(losses.detach().unflatten(0, targets.shape[:2]))
        return gradient
