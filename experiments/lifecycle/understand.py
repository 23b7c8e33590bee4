"""Understand: what the model is for, and whether the data look as if it could be had. Go, or no-go with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.lifecycle.inputs import data_sources
from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work
from fl.decisions import Action, Decision

if TYPE_CHECKING:
    from fl.data.dataset import Dataset

LATER = ("latency_seconds", "size_bytes", "fairness_floor")
"""Constraints that only the trained model can be held against, the size for good."""


def run(work: Work) -> Result:
    """Hold the goals of ``business`` against a quick baseline, and its constraints against the settings."""
    from experiments.prepare import load_data
    from fl.data.arrange import server_rows
    from fl.data.baseline import baseline
    from fl.evaluation.goals import feasible, goals

    business = work.settings["business"]
    wanted = goals(business["success"])
    dataset = load_data(work.settings)
    apart = server_rows(
        dataset,
        seed=int(work.settings["seed"]),
        public_fraction=0.0,
        held_out_fraction=float(work.settings["dataset"]["held_out_fraction"]),
        max_server_test=work.settings["dataset"].get("max_server_test"),
    )
    measured = baseline(dataset, apart.rows, apart.test, seed=int(work.settings["seed"]))
    decision = feasible(
        wanted,
        trivial=measured.trivial,
        baseline=measured.model,
        least_progress=float(business["least_progress"]),
        obstacles=_obstacles(work.settings, dataset),
    )
    if decision.action is Action.STOP and business["go_anyway"]:
        decision = Decision(Action.GO_ON, f"goes on by business.go_anyway, although {decision.reason}")
    constraints = business["constraints"]
    evidence = {
        **{name: business[name] for name in ("objective", "owner", "intended_use", "risks", "constraints")},
        "success": [{"metric": goal.metric, "threshold": goal.threshold, "means": str(goal)} for goal in wanted],
        "trivial": measured.trivial,
        "baseline": measured.model,
        "baseline_examples": measured.rows,
        "test_examples": measured.test_examples,
        "left_to_acceptance": [name for name in LATER if constraints[name] is not None],
    }
    held = len(apart.test) if dataset.x_test is None else 0
    checks = {"the baseline never saw the server's test set": len(apart.rows) + held == len(dataset)}
    return Result(evidence, decision.reason, checks, decision)


def _obstacles(settings: Settings, dataset: Dataset) -> tuple[str, ...]:
    """Constraints that the settings break, in words."""
    constraints = settings["business"]["constraints"]
    found = []
    target = str(settings["strategy"]["_target_"])
    if constraints["epsilon"] is not None and "DifferentialPrivacy" not in target:
        found.append(f"epsilon {constraints['epsilon']:g} is asked for, and the strategy adds no noise")
    limit = constraints["size_bytes"]
    grows = str(settings["model"]["_target_"]).startswith("fl.models.xgboost")
    if limit is not None and not grows and (size := _size_bytes(settings, dataset)) > limit:
        found.append(f"the model has {size:,} bytes or more, {limit:,} are allowed")
    return tuple(found)


def _size_bytes(settings: Settings, dataset: Dataset) -> int:
    from fl.models.build import build_model

    arguments = dict(settings["model"])
    target = arguments.pop("_target_")
    module = build_model(target=target, arguments=arguments, signature=dataset.signature, seed=int(settings["seed"]))
    return sum(array.numel() * array.element_size() for array in module.state_dict().values())


STAGE = Stage(
    name="understand",
    after=(),
    reads=(
        *("business", "dataset", "-dataset.validation_fraction", "-dataset.test_fraction", "-dataset.public_fraction"),
        *("-dataset.quarantine", "-dataset.recipe"),
        *("model", "strategy._target_", "seed"),
    ),
    code=("experiments.lifecycle.understand", "experiments.prepare", "fl.data", "fl.evaluation.goals"),
    run=run,
    quality=Quality(
        requirement="the objective is said as thresholds on metrics that are measured, and looks within reach",
        risk="months of training for a goal that these data cannot reach, or that nobody can measure",
        check="a baseline of merged statistics, on the server's test set, against goals and an answer without looking",
    ),
    sources=data_sources,
)
