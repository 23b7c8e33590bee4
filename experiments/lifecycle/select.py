"""Select: other kinds of model beside the configured one, for a few rounds on the same partitions, if one asks for it.

``selection.rounds`` says for how many; 0, the default, compares nothing. What is trained afterwards is the configured
model in any case: what did better is evidence, and a person's to configure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from experiments.lifecycle import train
from experiments.lifecycle.stage import Quality, Result, Stage, Work
from experiments.selection.candidates import DEFAULT, Candidate, candidates
from fl.errors import Interrupted, MeadowError

CONFIGURED = "configured"
METRIC = "loss"


def run(work: Work) -> Result:
    """Train every candidate that suits the data, and measure it on all clients' validation parts."""
    from experiments.lifecycle.split import CENTRE
    from fl.data.centre import open_centre

    rounds = int(work.settings["selection"]["rounds"])
    if not rounds:
        return Result({"rounds": 0, "candidates": []}, "the configured model; no candidates were asked for")
    signature = open_centre(work.before["split"].folder / CENTRE).signature
    rate = float(work.settings["client"]["learning_rate"])
    asked = [Candidate(CONFIGURED)] + [one for one in candidates(signature, learning_rate=rate) if _fits(one)]
    told = [_tried(work, candidate, rounds) for candidate in asked]
    best = min(told, key=lambda one: float("inf") if one["value"] is None else one["value"])
    mine = told[0]
    found = f"{len(told)} candidates; the configured model has {METRIC} {_text(mine['value'])}"
    if best is not mine:
        found += f", {best['name']} {_text(best['value'])}"
    return Result(
        {"rounds": rounds, "metric": METRIC, "candidates": told, "best": best["name"]},
        found,
        {"a candidate was measured on clients' validation parts": best["value"] is not None},
    )


def _fits(candidate: Candidate) -> bool:
    """Whether it takes the partitions as they are, and is not a default, which may be another than is configured."""
    return candidate.name != DEFAULT and not any(text.startswith("dataset.") for text in candidate.overrides)


def _tried(work: Work, candidate: Candidate, rounds: int) -> dict[str, Any]:
    from experiments.selection.trials import value_after
    from fl.files import read_json

    name = re.sub(r"[^a-z0-9]+", "-", candidate.name)
    run_dir = work.root / "runs" / f"{work.root.name}-select-{name}-{work.inputs[:8]}"
    told: dict[str, Any] = {"name": candidate.name, "value": None, "run_id": None, "error": None}
    try:
        if not (run_dir / "config.yaml").is_file():
            train.hand_over(work.before["split"].folder, run_dir)
        settings = {**train.without_quarantined(work, run_dir), **_chosen(work.settings, candidate)}
        settings |= {"num_rounds": rounds, "run_dir": str(run_dir)}
        settings["server"] = {**settings["server"], "first_champion": False}
        del settings["selection"]
        told["value"] = value_after(settings, until=None, metric=METRIC)
        told["run_id"] = str(read_json(run_dir / "run.json")["run_id"])
    except Interrupted:
        raise
    except MeadowError as error:  # a model that does not suit the data is a result as well
        told["error"] = str(error)
    return told


def _chosen(settings: Mapping[str, Any], candidate: Candidate) -> dict[str, Any]:
    """The sections that the candidate changes, as it composes them for this data set; all others stay as configured."""
    from experiments.compose import compose

    composed = compose([f"dataset={settings['dataset']['name']}", *candidate.overrides])
    groups = {text.split("=")[0].split(".")[0] for text in candidate.overrides}
    changed = {group: composed[group] for group in groups - {"client"}}
    if "strategy" in groups:  # trees bring their model
        changed["model"] = composed["model"]
    elif "model" in groups:
        changed["strategy"] = {"_target_": None}
    if "client" in groups:
        changed["client"] = {**settings["client"], "learning_rate": composed["client"]["learning_rate"]}
    return changed


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


STAGE = Stage(
    name="select",
    after=train.STAGE.after,
    reads=(*(key for key in train.STAGE.reads if key != "num_rounds"), "selection"),
    code=("experiments.lifecycle.select", "experiments.selection", *train.STAGE.code),
    run=run,
    quality=Quality(
        requirement="the configured model is known to be a good choice, or known not to be",
        risk="a model that a simpler one, or an answer without looking, would have matched",
        check="candidates of other kinds, the trivial baseline among them, on clients' validation parts",
    ),
    sources=train.STAGE.sources,
)
