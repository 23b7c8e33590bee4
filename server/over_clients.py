"""What is recorded of clients' own evaluations: over clients, never only the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fl.messages import EvaluationReport
from fl.metrics import Mean, merge, quantiles, values
from fl.models.tasks import derived


def over_clients(found: Sequence[EvaluationReport]) -> dict[str, Any]:
    """What is recorded of clients' own evaluations: quantiles over clients, and what their own models gained."""
    by_client = [derived(values(report.statistics)) for report in found]
    names = sorted({name for row in by_client for name in row})
    client_metrics = {name: quantiles([row[name] for row in by_client if name in row]) for name in names}
    return {"client_metrics": client_metrics, "personal": personal_gain(found)}


def personal_gain(found: Sequence[EvaluationReport]) -> dict[str, float]:
    """How devices' own models compare with the global one on their own test parts; {} where they keep none.

    The gain is in accuracy where the task has one, else how far the loss fell. ``share_lower_loss`` sees what accuracy
    on a handful of examples does not: there many gains are 0.
    """
    gains, lags, lower = [], [], []
    for report in found:
        gain = gain_of(report)
        if gain is not None:
            numbers = values(report.statistics)
            gains.append(gain)
            lags.append(numbers.get("lag", 0.0))
            lower.append(numbers.get("personal_loss", math.inf) < numbers.get("loss", math.inf))
    if not gains:
        return {}
    pooled = values(merge(report.statistics for report in found))
    return {
        "gain": sum(gains) / len(gains),
        "share_better": sum(g > 0 for g in gains) / len(gains),
        "share_worse": sum(g < 0 for g in gains) / len(gains),
        "share_lower_loss": sum(lower) / len(lower),
        "lag": sum(lags) / len(lags),
        **{name: value for name, value in pooled.items() if name.startswith("personal_")},
    }


def gain_of(report: EvaluationReport) -> float | None:
    """How much better a device's own model is than the global one on its test part; None where it keeps none."""
    numbers = values({k: s for k, s in report.statistics.items() if isinstance(s, Mean)})
    if "personal_accuracy" in numbers:
        return numbers["personal_accuracy"] - numbers["accuracy"]
    if "personal_loss" in numbers:
        return numbers["loss"] - numbers["personal_loss"]
    return None
