"""What a model answered to held-back examples, and the figures that this makes, each as a function of means.

classification   loss accuracy macro_f1 ece brier
next_token       loss accuracy perplexity ece          a window is an example: its positions depend on each other
regression       loss mse rmse mae r2
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fl.evaluation.calibration import brier, calibration_error
from fl.evaluation.classes import macro_f1
from fl.evaluation.intervals import Figure
from fl.models.arrays import to_inputs
from fl.models.evaluate import outputs_of
from fl.models.tasks import CONFUSION_CLASSES
from fl.parameters import Array
from fl.signature import Signature

BATCH = 1000


@dataclass(frozen=True)
class Answers:
    """To n examples: ``outputs`` of the model, raw, and the true ``y`` (n,), (n, T) for next_token."""

    signature: Signature
    outputs: Array
    y: Array

    @property
    def is_regression(self) -> bool:
        """Whether numbers are answered, and not classes."""
        return self.signature.task == "regression"

    @property
    def predicted(self) -> Array:
        """The answer of each example or position: a class, or a number in the target's unit."""
        return self.outputs.reshape(self.y.shape) if self.is_regression else np.asarray(self.outputs.argmax(axis=-1))

    @property
    def probabilities(self) -> Array:
        """(n, classes), for next_token (n, T, tokens): what the model gives each, in float64."""
        shifted = self.outputs.astype(np.float64) - self.outputs.max(axis=-1, keepdims=True)
        shares = np.exp(shifted)
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True))

    @property
    def loss(self) -> Array:
        """The loss of each example (n,), as it was trained for; of a window the mean over its positions."""
        if self.is_regression:
            return np.asarray(np.square(self.errors / self.signature.target_std))
        shifted = self.outputs.astype(np.float64) - self.outputs.max(axis=-1, keepdims=True)
        truth = np.take_along_axis(shifted, self.y.astype(np.int64)[..., None], axis=-1)[..., 0]
        return _by_example(np.log(np.exp(shifted).sum(axis=-1)) - truth)

    @property
    def right(self) -> Array:
        """Whether each example was answered right, 0 or 1, (n,); of a window the share of its positions."""
        return _by_example((self.predicted == self.y).astype(np.float64))

    @property
    def errors(self) -> Array:
        """Of a regression: prediction minus target, (n,)."""
        return np.asarray(self.predicted.astype(np.float64) - self.y.astype(np.float64))

    @property
    def score(self) -> tuple[str, Array]:
        """The one figure that parts of the data are compared by, and its value for each example."""
        return ("mae", np.abs(self.errors)) if self.is_regression else ("accuracy", self.right)

    def only(self, chosen: Array) -> Answers:
        """Those to some of the examples: a mask, or places."""
        return Answers(self.signature, self.outputs[chosen], self.y[chosen])


def ask(module: nn.Module, inputs: Tensor, y: Array, signature: Signature) -> Answers:
    """The answers to ``inputs``, which are as the model takes them; ``y`` as stored."""
    outputs = outputs_of(module, inputs.split(BATCH))
    targets = (
        np.asarray(y).reshape(len(y), *np.asarray(y).shape[1:]) if signature.task != "regression" else y.reshape(-1)
    )
    return Answers(signature, outputs, targets if signature.task == "regression" else targets.astype(np.int64))


def answers(module: nn.Module, x: Array, y: Array, signature: Signature) -> Answers:
    """The answers to at least one example as stored."""
    return ask(module, to_inputs(x, signature), y, signature)


def figures(found: Answers) -> dict[str, Figure]:
    """Every figure of the task, by name."""
    if found.is_regression:
        return _regression(found)
    plain = {"loss": Figure.mean(found.loss), "accuracy": Figure.mean(found.right)}
    sure = found.probabilities.max(axis=-1)
    if found.signature.task == "next_token":
        perplexity = Figure(found.loss[:, None], lambda means: np.exp(means[..., 0]))
        return plain | {"perplexity": perplexity}
    plain |= {"ece": calibration_error(sure, found.right), "brier": Figure.mean(brier(found.probabilities, found.y))}
    if found.signature.num_outputs <= CONFUSION_CLASSES:
        plain["macro_f1"] = macro_f1(found.y, found.predicted, found.signature.num_outputs)
    return plain


def _regression(found: Answers) -> dict[str, Figure]:
    errors, signature = found.errors, found.signature
    square = np.square(errors)
    target = (found.y.astype(np.float64) - signature.target_mean) / signature.target_std
    loss = square / signature.target_std**2

    def r2(means: Array) -> Array:
        variance = means[..., 1] - means[..., 2] ** 2
        explained = 1 - np.divide(means[..., 0], variance, out=np.full_like(variance, np.nan), where=variance > 0)
        return np.asarray(explained)

    return {
        "loss": Figure.mean(loss),
        "mse": Figure.mean(square),
        "rmse": Figure(square[:, None], lambda means: np.sqrt(means[..., 0])),
        "mae": Figure.mean(np.abs(errors)),
        "r2": Figure(np.stack([loss, np.square(target), target], axis=1), r2),
    }


def _by_example(values: Array) -> Array:
    return values if values.ndim == 1 else np.asarray(values.mean(axis=tuple(range(1, values.ndim))))
