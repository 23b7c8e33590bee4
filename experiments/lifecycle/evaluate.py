"""Evaluate: the version that train made on examples that were held back, and beside the champion it would replace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work
from fl.errors import BadInput, CorruptFile


def run(work: Work) -> Result:
    """Examine the version; what it took is measured, and stays outside the evidence."""
    from experiments.evaluation import evaluate
    from fl.registry import Registry

    given = work.settings["evaluation"]
    registry = Registry(work.settings["registry_dir"])
    version = registry.version(str(work.before["train"].evidence["version"]))
    found = evaluate(
        registry,
        version,
        columns=given["slices"],
        sensitive=given["sensitive"],
        resamples=int(given["resamples"]),
        confidence=float(given["confidence"]),
    )
    measured = found.pop("measured")
    metrics, worst = found["metrics"], found["worst_slice"]
    first = next((name for name in ("accuracy", "r2") if name in metrics), "loss")
    told = "{value:.4g} ({low:.4g} to {high:.4g})".format(**metrics[first])
    part = f"{worst['name']} {worst['value']:.4g}" if "name" in worst else worst["absent"]
    return Result(
        found,
        f"{first} {told} on {found['examples']['count']} held-back examples; worst slice: {part}",
        {"every figure is a number": all(one["value"] is not None for one in metrics.values())},
        measured=measured,
    )


def holds(settings: Settings, evidence: Mapping[str, Any]) -> bool:
    """Whether the champion that it was compared with is still the one that it would replace."""
    from experiments.evaluation import rival
    from fl.registry import Registry

    registry = Registry(settings["registry_dir"])
    try:
        other = rival(registry, registry.version(str(evidence["version"])))
    except (BadInput, CorruptFile):
        return False
    return bool(evidence["rival"] == (other.name if other else None))


STAGE = Stage(
    name="evaluate",
    after=("train",),
    reads=("registry_dir", "evaluation"),
    code=(
        *("experiments.lifecycle.evaluate", "experiments.evaluation", "fl.evaluation.held_back"),
        *("fl.evaluation.answers", "fl.evaluation.intervals", "fl.evaluation.calibration", "fl.evaluation.classes"),
        *("fl.evaluation.slices", "fl.evaluation.fairness", "fl.evaluation.robustness", "fl.evaluation.explanation"),
        *("fl.evaluation.paired", "fl.evaluation.resources", "fl.evaluation.by_client", "fl.evaluation.privacy"),
        "server.every_client",
    ),
    run=run,
    quality=Quality(
        requirement="figures on held-back examples, each with how far it may be off, for parts as well as the whole",
        risk="a mean that hides who is served badly, or that other examples would not show again",
        check="intervals by bootstrap; slices, classes and groups beside the whole; a paired test against the champion",
    ),
    holds=holds,
)
