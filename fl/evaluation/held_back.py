"""The evidence ``evaluate``: all that held-back examples tell of a model, as JSON values, none of them an example.

What cannot be had stands there too, as {"absent": why}. Times are measured, and stay outside this (resources.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from fl.errors import BadInput
from fl.evaluation.answers import Answers, answers, figures
from fl.evaluation.calibration import BINS, reliability
from fl.evaluation.classes import by_class, confusion
from fl.evaluation.explanation import explanation
from fl.evaluation.fairness import fairness
from fl.evaluation.intervals import Figure, Interval, intervals
from fl.evaluation.paired import bootstrap_p_worse, difference, mcnemar
from fl.evaluation.robustness import robustness
from fl.evaluation.slices import LEAST, chosen_columns, slices
from fl.models.tasks import CONFUSION_CLASSES
from fl.parameters import Array
from fl.signature import Signature

RESAMPLES, CONFIDENCE = 1000, 0.95


def examine(
    module: nn.Module,
    x: Array,
    y: Array,
    signature: Signature,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    columns: Sequence[str] | None = None,
    sensitive: str | None = None,
) -> tuple[dict[str, Any], Answers]:
    """The parts of the evidence that ask this one model, and what it answered.

    x, y       held-back examples as stored, at least 2
    seed       of resamples and of whatever is drawn
    columns    of a table, to slice by; None: all
    sensitive  the column of a table whose groups are to be treated alike

    Raises BadInput for too few examples, or a column that is not there.
    """
    if len(y) < 2:
        raise BadInput(key="examples", got=len(y), allowed="at least 2 held-back examples")
    chosen_columns(signature, [sensitive] if sensitive else [], key="--sensitive")
    found = answers(module, x, y, signature)
    every = intervals(figures(found), seed=seed, resamples=resamples, confidence=confidence)
    parts = by_slice(found, x, y, columns=columns, seed=seed, resamples=resamples, confidence=confidence)
    evidence = {
        "confidence": confidence,
        "resamples": resamples,
        "metrics": {name: between(one) for name, one in every.items()},
        "calibration": calibration(found),
        "classes": classes(found),
        "slices": parts,
        "worst_slice": worst(parts),
        "fairness": equal_treatment(found, x, sensitive),
        "robustness": robustness(module, x, y, signature, seed=seed),
        "explanation": explanation(module, x, y, signature, seed=seed),
    }
    return evidence, found


def calibration(found: Answers) -> dict[str, Any]:
    """How sure the model was in each bin, and how often it was right."""
    if found.is_regression:
        return absent("a regression answers with a number, and not with how sure it is")
    sure = found.probabilities.max(axis=-1)
    right = (found.predicted == found.y).astype(np.float64)
    told: dict[str, Any] = {"answered": _bins(sure.ravel(), right.ravel())}
    if found.signature.task == "classification" and found.signature.num_outputs == 2:
        told["second_class"] = _bins(found.probabilities[:, 1], found.y.astype(np.float64))
    return told


def classes(found: Answers) -> dict[str, Any]:
    """Class by class, and which was answered for which."""
    signature = found.signature
    if signature.task != "classification":
        return absent(f"the task is {signature.task}: there are no classes")
    if signature.num_outputs > CONFUSION_CLASSES:
        return absent(f"{signature.num_outputs} classes are more than the {CONFUSION_CLASSES} that are told one by one")
    given = (found.y, found.predicted, signature.num_outputs)
    return {"each": by_class(*given, signature.class_names), "confusion": confusion(*given)}


def equal_treatment(found: Answers, x: Array, sensitive: str | None) -> dict[str, Any]:
    """Groups of the ``sensitive`` column compared."""
    signature = found.signature
    if signature.task == "next_token":
        return absent("text has no column that makes groups")
    if sensitive is None:
        return absent("no column was named that makes groups: --sensitive, evaluation.sensitive")
    values = x[:, signature.input_names.index(sensitive)]
    return fairness(found, sensitive, values, class_names=signature.class_names)


def by_slice(
    found: Answers,
    x: Array,
    y: Array,
    *,
    seed: int,
    resamples: int,
    confidence: float,
    columns: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Each slice: by, name, examples, metric, and its value with its interval."""
    metric, scores = found.score
    told = []
    for part in slices(x, y, found.signature, columns=columns):
        inside = scores[part.members]
        if len(inside) < 2:
            continue
        one = intervals({metric: Figure.mean(inside)}, seed=seed, resamples=resamples, confidence=confidence)[metric]
        told.append({"by": part.by, "name": part.name, "examples": len(inside), "metric": metric, **between(one)})
    return told


def worst(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The slice of enough examples that is served worst."""
    large = [part for part in parts if part["examples"] >= LEAST]
    if not large:
        return absent(f"no slice has {LEAST} examples")
    sign = 1 if large[0]["metric"] == "mae" else -1
    return dict(max(large, key=lambda part: sign * part["value"]))


def against(found: Answers, other: Answers, name: str, *, seed: int) -> dict[str, Any]:
    """The comparison with the champion ``name``, whose answers to the same examples are ``other``.

    ``worse_p`` is the chance that a model as good as the champion would look so much worse: exact by McNemar where
    answers are right or wrong, otherwise from the bootstrap of the difference.
    """
    metric, mine = found.score
    _, its = other.score
    apart = difference(mine, its, seed=seed)
    told = {
        "version": name,
        "metric": metric,
        "value": float(mine.mean()),
        "other": float(its.mean()),
        "difference": between(apart),
    }
    if found.signature.task == "classification":
        exact = mcnemar(mine, its)
        tested = {"won": exact.won, "lost": exact.lost, "p": exact.p, "worse_p": exact.p_worse}
        return told | {"test": "McNemar, exact", **tested}
    sign = 1.0 if metric == "mae" else -1.0
    return told | {"test": "paired bootstrap-t", "worse_p": bootstrap_p_worse(sign * (mine - its), seed=seed)}


def absent(why: str) -> dict[str, Any]:
    """In place of what cannot be had."""
    return {"absent": why}


def between(one: Interval) -> dict[str, float | None]:
    """As JSON: value, low, high; null for what is no number."""
    return {name: number(value) for name, value in vars(one).items()}


def number(value: float) -> float | None:
    """A finite number, or null."""
    return float(value) if math.isfinite(value) else None


def _bins(sure: Array, right: Array) -> dict[str, Any]:
    one = reliability(sure, right)
    return {
        "bins": BINS,
        "error": one.error,
        "counts": [int(count) for count in one.counts],
        "sure": [number(value) for value in one.sure],
        "came_true": [number(value) for value in one.came_true],
    }
