"""A model asked about many examples, a batch at a time, so that the same question always has the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fl.metrics import Statistics, merge
from fl.models.arrays import laid_out, to_inputs, to_targets
from fl.models.tasks import statistics
from fl.parameters import Array
from fl.signature import Signature


@contextmanager
def one_thread() -> Iterator[None]:
    """One intra-op thread of torch inside: sums are then added in one order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, one thread; every submodule's own mode comes back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with one_thread(), torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def evaluate(module: nn.Module, x: Array, y: Array, signature: Signature, *, batch_size: int = 1000) -> Statistics:
    """The task's statistics over examples as stored (memory-mapped or not); empty for no examples."""
    with evaluating(module):
        return merge(
            statistics(signature, _ask(module, to_inputs(x[batch], signature)), to_targets(y[batch], signature))
            for batch in _batches(len(x), batch_size)
        )


def predict(module: nn.Module, x: Array, signature: Signature, *, batch_size: int = 1000) -> Array:
    """What the model answers, raw (logits, or numbers in the target's unit), of at least one example as stored."""
    return outputs_of(module, (to_inputs(x[batch], signature) for batch in _batches(len(x), batch_size)))


def outputs_of(module: nn.Module, inputs: Iterable[Tensor]) -> Array:
    """The outputs of batches that are ready for the model, as one array."""
    with evaluating(module):
        return np.concatenate([_ask(module, batch).numpy() for batch in inputs])


def _ask(module: nn.Module, inputs: Tensor) -> Tensor:
    """The module's outputs; measured, the CNN takes two thirds of the time with its images laid out so."""
    outputs: Tensor = module(laid_out(inputs))
    return outputs


def _batches(num_examples: int, batch_size: int) -> Iterator[slice]:
    return (slice(start, start + batch_size) for start in range(0, num_examples, batch_size))
