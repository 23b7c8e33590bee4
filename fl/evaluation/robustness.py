"""Robustness: what is left of a model's figure when its inputs are not what they were.

    noise         x + s * sigma * e,  e ~ N(0, 1)             a worse instrument
    shift         x + s * sigma                               an instrument that is off
    missing       a share of the numbers is not there: NaN where the model takes it, else their mean
    adversarial   x + s * sigma * sign(d loss / d x)          the worst small change, found by the gradient (FGSM,
                                                              Goodfellow et al. 2015)

sigma is the deviation of each column of a table, of all pixels of pictures; s and the share are the strengths below.
Tokens have no sigma: a share of them is replaced by others. One step along the gradient is a lower bound of what an
adversary can do, and a model without a gradient (trees) is not thereby robust: it is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl.evaluation.answers import BATCH, Answers, ask
from fl.models import tasks
from fl.models.arrays import GrowingModule, to_inputs, to_targets
from fl.models.evaluate import one_thread, outputs_of
from fl.parameters import Array
from fl.seeds import generator
from fl.signature import Signature

MOST_EXAMPLES = 1000
"""Examples that are changed: the first so many of the test set, which is in no order."""
DEVIATIONS, SHARES = (0.1, 0.3, 1.0), (0.05, 0.2, 0.5)
SMALL = (0.03, 0.1, 0.3)


def robustness(module: nn.Module, x: Array, y: Array, signature: Signature, *, seed: int) -> list[dict[str, Any]]:
    """A mapping a kind of change: kind, metric, unchanged, and values by strength; or absent with the reason."""
    inputs, y = to_inputs(x[:MOST_EXAMPLES], signature), y[:MOST_EXAMPLES]
    metric, scores = ask(module, inputs, y, signature).score
    told: list[dict[str, Any]] = []
    for kind, change, strengths, why_not in _kinds(module, signature, inputs, y, seed):
        if why_not:
            told.append({"kind": kind, "absent": why_not})
            continue
        values = [float(_scores(module, change(s), y, signature).mean()) for s in strengths]
        told.append(
            {
                "kind": kind,
                "metric": metric,
                "examples": len(y),
                "unchanged": float(scores.mean()),
                "values": [{"strength": s, "value": v} for s, v in zip(strengths, values, strict=True)],
            }
        )
    return told


Change = Callable[[float], Tensor]


def _kinds(
    module: nn.Module, signature: Signature, inputs: Tensor, y: Array, seed: int
) -> list[tuple[str, Change, tuple[float, ...], str]]:
    if signature.input_dtype == "int64":
        no = "the inputs are tokens, which cannot be moved a little"
        replaced = ("noise", lambda share: replace_tokens(inputs, share, signature, seed=seed), SHARES, "")
        rest = [(kind, _nothing, (), no) for kind in ("shift", "missing", "adversarial")]
        return [replaced, *rest]
    sigma = deviation(inputs)
    gradient = "" if _has_gradient(module, signature, inputs, y) else "the model has no gradient by its inputs"
    return [
        ("noise", lambda s: add_noise(inputs, s * sigma, seed=seed), DEVIATIONS, ""),
        ("shift", lambda s: inputs + s * sigma, DEVIATIONS, ""),
        ("missing", lambda share: take_away(module, inputs, share, seed=seed), SHARES, ""),
        ("adversarial", lambda s: against_gradient(module, inputs, y, signature, s * sigma), SMALL, gradient),
    ]


def deviation(inputs: Tensor) -> Tensor:
    """Of each column of a table (columns,), or of all numbers (); what is missing does not count."""
    values = inputs.numpy().astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    spread = np.nanstd(values, axis=0) if values.ndim == 2 else np.nanstd(values)
    return torch.as_tensor(np.nan_to_num(spread)).to(inputs.dtype)


def add_noise(inputs: Tensor, scale: Tensor, *, seed: int) -> Tensor:
    """Normal noise of a deviation, drawn by the seed."""
    noise = generator(seed, purpose="evaluation/noise").standard_normal(inputs.shape)
    return inputs + torch.from_numpy(noise).to(inputs.dtype) * scale


def take_away(module: nn.Module, inputs: Tensor, share: float, *, seed: int) -> Tensor:
    """A share of the numbers becomes NaN, or their mean where the model cannot answer to NaN."""
    gone = torch.from_numpy(generator(seed, purpose="evaluation/missing").random(inputs.shape) < share)
    without = inputs.masked_fill(gone, torch.nan)
    if np.isfinite(outputs_of(module, without.split(BATCH))).all():
        return without
    mean = inputs.nanmean(dim=0, keepdim=True) if inputs.dim() == 2 else inputs.nanmean()
    return torch.where(gone, mean, inputs)


def replace_tokens(inputs: Tensor, share: float, signature: Signature, *, seed: int) -> Tensor:
    """A share of the tokens becomes any other."""
    draw = generator(seed, purpose="evaluation/tokens")
    chosen = torch.from_numpy(draw.random(inputs.shape) < share)
    others = torch.from_numpy(draw.integers(0, signature.num_outputs, inputs.shape))
    return torch.where(chosen, others, inputs)


def against_gradient(module: nn.Module, inputs: Tensor, y: Array, signature: Signature, step: Tensor) -> Tensor:
    """One step up the loss of each example; what is missing stays so."""
    return torch.cat(
        [
            torch.where(batch.isfinite(), batch + step * slope.sign(), batch)
            for batch, slope in (
                (batch, _slope(module, batch, y[i * BATCH : i * BATCH + len(batch)], signature))
                for i, batch in enumerate(inputs.split(BATCH))
            )
        ]
    )


def _slope(module: nn.Module, batch: Tensor, y: Array, signature: Signature) -> Tensor:
    leaf = batch.clone().requires_grad_()
    training = module.training
    module.eval()
    try:
        with one_thread():
            loss = tasks.losses(signature, module(leaf), to_targets(y, signature)).sum()
            (slope,) = torch.autograd.grad(loss, leaf)
    finally:
        module.train(training)
    return torch.nan_to_num(slope)


def _has_gradient(module: nn.Module, signature: Signature, inputs: Tensor, y: Array) -> bool:
    if isinstance(module, GrowingModule):
        return False
    try:
        _slope(module, inputs[:2], y[:2], signature)
    except RuntimeError:  # torch's word for an output that does not depend on its input by a gradient
        return False
    return True


def _scores(module: nn.Module, inputs: Tensor, y: Array, signature: Signature) -> Array:
    found: Answers = ask(module, inputs, y, signature)
    return found.score[1]


def _nothing(strength: float) -> Tensor:
    raise ValueError("there is no such change")
