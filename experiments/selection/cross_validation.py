"""`fl cv`: a run a fold, each measured on what it left out; mean and deviation over folds.

    examples, bootstrap   every client measures the fold's last version on its own examples of the fold
    clients               the clients that took no part measure it on all of theirs
    public                central: no client trains; the server trains on its public part without the fold

Each fold is a run like any other, with versions, in FOLDER/INDEX; ``at_once`` of them run at a time, which changes no
figure. A folder in which some folds are done already goes on with the others, so that a command that was killed is
repeated as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.selection.measure import Figures, measure
from experiments.selection.trials import run_to
from experiments.selection.workers import Workers
from fl.errors import BadInput, MeadowError, MissingExtra
from fl.files import read_json, write_json

REPORT = "cv.json"
EVIDENCE = "fold"


def cross_validate(overrides: Sequence[str], *, folds: int, over: str, at_once: int = 1) -> dict[str, Any]:
    """Run every fold, and return folder, metrics of each fold, and mean and deviation, as plain values.

    The deviation is of the folds about their mean, with folds - 1 in the denominator. Raises BadInput before any fold
    starts, as `fl simulate` does.
    """
    from experiments import compose as composing
    from experiments.rules import check
    from fl.data.folds import Fold

    Fold(folds, 0, over)
    for text in overrides:
        if text.startswith("folds."):
            raise BadInput(key="overrides", got=text, allowed="--folds and --over, which say the same")
    given = [text for text in overrides if text.startswith("run_dir=")]
    folder = Path(composing.compose(given)["run_dir"] if given else composing.SWEEPS / composing.fresh_name())
    folder = folder.absolute()
    jobs = []
    for index in range(folds):
        asked = [*overrides, f"folds.number={folds}", f"folds.index={index}", f"folds.over={over}"]
        asked += ["num_rounds=0"] if over == "public" else []
        settings = composing.compose(asked, run_dir=folder / str(index))
        if over == "public" and settings["server"]["seeding"] != "pretrained":
            allowed = "pretrained: what is cross-validated on public examples is how version 0 is trained"
            raise BadInput(key="server.seeding", got=settings["server"]["seeding"], allowed=allowed)
        if not (folder / str(index) / "config.yaml").is_file():
            check(settings)
        jobs.append(settings)
    with Workers(at_once) as workers:
        calls = {str(index): (workers.shared(settings), over) for index, settings in enumerate(jobs)}
        found = workers.each(_fold, calls)
    for index, outcome in enumerate(found):
        if isinstance(outcome, BadInput) and not isinstance(outcome, MissingExtra):
            raise BadInput(key=f"fold {index}, {outcome.key}", got=outcome.got, allowed=outcome.allowed)
        if isinstance(outcome, MeadowError):
            raise outcome
    report = {"over": over, "folds": found, **_over_folds(found)}
    write_json(folder / REPORT, report, site="report")
    return {**report, "folder": str(folder)}


def _fold(settings: Mapping[str, Any], over: str) -> dict[str, Any]:
    """One fold: run it, or go on with it, unless it is done; measure its last version."""
    from fl.registry import Registry

    run_dir = Path(settings["run_dir"])
    run_to(settings)
    registry = Registry(settings["registry_dir"])
    version = registry.latest(str(read_json(run_dir / "run.json")["run_id"]))
    assert version is not None  # the run is finished
    if over == "public":
        from fl.data.centre import open_centre

        metrics = {name: value for name, value in version.metrics.items() if value is not None}
        figures = Figures(metrics, len(open_centre(run_dir / "centre").test), 0)
    else:
        figures = measure(run_dir, version, part="test", unseen=over == "clients")
    fold = {
        "index": settings["folds"]["index"],
        "version": version.name,
        "examples": figures.examples,
        "clients": figures.clients,
        "metrics": figures.metrics,
    }
    registry.attach(version, EVIDENCE, {**dict(settings["folds"]), **fold})
    return fold


def _over_folds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import numpy as np

    names = [name for name in found[0]["metrics"] if all(name in fold["metrics"] for fold in found)]
    table = {name: np.array([fold["metrics"][name] for fold in found]) for name in names}
    return {
        "mean": {name: float(each.mean()) for name, each in table.items()},
        "deviation": {name: float(each.std(ddof=1)) for name, each in table.items()},
    }


def show(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a row a fold, mean and deviation, and the folder as the last line; or JSON."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    from experiments.printing import print_table

    names = list(report["mean"])
    rows = [
        (one["index"], one["version"], one["clients"] or "", one["examples"], *_figures(one["metrics"], names))
        for one in report["folds"]
    ]
    rows += [(name, "", "", "", *_figures(report[name], names)) for name in ("mean", "deviation")]
    print_table(("fold", "version", "clients", "examples", *names), rows)
    print(report["folder"])


def _figures(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" for name in names]
