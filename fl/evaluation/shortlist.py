"""Error analysis: which examples which models miss, and the few good ones that err differently.

A model misses an example of which it says the wrong class; a position, of text; a number, where it is further off than
the mean of the training targets.

    disagreement(i, j)   the share of the examples that exactly one of the two misses
    shortlist            greedy: the best model; then, again and again, the one with which the vote of all chosen is
                         best (Caruana et al., 2004). Who errs like the others adds nothing to it, and is left out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fl.evaluation.answers import Answers
from fl.evaluation.ensembles import vote
from fl.parameters import Array

LEAST, MOST = 3, 5
APART = 0.02
"""Two models that disagree on a smaller share of the examples err alike."""


def misses(found: Answers) -> Array:
    """Whether each example, or position, is missed: (n,), bool."""
    if found.is_regression:
        return np.asarray(np.abs(found.errors) > np.abs(found.y - found.signature.target_mean))
    return np.asarray(found.predicted != found.y).reshape(-1)


def disagreement(missed: Sequence[Array]) -> Array:
    """(models, models): the share of examples that exactly one of two models misses; 0 on the diagonal.

    >>> disagreement([np.array([True, False]), np.array([False, False])]).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    table = np.asarray(missed, dtype=np.float64)
    both = table @ table.T
    each = table.sum(axis=1)
    return np.asarray((each[:, None] + each[None, :] - 2 * both) / table.shape[1])


def shortlist(found: Mapping[str, Answers], *, least: int = LEAST, most: int = MOST) -> list[str]:
    """The names of ``least`` to ``most`` models (fewer where there are fewer), the best first.

    Good is a low mean loss. After ``least``, one is added only while the vote gets better. A model that errs like a
    chosen one is taken only where there are not enough others.
    """
    missed = {name: misses(answers) for name, answers in found.items()}
    left = sorted(found, key=lambda name: float(found[name].loss.mean()))
    chosen = [left.pop(0)]
    best = float(found[chosen[0]].loss.mean())
    while left and len(chosen) < most:
        other = [n for n in left if all(float((missed[n] ^ missed[c]).mean()) >= APART for c in chosen)]
        if not other and len(chosen) >= least:
            break
        losses = {name: _vote_loss(found, [*chosen, name]) for name in other or left}
        name = min(losses, key=losses.__getitem__)
        if len(chosen) >= least and losses[name] >= best:
            break
        chosen.append(name)
        left.remove(name)
        best = losses[name]
    return chosen


def _vote_loss(found: Mapping[str, Answers], names: Sequence[str]) -> float:
    return float(vote([found[name] for name in names]).loss.mean())
