"""Answers of several models made into one.

    vote      the mean of the probabilities, or of the numbers: members count the same. Bagging (Breiman, 1996) is a
              vote of models that were trained on draws of the same examples
    stacking  a linear model on the members' log-probabilities, or numbers, fitted on examples that none of them trained
              on (Wolpert, 1992); by scikit-learn (extra eval)

Boosted trees are an ensemble too, but one model to everybody else: model=xgboost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl.errors import BadInput, MissingExtra
from fl.evaluation.answers import Answers
from fl.parameters import Array

_LEAST = 1e-9


def vote(members: Sequence[Answers]) -> Answers:
    """The mean answer of ``members``, who answered the same examples; of classes as log-probabilities."""
    first = members[0]
    if first.is_regression:
        outputs = np.mean([member.predicted for member in members], axis=0)
    else:
        outputs = np.log(np.maximum(np.mean([member.probabilities for member in members], axis=0), _LEAST))
    return Answers(first.signature, outputs, first.y)


def stack(fitted_on: Sequence[Answers], members: Sequence[Answers]) -> Answers:
    """``members``, weighed by what is learnt from the same members' answers ``fitted_on`` other examples.

    Raises BadInput for next_token, whose classes are too many, and where there is but one class to learn from.
    """
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise MissingExtra(key="stacking", package="scikit-learn", extra="eval") from error
    first = members[0]
    if first.signature.task == "next_token":
        raise BadInput(key="stacking", got="next_token", allowed="classification or regression")
    if first.is_regression:
        ridge = Ridge().fit(_columns(fitted_on), fitted_on[0].y)
        return Answers(first.signature, np.asarray(ridge.predict(_columns(members))), first.y)
    known = np.unique(fitted_on[0].y)
    if len(known) < 2:
        raise BadInput(key="stacking", got=f"{len(known)} class", allowed="two classes or more to learn from")
    model = LogisticRegression(C=0.1, max_iter=2000).fit(_columns(fitted_on), fitted_on[0].y)
    outputs = np.full((len(first.y), first.signature.num_outputs), np.log(_LEAST))
    outputs[:, known] = np.log(np.maximum(model.predict_proba(_columns(members)), _LEAST))
    return Answers(first.signature, outputs, first.y)


def _columns(members: Sequence[Answers]) -> Array:
    """(n, members * outputs): what each member says of each example."""
    if members[0].is_regression:
        return np.stack([member.predicted.astype(np.float64) for member in members], axis=1)
    return np.concatenate([np.log(np.maximum(m.probabilities, _LEAST)) for m in members], axis=1)
