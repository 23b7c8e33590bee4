"""Understand: what the model is for, and whether the data look as if it could be had. Go, or no-go with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.lifecycle.inputs import data_sources
from experiments.lifecycle.stage import Judgement, Quality, Result, Settings, Stage, Work
from fl.decisions import Action, Decision
from fl.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from fl.data.dataset import Dataset

LATER = ("latency_seconds", "size_bytes", "fairness_floor")
"""Constraints that only the trained model can be held against, the size for good."""


def run(work: Work) -> Result:
    """Measure a quick baseline, and what constraints are held against; nothing of it depends on a threshold."""
    from experiments.prepare import load_data
    from fl.data.arrange import server_rows
    from fl.data.baseline import baseline

    business = work.settings["business"]
    with _told_as_of_ingest():
        dataset = load_data(work.settings)
    apart = server_rows(
        dataset,
        seed=int(work.settings["seed"]),
        public_fraction=0.0,
        held_out_fraction=float(work.settings["dataset"]["held_out_fraction"]),
        max_server_test=work.settings["dataset"].get("max_server_test"),
        split=work.settings["dataset"].get("split", "ratio"),
    )
    measured = baseline(dataset, apart.rows, apart.test, seed=int(work.settings["seed"]))
    grows = str(work.settings["model"]["_target_"]).startswith("fl.models.xgboost")
    evidence = {
        **{name: business[name] for name in ("objective", "owner", "intended_use", "risks")},
        "trivial": measured.trivial,
        "baseline": measured.model,
        "baseline_examples": measured.rows,
        "test_examples": measured.test_examples,
        "model_bytes": None if grows else _size_bytes(work.settings, dataset),
        "adds_noise": "DifferentialPrivacy" in str(work.settings["strategy"]["_target_"]),
    }
    held = len(apart.test) if dataset.x_test is None else 0
    checks = {"the baseline never saw the server's test set": len(apart.rows) + held == len(dataset)}
    return Result(evidence, f"a quick baseline on {measured.rows} examples", checks)


def judge(settings: Settings, found: Mapping[str, Any]) -> Judgement:
    """Hold the goals of ``business`` against the baseline that was measured, and its constraints against the settings.

    Raises BadInput for a goal on a metric that was not measured.
    """
    from fl.evaluation.goals import feasible, goals

    business = settings["business"]
    wanted, constraints = goals(business["success"]), business["constraints"]
    decision = feasible(
        wanted,
        trivial=found["trivial"],
        baseline=found["baseline"],
        least_progress=float(business["least_progress"]),
        obstacles=_obstacles(constraints, found),
    )
    if decision.action is Action.STOP and business["go_anyway"]:
        decision = Decision(Action.GO_ON, f"goes on by business.go_anyway, although {decision.reason}")
    evidence = {
        "success": [{"metric": goal.metric, "threshold": goal.threshold, "means": str(goal)} for goal in wanted],
        "constraints": dict(constraints),
        "no_worse_than_champion": bool(business["no_worse_than_champion"]),
        "left_to_acceptance": [name for name in LATER if constraints[name] is not None],
    }
    return Judgement(evidence, decision)


def sources(settings: Settings) -> Mapping[str, str | None]:
    """The data, as for ingest."""
    with _told_as_of_ingest():
        return data_sources(settings)


@contextmanager
def _told_as_of_ingest() -> Iterator[None]:
    """What is wrong with the data is ingest's to tell: this stage only comes to them first, and says so."""
    try:
        yield
    except MissingExtra:
        raise
    except BadInput as error:
        key = f"which reads the data as stage ingest does, {error.key}"
        raise BadInput(key=key, got=error.got, allowed=error.allowed) from error


def _obstacles(constraints: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Constraints that the settings break, in words."""
    against = []
    if constraints["epsilon"] is not None and not found["adds_noise"]:
        against.append(f"epsilon {constraints['epsilon']:g} is asked for, and the strategy adds no noise")
    limit, size = constraints["size_bytes"], found["model_bytes"]
    if None not in (limit, size) and size > limit:
        against.append(f"the model has {size:,} bytes or more, {limit:,} are allowed")
    return tuple(against)


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
        *("business.objective", "business.owner", "business.intended_use", "business.risks"),
        *("dataset", "-dataset.validation_fraction", "-dataset.test_fraction", "-dataset.public_fraction"),
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
    sources=sources,
    judge=judge,
    judged_by=(
        *("business.success", "business.constraints", "business.no_worse_than_champion"),
        *("business.least_progress", "business.go_anyway"),
    ),
)
