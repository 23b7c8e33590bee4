"""What a fitted recipe does to the rows of all clients: how many it leaves out of training, and what stays missing.

Counts of parts, merged over clients: two questions for each step that drops rows, one for each part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fl.data import analytics
from fl.data.analytics import Ask
from fl.data.recipes import about_features
from fl.messages import PARTS, Query
from fl.transforms.recipe import Recipe
from fl.transforms.steps import RowStep, step_name


def recipe_effects(ask: Ask, recipe: Recipe) -> dict[str, Any]:
    """Plain values.

    training_rows   rows of all training parts;  trained_on  those of them that are left
    dropped         a step that drops rows each: its place among the fitted steps, its name, how many rows it dropped
    missing         by part, the features that have no value somewhere, each with how many values it lacks; of
                    training parts, in the rows that are trained on
    """
    before = rows = _rows(ask, replace(recipe, steps=()))
    dropped = []
    for i, step in enumerate(recipe.steps):
        if isinstance(step, RowStep):
            left = _rows(ask, replace(recipe, steps=recipe.steps[: i + 1]))
            dropped.append({"place": i, "step": step_name(step), "rows": before - left})
            before = left
    missing: dict[str, dict[str, int]] = {}
    for part in PARTS[1:]:
        found = analytics.moments(about_features(ask, recipe), range(len(recipe.features)), part=part)
        lacking = {name: m.missing for name, m in zip(recipe.features, found.values(), strict=True) if m.missing}
        missing |= {part: lacking} if lacking else {}
    return {"training_rows": rows, "trained_on": before, "dropped": dropped, "missing": missing}


def _rows(ask: Ask, recipe: Recipe) -> int:
    """How many rows of all training parts ``recipe`` keeps."""
    answers = about_features(ask, recipe)(Query("moments", (0,), part="train"))
    answers.pooled()
    return sum(report.num_examples for report in answers.reports)
