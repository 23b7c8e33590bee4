"""A unit of clients trained at once: the same steps as clients/training.py, one batched operation for all of them.

Clients are sorted by their number of steps, most first, so that at every step those still training are a prefix of
the stack, and a view. Short batches are padded, and the padding weighs nothing. The results agree with the one-by-one
path to rounding (tests hold 1e-5 relative); the same unit gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clients.stacked_layers import Step, stack, why_not
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
    orders = [
        batch_order(len(e.y), options, generator(seed, purpose=f"{purpose}/shuffle", round=round, client=c))
        for e, c in zip(examples, clients, strict=True)
    ]
    ranks = sorted(range(len(clients)), key=lambda i: -len(orders[i]))
    stacked = _copies(start, len(clients))
    step = _step(start, stacked, [corrections[i] for i in ranks], options, rate)
    sizes: list[int] = []
    draws = partial(_generators, seed, purpose, round, [clients[i] for i in ranks])
    layers = stack(module, stacked, step, draws, sizes)
    together = Examples(*(np.concatenate([getattr(examples[i], part) for i in ranks]) for part in ("x", "y")))
    offsets = np.cumsum([0, *(len(examples[i].y) for i in ranks)])
    losses = torch.zeros(len(clients), dtype=torch.float64)
    token = torch.zeros((), requires_grad=True)
    plan = [orders[i] for i in ranks]
    for first in range(0, len(plan[0]), STEPS_AT_ONCE):
        for inputs, targets, counts in _batches(together, signature, offsets, plan, first):
            sizes[:] = counts
            outputs = inputs
            for layer in layers:
                outputs = layer(outputs, token)
            gradient, each = _loss_gradient(signature, outputs, targets, counts)
            torch.autograd.backward(outputs, gradient)
            for layer in layers:
                layer.finish()
            losses[: len(counts)] += each
    seen = [sum(len(batch) for batch in order) for order in plan]
    trained = [
        Trained(
            {name: value[rank].numpy() for name, value in stacked.items()},
            len(plan[rank]),
            rate,
            Mean(float(losses[rank]), float(seen[rank])),
        )
        for rank in range(len(clients))
    ]
    return [trained[ranks.index(i)] for i in range(len(clients))]


def batch_order(num_examples: int, options: TrainingOptions, orders: np.random.Generator) -> list[Array]:
    """The batches of a client as index arrays: the same draws as ``clients.training.batches``."""
    size, left = options.batch_size or num_examples, options.num_steps(num_examples)
    plan: list[Array] = []
    while len(plan) < left:
        order = orders.permutation(num_examples)
        plan += [order[i : i + size] for i in range(0, num_examples, size)][: left - len(plan)]
    return plan


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
    examples: Examples, signature: Signature, offsets: Array, plan: Sequence[Sequence[Array]], first: int
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Steps ``first`` .. of the plan: inputs (k, B, ...), targets (k, B, ...), true sizes, k clients still active."""
    steps = range(first, min(first + STEPS_AT_ONCE, len(plan[0])))
    counts = [[len(order[t]) for order in plan if t < len(order)] for t in steps]
    widths = [max(sizes) for sizes in counts]
    index = np.zeros(sum(len(c) * w for c, w in zip(counts, widths, strict=True)), dtype=np.int64)
    at = 0
    for t, sizes, width in zip(steps, counts, widths, strict=True):
        for rank, size in enumerate(sizes):
            index[at : at + size] = plan[rank][t] + offsets[rank]
            index[at + size : at + width] = offsets[rank]
            at += width
    xs, ys = arrays.to_inputs(examples.x[index], signature), arrays.to_targets(examples.y[index], signature)
    at = 0
    for sizes, width in zip(counts, widths, strict=True):
        span = slice(at, at + len(sizes) * width)
        at = span.stop
        shape = (len(sizes), width)
        yield xs[span].unflatten(0, shape), ys[span].unflatten(0, shape), sizes


def _loss_gradient(
    signature: Signature, outputs: Tensor, targets: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The gradient of the sum over clients of each client's mean loss, and the sums over each client's examples.

    ``outputs`` are (k, B, ...); padded rows get no gradient and count nothing.
    """
    k, width = targets.shape[:2]
    if signature.task == "regression":
        leaf = outputs.detach().requires_grad_()
        losses = tasks.losses(signature, leaf.flatten(0, 1), targets.flatten(0, 1)).unflatten(0, (k, width))
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        losses = losses.detach()
    else:
        logits = torch.log_softmax(outputs.detach(), -1)
        losses = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1).neg_()
        gradient = logits.exp_()  # softmax minus one at the target
        gradient.scatter_add_(-1, targets.unsqueeze(-1), gradient.new_full((), -1.0).expand(*targets.shape, 1))
    positions = losses[0, 0].numel()
    if min(sizes) == width:
        gradient.div_(width * positions)
    else:
        real = torch.arange(width)[None, :] < torch.tensor(sizes)[:, None]
        share = real / torch.tensor(sizes)[:, None] / positions
        gradient.mul_(share.to(gradient.dtype).reshape(k, width, *(1,) * (gradient.dim() - 2)))
        losses = losses * real.reshape(k, width, *(1,) * (losses.dim() - 2))
    return gradient, losses.sum(tuple(range(1, losses.dim())), dtype=torch.float64) / positions
