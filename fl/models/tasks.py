"""What a model is asked, and how well it answered: the loss that is trained, the statistics that are reported.

    classification   cross-entropy                                     loss accuracy confusion
    next_token       cross-entropy, every position counts as one       loss accuracy perplexity
    regression       ((prediction - target) / target_std)^2, averaged  loss mse rmse mae r2

A statistic is a sum that merges over batches and clients; what is no mean (perplexity, rmse, r2) is derived from the
merged means, at the end. What makes no sense for a task is absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fl.metrics import Confusion, Mean, Statistics
from fl.signature import Signature

CONFUSION_CLASSES = 100
"""Above this number of classes there is no confusion matrix: its size grows with the square."""

LARGEST_EXPONENT = 700.0  # e^709 is the largest float64; a perplexity of e^700 says "diverged" as well


def losses(signature: Signature, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each example, (N,); of each position, (N, T), for next_token. Their mean is ``loss``."""
    return _LOSSES[signature.task](signature, outputs, targets)


def loss(signature: Signature, outputs: Tensor, targets: Tensor) -> Tensor:
    """What training minimises: the mean of ``losses``, a scalar with a gradient. Always of order 1."""
    return losses(signature, outputs, targets).mean()


@torch.no_grad()
def statistics(signature: Signature, outputs: Tensor, targets: Tensor) -> Statistics:
    """Sums over one batch, accumulated in float64: ``outputs`` of the model, ``targets`` as from ``to_targets``."""
    each = losses(signature, outputs, targets)
    return {"loss": _mean(each), **_STATISTICS[signature.task](signature, outputs, targets, each)}


def derived(values: Mapping[str, float]) -> dict[str, float]:
    """The metrics to report, from the values of merged statistics (``fl.metrics.values``).

    ``nats`` becomes perplexity; mse gives rmse; the moments of the standardised target give r2 and are dropped. r2 is
    absent where all targets are equal.

    >>> derived({"loss": 0.25, "mse": 4.0, "target": 0.0, "target_square": 1.0})
    {'loss': 0.25, 'mse': 4.0, 'rmse': 2.0, 'r2': 0.75}
    """
    metrics = {name: value for name, value in values.items() if name not in _MOMENTS}
    if "nats" in values:
        metrics["perplexity"] = math.exp(min(values["nats"], LARGEST_EXPONENT))
    if "mse" in values:
        metrics["rmse"] = math.sqrt(values["mse"])
    if "target_square" in values:
        variance = values["target_square"] - values["target"] ** 2
        if variance > 0.0:
            metrics["r2"] = 1.0 - values["loss"] / variance
    return metrics


_MOMENTS = ("nats", "target", "target_square")


def _mean(each: Tensor) -> Mean:
    return Mean(total=float(each.sum(dtype=torch.float64)), weight=float(each.numel()))


def _cross_entropy(signature: Signature, outputs: Tensor, targets: Tensor) -> Tensor:
    flat = F.cross_entropy(outputs.reshape(-1, signature.num_outputs), targets.reshape(-1), reduction="none")
    return flat.reshape(targets.shape)


def _squared_error(signature: Signature, outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs.reshape(targets.shape) - targets) / signature.target_std).square()


def _classification(signature: Signature, outputs: Tensor, targets: Tensor, each: Tensor) -> Statistics:
    predictions = outputs.argmax(dim=-1)
    sums: Statistics = {"accuracy": _mean(predictions == targets)}
    if signature.num_outputs <= CONFUSION_CLASSES:
        sums["confusion"] = Confusion.of(targets.numpy(), predictions.numpy(), signature.num_outputs)
    return sums


def _next_token(signature: Signature, outputs: Tensor, targets: Tensor, each: Tensor) -> Statistics:
    return {"accuracy": _mean(outputs.argmax(dim=-1) == targets), "nats": _mean(each)}


def _regression(signature: Signature, outputs: Tensor, targets: Tensor, each: Tensor) -> Statistics:
    residuals = outputs.reshape(targets.shape).double() - targets.double()
    # Standardised, because the variance as a difference of raw moments would lose its digits to a large mean.
    standard = (targets.double() - signature.target_mean) / signature.target_std
    return {
        "mse": _mean(residuals.square()),
        "mae": _mean(residuals.abs()),
        "target": _mean(standard),
        "target_square": _mean(standard.square()),
    }


_LOSSES: dict[str, Callable[[Signature, Tensor, Tensor], Tensor]] = {
    "classification": _cross_entropy,
    "next_token": _cross_entropy,
    "regression": _squared_error,
}
_STATISTICS: dict[str, Callable[[Signature, Tensor, Tensor, Tensor], Statistics]] = {
    "classification": _classification,
    "next_token": _next_token,
    "regression": _regression,
}
