"""Wrangle: the steps that make features of columns, fitted by merged statistics of training parts alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lifecycle.profile import NO_TABLE
from experiments.lifecycle.stage import Quality, Result, Stage, Work
from experiments.lifecycle.validate import QUARANTINED, without_quarantined

if TYPE_CHECKING:
    from fl.signature import Signature

FEATURES = "features.json"
FEATURED = f"wrangle/{FEATURES}"
DEALT = ("dataset", "-dataset.quarantine", "partition", "num_clients", "unseen_clients", "seed", "server.seeding")
"""The settings that say who holds what, but for the clients that validate leaves out."""


def run(work: Work) -> Result:
    """Fit what ``dataset`` asks for, on clients that are dealt as split will deal them; nothing else is kept."""
    from experiments.prepare import prepare_data
    from fl.data.intake import read_intake
    from fl.files import write_json

    dataset = read_intake(work.before["ingest"].folder)
    with tempfile.TemporaryDirectory(prefix="meadow-data-") as folder:
        centre, devices = Path(folder, "centre"), Path(folder, "devices")
        prepared = prepare_data(without_quarantined(work), dataset, centre=centre, devices=devices)
    signature = prepared.signature
    write_json(work.folder / FEATURES, {"signature": signature.to_dict()}, site="report")
    if not dataset.is_table:
        return Result({"table": False}, NO_TABLE)
    fitted = _steps(signature) if signature.recipe else _columns(signature)
    examples = prepared.facts["train_examples"]
    rows = {key: prepared.facts[key] for key in ("recipe",) if key in prepared.facts}
    return Result(
        {"table": True, "asked_for": _asked_for(work), "train_examples": examples, "fitted": fitted, **rows},
        f"{_in_words(fitted)}, fitted on {examples:,} training examples of {prepared.num_clients} clients",
        {"what was fitted can be read back": read_features(work, work.folder) == signature},
    )


def read_features(work: Work, folder: Path | None = None) -> Signature:
    """The signature with what was fitted, from the stage's folder."""
    from fl.files import read_json
    from fl.signature import Signature

    return Signature.from_dict(read_json((folder or work.before["wrangle"].folder) / FEATURES)["signature"])


def _asked_for(work: Work) -> dict[str, Any]:
    dataset = work.settings["dataset"]
    recipe = dataset.get("recipe")
    return {"recipe": recipe} if recipe else {key: dataset[key] for key in ("standardize", "missing") if key in dataset}


def _steps(signature: Signature) -> dict[str, Any]:
    from fl.transforms.recipe import Recipe

    return {**json.loads(signature.recipe), "features": list(Recipe.from_json(signature.recipe).features)}


def _columns(signature: Signature) -> dict[str, Any]:
    """The constants of each column, by its name."""
    columns: dict[str, dict[str, Any]] = {name: {} for name in signature.input_names}
    for constant in ("medians", "feature_mean", "feature_std"):
        for column, value in zip(columns.values(), getattr(signature, constant), strict=False):
            column[constant] = value
    for c in signature.indicators:
        columns[signature.input_names[c]]["indicator"] = True
    return {"columns": columns}


def _in_words(fitted: dict[str, Any]) -> str:
    if "steps" in fitted:
        steps = ", ".join(dict.fromkeys(step["step"] for step in fitted["steps"]))
        return f"{len(fitted['features'])} features of {len(fitted['inputs'])} columns: {steps}"
    columns = fitted["columns"].values()
    filled = sum("medians" in column for column in columns)
    scaled = sum("feature_mean" in column for column in columns)
    return f"{len(columns)} columns, {filled} with a median, {scaled} standardised"


STAGE = Stage(
    name="wrangle",
    after=("ingest", QUARANTINED),
    reads=DEALT,
    code=(
        *("experiments.lifecycle.wrangle", "experiments.prepare", "experiments.recipes", "experiments.asking"),
        *("clients.query", "server.query", "fl.data", "fl.transforms"),
    ),
    run=run,
    quality=Quality(
        requirement="features are made by constants that are known, from training parts alone, and go with the model",
        risk="statistics that have seen the test; a model in use that gets other features than it learned from",
        check="clients answer about their training parts only; the constants are evidence, and split compares them",
    ),
)
