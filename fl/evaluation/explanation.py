"""Explanation: which inputs a model's answers hang on.

    permutation importance   how much worse the figure is when an input is dealt anew among the examples, so that it
                             says nothing any more; mean and deviation over repeats        (Breiman 2001)
    integrated gradients     (x - b) * integral over a in [0, 1] of d f / d x at b + a (x - b), b the mean example:
                             how far each input moved the answer; the mean of its size     (Sundararajan et al. 2017)

An input is a column of a table, or a square of a picture. Two inputs that say the same share their importance, and may
both look as if they did not matter. Integrated gradients are Captum's (extra ``explain``) and need a gradient.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl.evaluation.answers import ask
from fl.models.arrays import GrowingModule, to_inputs
from fl.models.evaluate import one_thread
from fl.parameters import Array
from fl.seeds import generator
from fl.signature import Signature

REPEATS = 5
SQUARES = 4
"""Squares a side of a picture."""
MOST_ROWS, MOST_PICTURES, MOST_ATTRIBUTED, STEPS = 2000, 400, 64, 32
"""Examples that are looked at: a network of pictures is asked 80 times about the first of them."""


def explanation(module: nn.Module, x: Array, y: Array, signature: Signature, *, seed: int) -> dict[str, Any]:
    """``permutation`` and ``integrated_gradients``: a mapping an input each, the most important first; or absent."""
    if signature.input_dtype == "int64" or len(signature.input_shape) not in (1, 3):
        return {"absent": "the inputs are tokens: no place in a window means the same in the next"}
    most = MOST_ROWS if len(signature.input_shape) == 1 else MOST_PICTURES
    inputs, targets = to_inputs(x[:most], signature), y[:most]
    return {
        "examples": len(targets),
        "permutation": permutation_importance(module, inputs, targets, signature, seed=seed),
        "integrated_gradients": _attributed(module, inputs[:MOST_ATTRIBUTED], signature),
    }


def permutation_importance(
    module: nn.Module, inputs: Tensor, y: Array, signature: Signature, *, seed: int, repeats: int = REPEATS
) -> list[dict[str, Any]]:
    """By input: name, importance (how much worse the figure is without it) and deviation, the most important first."""
    metric, scores = ask(module, inputs, y, signature).score
    sign = 1.0 if metric == "mae" else -1.0
    draw = generator(seed, purpose="evaluation/permutation")
    found = []
    for name, place in _inputs(signature):
        worse = []
        for _ in range(repeats):
            dealt = inputs.clone()
            dealt[place] = inputs[torch.from_numpy(draw.permutation(len(inputs)))][place]
            changed = ask(module, dealt, y, signature).score[1]
            worse.append(sign * float(changed.mean() - scores.mean()))
        found.append({"input": name, "importance": float(np.mean(worse)), "deviation": float(np.std(worse))})
    return sorted(found, key=lambda one: -float(one["importance"]))


def _inputs(signature: Signature) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name and place, in a batch, of each input."""
    if len(signature.input_shape) == 1:
        for c, name in enumerate(signature.input_names):
            yield name, (slice(None), c)
        return
    _, height, width = signature.input_shape
    rows, columns = (np.linspace(0, side, min(SQUARES, side) + 1).astype(int) for side in (height, width))
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            name = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
            yield name, (slice(None), slice(None), slice(top, bottom), slice(left, right))


def _attributed(module: nn.Module, inputs: Tensor, signature: Signature) -> dict[str, Any]:
    """{"absent": why}, or the mean size of the attribution by input."""
    if isinstance(module, GrowingModule):
        return {"absent": "trees have no gradient"}
    if importlib.util.find_spec("captum") is None:
        return {"absent": "Captum is not installed: pip install 'meadow-fl[explain]'"}
    from captum.attr import IntegratedGradients

    mean = inputs.nanmean(dim=0, keepdim=True)
    filled = torch.where(inputs.isfinite(), inputs, mean)
    training = module.training
    module.eval()
    try:
        with one_thread():
            target = None
            if signature.task == "classification":
                with torch.no_grad():
                    target = module(filled).argmax(dim=-1)
            moved = IntegratedGradients(_flat(module, signature)).attribute(
                filled, baselines=mean.nan_to_num(), target=target, n_steps=STEPS, internal_batch_size=MOST_ATTRIBUTED
            )
    finally:
        module.train(training)
    sizes = moved.detach().abs()
    found = [{"input": name, "size": float(sizes[place].reshape(len(sizes), -1).sum(dim=1).mean())} for name, place in
             _inputs(signature)]  # fmt: skip
    return {"examples": len(inputs), "each": sorted(found, key=lambda one: -float(str(one["size"])))}


def _flat(module: nn.Module, signature: Signature) -> Any:
    if signature.task == "classification":
        return module
    return lambda inputs: module(inputs).reshape(len(inputs))
