"""The same rounds with no framework: what the machine gives. Nothing is versioned, logged, checked or resumed.

Forked processes share the parameters and their partial sums; a message a process and round is all that passes between
them. Models of Linear layers train stacked, with a backward pass by hand that moves the weights as it goes; others by
autograd and one update over all tensors. With the argument "app" each client trains as the Flower app's do.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench.drivers import networks, record
from experiments.bench.drivers.record import Task

AT_ONCE = {"softmax": 32, "mlp": 5}
"""Clients that are stacked, for the models that can be."""

APP = "app"


class Shared:
    """What the processes have in common: examples, the parameters in one vector, and a sum of each process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.module = networks.build(task.model, record.start(task))
        self.weights = [p.detach() for p in self.module.parameters()]
        self.x, self.y = (torch.from_numpy(np.array(a)).share_memory_() for a in record.examples(task))
        self.flat = torch.cat([w.reshape(-1) for w in self.weights]).share_memory_()
        self.sums = torch.zeros(max(1, task.processes), len(self.flat)).share_memory_()

    def views(self, flat: Tensor) -> list[Tensor]:
        """A vector as the model's tensors."""
        parts = flat.split([w.numel() for w in self.weights])
        return [part.view(w.shape) for part, w in zip(parts, self.weights, strict=True)]


def orders(task: Task, num_examples: int, generator: torch.Generator) -> list[Tensor]:
    """A client's batches."""
    shuffled = [torch.randperm(num_examples, generator=generator) for _ in range(task.epochs)]
    return [batch for order in shuffled for batch in order.split(task.batch_size)]


@torch.no_grad()
def train_stacked(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> None:
    """Linear layers with ReLU between them: gradient and step in one product."""
    task, rate = shared.task, shared.task.learning_rate
    stacked = [w.expand(len(clients), *w.shape).clone() for w in shared.views(shared.flat)]
    weights, biases = stacked[0::2], stacked[1::2]
    plans = [orders(task, shared.x.shape[1], generator) for _ in clients]
    for step in range(len(plans[0])):
        index = torch.stack([plan[step] for plan in plans])
        rows = torch.tensor(clients)[:, None]
        inputs, targets = [shared.x[rows, index].flatten(2)], shared.y[rows, index].unsqueeze(-1)
        for w, b in zip(weights, biases, strict=True):
            out = torch.baddbmm(b.unsqueeze(1), inputs[-1], w.mT)
            inputs.append(out if w is weights[-1] else out.relu_())
        delta = torch.softmax(inputs.pop(), -1)
        delta.scatter_add_(-1, targets, torch.full(targets.shape, -1.0)).div_(targets.shape[1])
        for w, b in zip(reversed(weights), reversed(biases), strict=True):
            below = inputs.pop()
            after = torch.bmm(delta, w).mul_(below > 0) if inputs else delta
            w.baddbmm_(delta.mT, below, alpha=-rate)
            b.sub_(delta.sum(1), alpha=rate)
            delta = after
    for part, w in zip(shared.views(total), stacked, strict=True):
        part.add_(w.sum(0))


def train_one_by_one(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> None:
    """autograd.grad, and one addition over all tensors."""
    parameters = list(shared.module.parameters())
    raw: list[Tensor] = [p.data for p in parameters]
    for client in clients:
        torch._foreach_copy_(raw, shared.views(shared.flat))
        for batch in orders(shared.task, shared.x.shape[1], generator):
            x = shared.x[client][batch]
            if x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            loss = networks.loss(shared.module(x), shared.y[client][batch])
            gradients = torch.autograd.grad(loss, parameters)
            torch._foreach_add_(raw, gradients, alpha=-shared.task.learning_rate)
        torch._foreach_add_(shared.views(total), raw)


def train_as_app(shared: Shared, clients: Sequence[int], total: Tensor) -> None:
    """A module and an optimiser a client."""
    for client in clients:
        module = networks.NETWORKS[shared.task.model]()
        own = [p.detach() for p in module.parameters()]
        torch._foreach_copy_(own, shared.views(shared.flat))
        networks.fit(module, shared.x[client], shared.y[client], shared.task)
        torch._foreach_add_(shared.views(total), own)


def train(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> None:
    """The sum of the clients' local parameters into ``total``."""
    total.zero_()
    if APP in sys.argv[1:]:
        train_as_app(shared, clients, total)
        return
    size = AT_ONCE.get(shared.task.model)
    if size is None:
        train_one_by_one(shared, clients, total, generator)
        return
    for first in range(0, len(clients), size):
        train_stacked(shared, clients[first : first + size], total, generator)


def work(shared: Shared, number: int, calls: Connection) -> None:
    """One process: clients in, done out."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(shared.task.seed * 1000 + number)
    while clients := calls.recv():
        train(shared, clients, shared.sums[number], generator)
        calls.send(True)


def main() -> None:
    """Run the task of this process."""
    torch.set_num_threads(1)
    task, noted = record.read_task(), record.Rounds()
    shared, choose = Shared(task), np.random.default_rng(task.seed)
    fork: Any = multiprocessing.get_context("fork")
    pairs = [fork.Pipe() for _ in range(max(1, task.processes))]
    workers = [
        fork.Process(target=work, args=(shared, number, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pairs)
    ]
    for worker in workers:
        worker.start()
    for _ in range(task.rounds):
        cohort = choose.choice(task.clients, task.cohort, replace=False).tolist()
        busy = [(ours, cohort[i :: len(pairs)]) for i, (ours, _) in enumerate(pairs) if cohort[i :: len(pairs)]]
        for ours, clients in busy:
            ours.send(clients)
        for ours, _ in busy:
            ours.recv()
        torch.sum(shared.sums[: len(busy)], 0, out=shared.flat).div_(task.cohort)
        noted.end()
    for ours, _ in pairs:
        ours.send([])
    names = [name for name, _ in shared.module.named_parameters()]
    noted.save(task, {n: v.numpy() for n, v in zip(names, shared.views(shared.flat), strict=True)})


if __name__ == "__main__":
    main()
