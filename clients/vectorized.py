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
    losses = torch.zeros(len(plans[ranks[0]].sizes), len(clients), dtype=torch.float64)
    with torch.no_grad():
        steps = _batches([examples[i] for i in ranks], signature, [plans[i] for i in ranks])
        for number, (inputs, targets, counts) in enumerate(steps):
            sizes[:] = counts
            outputs = inputs
            for layer in layers:
                outputs = layer.forward(outputs)
            gradient = _loss_gradient(signature, outputs, targets, counts, losses[number, : len(counts)])
            for layer in reversed(learning):
                gradient = layer.backward(gradient)
    sums = losses.sum(0).tolist()
    trained = [
        Trained(
            {name: value[rank].contiguous().numpy() for name, value in stacked.items()},
            len(plans[i].sizes),
            rate,
            Mean(sums[rank], float(plans[i].sizes.sum())),
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


def _batches(
    examples: Sequence[Examples], signature: Signature, plans: Sequence[Plan]
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Every step: inputs (k, B, ...), targets (k, B, ...), the k clients' true batch sizes."""
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
        xs = _gathered([e.x for e in examples[:active]], index)
        ys = _gathered([e.y for e in examples[:active]], index)
        inputs = arrays.to_inputs(xs, signature).unflatten(0, index.shape)
        targets = arrays.to_targets(ys, signature).unflatten(0, index.shape)
        widths, taking_part = counts.max(1).tolist(), (counts > 0).sum(1).tolist()
        for t, (k, widest) in enumerate(zip(taking_part, widths, strict=True)):
            yield inputs[:k, t, :widest], targets[:k, t, :widest], counts[t, :k].tolist()


def _gathered(values: Sequence[Array], index: Array) -> Array:
    """Each client's examples in the order that its part of ``index`` names them, one client after the other."""
    out = np.empty((*index.shape[:1], index[0].size, *values[0].shape[1:]), dtype=np.result_type(*values))
    for value, order, place in zip(values, index, out, strict=True):
        np.take(value, order.reshape(-1), axis=0, out=place, mode="clip")
    return out.reshape(-1, *out.shape[2:])


def _loss_gradient(
    signature: Signature, outputs: Tensor, targets: Tensor, sizes: Sequence[int], sums: Tensor
) -> Tensor:
    """The gradient of the sum over clients of each client's mean loss; into ``sums``, the sums over their examples.

    ``outputs`` are (k, B, ...); padded rows get no gradient and count nothing.
    """
    k, width = targets.shape[:2]
    if signature.task == "regression":
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            losses = tasks.losses(signature, leaf.flatten(0, 1), targets.flatten(0, 1)).unflatten(0, (k, width))
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        losses = losses.detach()
    else:
        logits = torch.log_softmax(outputs, -1)
        at = targets.unsqueeze(-1)
        losses = logits.gather(-1, at).squeeze(-1).neg_()
        gradient = logits.exp_()  # softmax minus one at the target
        gradient.scatter_add_(-1, at, gradient.new_full((), -1.0).expand(at.shape))
    positions = losses[0, 0].numel()
    if min(sizes) == width:
        gradient.div_(width * positions)
    else:
        counts = torch.tensor(sizes, dtype=torch.float64)[:, None]
        real = torch.arange(width)[None, :] < counts
        share = real / counts / positions
        gradient.mul_(share.to(gradient.dtype).reshape(k, width, *(1,) * (gradient.dim() - 2)))
        losses = losses * real.reshape(k, width, *(1,) * (losses.dim() - 2))
    sums.copy_(losses.flatten(1).sum(1, dtype=torch.float64).div_(positions))
    return gradient
