"""The same rounds with no framework: what the machine gives. Nothing is logged, refused or resumed.

Forked processes share the parameters and their partial sums; a message a process and round is all that passes between
them. Models of Linear layers train stacked, with a backward pass by hand that moves the weights as it goes; others by
autograd and one update over all tensors.

    app     each client trains as the Flower app's do, from Flower's arrays to Flower's arrays
    kept    what is promised of every round is kept, as cheaply as can be: the norm of each client's update, and the
            parameters after it, durable under their hash, with a line that says so
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench.drivers import networks, record
from experiments.bench.drivers.record import Task

AT_ONCE = {"softmax": 32, "mlp": 5}
"""Clients that are stacked, for the models that can be."""

APP, KEPT = "app", "kept"

GATHER_SECONDS = 0.1
"""Between two times that rounds are made durable: those since the last one together."""


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
def train_stacked(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> list[float]:
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
    return norms(shared, stacked) if KEPT in sys.argv[1:] else []


def norms(shared: Shared, stacked: Sequence[Tensor]) -> list[float]:
    """How far each client went, over all its tensors (clients, ...)."""
    squares = [
        (w - start).square_().flatten(1).sum(1) for w, start in zip(stacked, shared.views(shared.flat), strict=True)
    ]
    found: list[float] = torch.stack(squares).sum(0).sqrt_().tolist()
    return found


def train_one_by_one(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> list[float]:
    """autograd.grad, and one addition over all tensors."""
    found: list[float] = []
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
        if KEPT in sys.argv[1:]:
            found += norms(shared, [one.unsqueeze(0) for one in raw])
    return found


def train_as_app(shared: Shared, clients: Sequence[int], total: Tensor) -> list[float]:
    """A module and an optimiser a client, and the arrays of Flower that the app asks for and answers with."""
    from flwr.app import ArrayRecord

    names = networks.NETWORKS[shared.task.model]().state_dict()
    payload = ArrayRecord(dict(zip(names, shared.views(shared.flat), strict=True)))
    for client in clients:
        module = networks.NETWORKS[shared.task.model]()
        module.load_state_dict(payload.to_torch_state_dict())
        networks.fit(module, shared.x[client], shared.y[client], shared.task)
        answer = ArrayRecord(module.state_dict())
        arrays = [torch.from_numpy(array.numpy()) for array in answer.values()]
        torch._foreach_add_(shared.views(total), arrays)
    return []


def train(shared: Shared, clients: Sequence[int], total: Tensor, generator: torch.Generator) -> list[float]:
    """The sum of the clients' local parameters into ``total``; the norms of their updates where those are kept."""
    total.zero_()
    if APP in sys.argv[1:]:
        return train_as_app(shared, clients, total)
    size = AT_ONCE.get(shared.task.model)
    if size is None:
        return train_one_by_one(shared, clients, total, generator)
    some = [clients[first : first + size] for first in range(0, len(clients), size)]
    return [norm for each in some for norm in train_stacked(shared, each, total, generator)]


class Kept:
    """Rounds as files: the parameters of each under their hash, and a line of it that names the one before."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.parent, self.not_before = folder, "", 0.0
        self.log = (folder / "rounds.jsonl").open("ab")
        self.waiting: list[tuple[bytes, dict[str, Any]]] = []

    def add(self, parameters: Tensor, facts: dict[str, Any]) -> None:
        """A round is over; it is durable after ``write``."""
        self.waiting.append((parameters.numpy().tobytes(), facts))

    def write(self, *, at_once: bool = False) -> None:
        """Make what waits durable, if that is due."""
        if not self.waiting or (time.monotonic() < self.not_before and not at_once):
            return
        lines, files = [], []
        for content, facts in self.waiting:
            digest = hashlib.sha256(content).hexdigest()
            files.append((self.folder / digest).open("wb"))
            files[-1].write(content)
            files[-1].flush()
            lines.append(json.dumps({**facts, "sha256": digest, "parent": self.parent}))
            self.parent = digest
        for file in files:
            os.fsync(file.fileno())
            file.close()
        self.log.write("".join(line + "\n" for line in lines).encode())
        self.log.flush()
        os.fsync(self.log.fileno())
        self.waiting, self.not_before = [], time.monotonic() + GATHER_SECONDS


def work(shared: Shared, number: int, calls: Connection) -> None:
    """One process: clients in, done out."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(shared.task.seed * 1000 + number)
    while clients := calls.recv():
        calls.send(train(shared, clients, shared.sums[number], generator))


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
    kept = Kept(Path(task.output).with_suffix(".kept")) if KEPT in sys.argv[1:] else None
    for number in range(task.rounds):
        cohort = choose.choice(task.clients, task.cohort, replace=False).tolist()
        busy = [(ours, cohort[i :: len(pairs)]) for i, (ours, _) in enumerate(pairs) if cohort[i :: len(pairs)]]
        for ours, clients in busy:
            ours.send(clients)
        if kept:
            kept.write()
        went = [ours.recv() for ours, _ in busy]
        torch.sum(shared.sums[: len(busy)], 0, out=shared.flat).div_(task.cohort)
        if kept:
            if not all(math.isfinite(norm) for some in went for norm in some):
                raise ValueError("a client diverged")
            kept.add(shared.flat, {"round": number, "cohort": [clients for _, clients in busy], "norms": went})
        noted.end()
    if kept:
        kept.write(at_once=True)
    for ours, _ in pairs:
        ours.send([])
    names = [name for name, _ in shared.module.named_parameters()]
    noted.save(task, {n: v.numpy() for n, v in zip(names, shared.views(shared.flat), strict=True)})


if __name__ == "__main__":
    main()
