"""How much each column tells of the label, from merged statistics: what feature selection goes by.

    mutual_information   I(X; Y) in nats, of the column cut into bins of equal counts against the classes, from their
                         joint counts (Cover & Thomas, 2.28); a missing value is a bin of its own. It sees what is not
                         linear, and each column for itself
    correlation          |r| of column and label, over the rows where both are known; for numbers and two classes

Counts and sums of products add up over clients: nobody shows a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl.data import analytics
from fl.data.analytics import Ask
from fl.errors import BadInput
from fl.metrics import Counts
from fl.parameters import Array

BY = ("mutual_information", "correlation")
MOST_CLASSES = 100


def relevance(
    ask: Ask, columns: Sequence[int], *, label: int, by: str, bins: int = 8, part: str = "train"
) -> dict[int, float]:
    """The figure of each of ``columns``; ``label`` is the label's own number. Constant columns have 0.

    Raises BadInput where the label does not fit: mutual information is of whole numbers from 0, correlation of no more
    than two classes, or numbers.
    """
    if by not in BY:
        raise BadInput(key="by", got=by, allowed=", ".join(BY))
    target = analytics.moments(ask, [label], part=part)[label]
    classes = bool(target.whole == target.count and target.low >= 0 and target.high < MOST_CLASSES)
    if by == "correlation":
        if classes and target.high > 1:
            got = f"correlation with {int(target.high) + 1} classes, whose numbers mean nothing"
            raise BadInput(key="by", got=got, allowed="mutual_information")
        found = [analytics.correlation(ask, [column, label], part=part)[0, 1] for column in columns]
        return {c: float(abs(r)) if r == r else 0.0 for c, r in zip(columns, found, strict=True)}
    if not classes:
        raise BadInput(key="by", got="mutual_information with a number", allowed="correlation")
    width = int(target.high) + 1
    shares = [i / bins for i in range(1, bins)]
    cuts = analytics.quantiles(ask, list(columns), shares, part=part)
    numbers: dict[str, tuple[float, ...]] = {"classes": (float(width),)}
    for c, values in cuts.items():
        numbers[f"edges/{c}"] = tuple(sorted({float(value) for value in values if value == value})) or (0.0,)
    counts: dict[int, Array] = {}
    for answers in analytics.column_answers(ask, "labels", list(columns), numbers, part=part):
        for name, statistic in answers.pooled().items():
            assert isinstance(statistic, Counts)
            counts[int(name)] = np.array(statistic.counts, np.float64).reshape(-1, width)
    return {c: mutual_information(counts[c]) for c in columns}


def mutual_information(joint: Array) -> float:
    """Of two variables, in nats, from how often each pair of values was seen.

    >>> round(mutual_information(np.array([[5, 0], [0, 5]])), 4)  # one tells all of the other: ln 2
    0.6931
    """
    chance = joint / joint.sum()
    alone = chance.sum(axis=1, keepdims=True) * chance.sum(axis=0, keepdims=True)
    seen = chance > 0
    return max(0.0, float((chance[seen] * np.log(chance[seen] / alone[seen])).sum()))
