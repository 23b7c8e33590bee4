"""Accept: the success criteria of ``business`` held against what evaluate found; a refusal ends the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work
from fl.errors import BadInput, CorruptFile


def run(work: Work) -> Result:
    """Accept the version, or refuse it with every reason; the verdict goes to the registry at once, refusals too."""
    from fl.evaluation.acceptance import accept, criteria
    from fl.registry import Registry

    evaluated = work.before["evaluate"]
    wanted = criteria(work.settings["business"])
    verdict = accept({**evaluated.evidence, "measured": evaluated.measured}, wanted)
    evidence = {
        "version": evaluated.evidence["version"],
        **verdict.to_dict(),
        "criteria": wanted.to_dict(),
    }
    registry = Registry(work.settings["registry_dir"])
    version = registry.version(str(evidence["version"]))
    registry.attach(version, "evaluate", {**evaluated.evidence, "measured": dict(evaluated.measured)})
    registry.attach(version, "accept", {**evidence, "found": verdict.decision.reason})
    return Result(evidence, verdict.decision.reason, {}, verdict.decision)


def holds(settings: Settings, evidence: Mapping[str, Any]) -> bool:
    """Whether the registry still has a verdict on the version."""
    from fl.registry import Registry

    try:
        return "accept" in Registry(settings["registry_dir"]).evidence(str(evidence["version"]))
    except (BadInput, CorruptFile):
        return False


STAGE = Stage(
    name="accept",
    after=("evaluate",),
    reads=("registry_dir", "business.success", "business.constraints", "business.no_worse_than_champion"),
    code=("experiments.lifecycle.accept", "fl.evaluation.acceptance", "fl.evaluation.goals"),
    run=run,
    quality=Quality(
        requirement="a version that does not fulfil every success criterion does not go out",
        risk="a worse model in use because the figures looked good enough to somebody in a hurry",
        check="each criterion against what was measured; what was not measured counts as not fulfilled",
    ),
    holds=holds,
)
