"""Fairness between the groups that a column makes, such as women and men: fairlearn's figures, by its definitions.

    selection rate       P(answer = c | group)
    demographic parity   how far the selection rates of groups lie apart                    (Calders et al. 2009)
    equalized odds       the larger of how far true positive rates and false positive rates
                         lie apart, P(answer = c | y = c or not, group)                     (Hardt et al. 2016)

A difference is largest minus smallest, a ratio smallest by largest. Of two classes c is the second one; of more, every
class is taken against the others, and the largest difference told. A regression has the mean answer and the mean error
of each group instead. Groups of few examples are told, and their rates are as uncertain as they are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.evaluation.answers import Answers
from fl.parameters import Array

MOST_GROUPS = 20


@dataclass(frozen=True)
class Rates:
    """Of each group: examples, and selection, true positive and false positive rate; NaN where nothing is counted."""

    groups: tuple[str, ...]
    examples: Array
    selection: Array
    true_positive: Array
    false_positive: Array

    @property
    def parity_difference(self) -> float:
        """Demographic parity as a difference, 0 to 1."""
        return _difference(self.selection)

    @property
    def parity_ratio(self) -> float:
        """Demographic parity as a ratio, 1 is equal."""
        return _ratio(self.selection)

    @property
    def odds_difference(self) -> float:
        """Equalized odds as a difference, 0 to 1."""
        return max(_difference(self.true_positive), _difference(self.false_positive))

    @property
    def odds_ratio(self) -> float:
        """Equalized odds as a ratio, 1 is equal."""
        return min(_ratio(self.true_positive), _ratio(self.false_positive))


def rates(y: Array, predicted: Array, groups: Array) -> Rates:
    """From whether each example is of the class (n,), was answered so (n,), and the group it is in (n,)."""
    names = np.unique(groups)
    rows = []
    for name in names:
        inside = groups == name
        truth, answer = y[inside].astype(bool), predicted[inside].astype(bool)
        rows.append((len(truth), _mean(answer), _mean(answer[truth]), _mean(answer[~truth])))
    columns = np.array(rows, dtype=np.float64).T
    return Rates(tuple(str(name) for name in names), *columns)


def groups_of(column: str, values: Array) -> Array:
    """The group of each example, as text. BadInput where a column has more values than make sense as groups."""
    there = np.isfinite(values)
    found = np.unique(values[there])
    if len(found) > MOST_GROUPS or len(found) < 2:
        got = f"{column}, which has {len(found)} values"
        raise BadInput(key="--sensitive", got=got, allowed=f"a column of 2 to {MOST_GROUPS} values")
    return np.array([f"{column} is {value:g}" if known else f"{column} is missing" for value, known in
                     zip(values, there, strict=True)])  # fmt: skip


def fairness(found: Answers, column: str, values: Array, *, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """What the evidence says of the groups that ``values`` (n,) of ``column`` make."""
    groups = groups_of(column, values)
    if found.is_regression:
        return {"column": column, **_of_numbers(found, groups)}
    num_classes = found.signature.num_outputs
    classes = [1] if num_classes == 2 else range(num_classes)
    every = {c: rates(found.y == c, found.predicted == c, groups) for c in classes}
    worst = max(every, key=lambda c: every[c].odds_difference)
    one = every[worst]
    return {
        "column": column,
        "answer": class_names[worst] if class_names else str(worst),
        "demographic_parity_difference": max(r.parity_difference for r in every.values()),
        "demographic_parity_ratio": _known(min(r.parity_ratio for r in every.values())),
        "equalized_odds_difference": one.odds_difference,
        "equalized_odds_ratio": _known(min(r.odds_ratio for r in every.values())),
        "groups": [
            {
                "group": group,
                "examples": int(one.examples[i]),
                "accuracy": float(found.right[groups == group].mean()),
                "selection_rate": _known(one.selection[i]),
                "true_positive_rate": _known(one.true_positive[i]),
                "false_positive_rate": _known(one.false_positive[i]),
            }
            for i, group in enumerate(one.groups)
        ],
    }


def _of_numbers(found: Answers, groups: Array) -> dict[str, Any]:
    each = [
        {
            "group": str(name),
            "examples": int((groups == name).sum()),
            "mean_answer": float(found.predicted[groups == name].mean()),
            "mae": float(np.abs(found.errors[groups == name]).mean()),
        }
        for name in np.unique(groups)
    ]
    return {
        "mean_answer_difference": _difference(np.array([one["mean_answer"] for one in each])),
        "mae_difference": _difference(np.array([one["mae"] for one in each])),
        "groups": each,
    }


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


def _difference(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max() - known.min()) if len(known) else 0.0


def _ratio(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.min() / known.max()) if len(known) and known.max() > 0 else math.nan


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
