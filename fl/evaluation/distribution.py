"""How a metric is spread over clients: what a mean hides, in numbers.

Every client counts the same here, however many examples it has. A metric of which less is better (``goals.LOWER``) has
its worst clients at the upper end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fl.evaluation.goals import LOWER

WORST_SHARE = 0.1
"""Of the clients, those whose mean is reported as the worst: what q-FFL (Li et al., ICLR 2020) reports."""

Measured = Mapping[str, Any]
"""One client: ``client``, ``seen`` (whether it may have been trained), and a mapping metric -> value for each model."""

GROUPS: Mapping[str, Callable[[Measured], bool]] = {
    "all": lambda row: True,
    "seen": lambda row: bool(row["seen"]),
    "unseen": lambda row: not row["seen"],
}
"""Of whom figures are given; ``seen`` and ``unseen`` only where there are clients of both kinds."""


@dataclass(frozen=True)
class Distribution:
    """One metric over ``clients`` clients.

    deciles   0 %, 10 % ... 100 % of the values, by linear interpolation
    worst     the mean of the worst tenth, rounded up to whole clients
    jain, gini   None where a value is below 0
    """

    clients: int
    mean: float
    deciles: tuple[float, ...]
    worst: float
    jain: float | None
    gini: float | None


def distribution(values: Sequence[float], *, lower_is_better: bool = False) -> Distribution:
    """Everything about ``values``, one a client and at least one; all finite.

    >>> distribution([0.25, 0.5, 0.75]).mean
    0.5
    """
    numbers = np.sort(np.asarray(values, dtype=np.float64))
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError("a distribution is of one finite number or more")
    sound = bool(numbers[0] >= 0)
    return Distribution(
        clients=len(numbers),
        mean=float(numbers.mean()),
        deciles=tuple(float(v) for v in np.quantile(numbers, np.linspace(0, 1, 11))),
        worst=worst_mean(values, lower_is_better=lower_is_better),
        jain=jain(values) if sound else None,
        gini=gini(values) if sound else None,
    )


def worst_mean(values: Sequence[float], *, lower_is_better: bool = False, share: float = WORST_SHARE) -> float:
    """The mean of the worst ``share`` of the clients, of one client at least.

    >>> worst_mean([0.5, 0.25, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    0.375
    """
    ordered = sorted(values, reverse=lower_is_better)
    # A share that is a whole number of clients must not become one more by rounding.
    worst = ordered[: max(1, math.ceil(round(share * len(ordered), 9)))]
    return math.fsum(worst) / len(worst)


def jain(values: Sequence[float]) -> float:
    """Jain's index, (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has everything. ``values`` from 0.

    Jain, Chiu and Hawe: A quantitative measure of fairness and discrimination, DEC-TR-301, 1984.

    >>> jain([1.0, 1.0, 1.0]), jain([1.0, 0.0, 0.0, 0.0])
    (1.0, 0.25)
    """
    squares = math.fsum(v * v for v in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else 1.0


def gini(values: Sequence[float]) -> float:
    """The Gini coefficient, sum_ij |x_i - x_j| / (2 n^2 mean): 0 if all are equal, (n - 1)/n if one has everything.

    Computed as 2 sum_i i x_(i) / (n sum x) - (n + 1)/n over the values in ascending order, from 0. C. Gini:
    Variabilità e mutabilità, 1912.

    >>> gini([1.0, 1.0, 1.0]), gini([1.0, 0.0, 0.0, 0.0])
    (0.0, 0.75)
    """
    n, total = len(values), math.fsum(values)
    if not total:
        return 0.0
    ranked = math.fsum(rank * v for rank, v in enumerate(sorted(values), start=1))
    return max(0.0, 2 * ranked / (n * total) - (n + 1) / n)


def spread(rows: Sequence[Measured], *, models: Sequence[str], against: str) -> dict[str, dict[str, dict[str, Any]]]:
    """group -> metric -> model -> the fields of its ``Distribution``, over the clients of ``rows`` that have it.

    A model other than ``against`` has ``share_better`` and ``share_worse`` too: of the clients that know both, for how
    many it is the better, or the worse, of the two.
    """
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for group, some in groups(rows).items():
        for metric in sorted({name for row in some for model in models for name in row.get(model, {})}):
            for model in models:
                found = [row for row in some if metric in row.get(model, {})]
                if found:
                    lower = metric in LOWER
                    facts = asdict(distribution([row[model][metric] for row in found], lower_is_better=lower))
                    if model != against:
                        facts |= _compared(found, metric, model, against, lower_is_better=lower)
                    out.setdefault(group, {}).setdefault(metric, {})[model] = facts
    return out


def groups(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The clients of each group; ``all`` alone where nobody is unseen."""
    found = {group: [row for row in rows if belongs(row)] for group, belongs in GROUPS.items()}
    return found if all(found.values()) else {"all": list(rows)}


def _compared(
    rows: Sequence[Measured], metric: str, model: str, against: str, *, lower_is_better: bool
) -> dict[str, float]:
    pairs = [(row[model][metric], row[against][metric]) for row in rows if metric in row.get(against, {})]
    if not pairs:
        return {}
    gains = [(b - a) if lower_is_better else (a - b) for a, b in pairs]
    return {
        "share_better": sum(gain > 0 for gain in gains) / len(gains),
        "share_worse": sum(gain < 0 for gain in gains) / len(gains),
    }
