"""Class by class: precision, recall and F1, from how often which class was answered for which.

    precision = tp / (tp + fp)      recall = tp / (tp + fn)      F1 = 2 tp / (2 tp + fp + fn)

A ratio of nothing to nothing is absent, not zero. Macro F1 is the plain mean over the classes that have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fl.evaluation.intervals import Figure
from fl.parameters import Array


def hits(y: Array, predicted: Array, num_classes: int) -> Array:
    """An example a row: (n, 3 * classes), which of tp, fp, fn it is for which class."""
    rows = np.zeros((len(y), 3, num_classes))
    each = np.arange(len(y))
    right = predicted == y
    rows[each[right], 0, y[right]] = 1
    rows[each[~right], 1, predicted[~right]] = 1
    rows[each[~right], 2, y[~right]] = 1
    return rows.reshape(len(y), 3 * num_classes)


def macro_f1(y: Array, predicted: Array, num_classes: int) -> Figure:
    """Macro F1 as a figure with an interval."""

    def of(means: Array) -> Array:
        tp, fp, fn = np.moveaxis(means.reshape(*means.shape[:-1], 3, num_classes), -2, 0)
        below = 2 * tp + fp + fn
        there = below > 0
        each = np.divide(2 * tp, below, out=np.zeros_like(tp), where=there)
        return np.asarray(each.sum(axis=-1) / there.sum(axis=-1))

    return Figure(hits(y, predicted, num_classes), of)


def by_class(y: Array, predicted: Array, num_classes: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """A mapping a class: name, examples, and precision, recall, f1 or None."""
    tp, fp, fn = hits(y, predicted, num_classes).sum(axis=0).reshape(3, num_classes)
    return [
        {
            "name": names[c] if names else str(c),
            "examples": int(tp[c] + fn[c]),
            "precision": _ratio(tp[c], tp[c] + fp[c]),
            "recall": _ratio(tp[c], tp[c] + fn[c]),
            "f1": _ratio(2 * tp[c], 2 * tp[c] + fp[c] + fn[c]),
        }
        for c in range(num_classes)
    ]


def confusion(y: Array, predicted: Array, num_classes: int) -> list[list[int]]:
    """``[i][j]``: examples of class i that were answered by class j."""
    return [
        [int(v) for v in row]
        for row in np.bincount(y * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
    ]


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None
