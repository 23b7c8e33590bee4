"""Train: a federated run on the partitions that split made, with a folder of its own that an interrupt cannot spoil."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.lifecycle.inputs import own_code
from experiments.lifecycle.split import CENTRE, PARTITIONS
from experiments.lifecycle.stage import Quality, Result, Settings, Stage, Work
from experiments.lifecycle.validate import QUARANTINE, QUARANTINED
from fl.errors import BadInput, CorruptFile


def run(work: Work) -> Result:
    """Run the rounds, or go on with them where an earlier attempt was stopped; the best version is the result."""
    from experiments.run import resume, simulate
    from fl.files import read_json
    from fl.registry import Registry

    run_dir = work.root / "runs" / f"{work.root.name}-{work.inputs[:8]}"
    if (run_dir / "config.yaml").is_file():
        resume(run_dir)
    else:
        hand_over(work.before["split"].folder, run_dir)
        settings = without_quarantined(work, run_dir)
        # Whether it may be champion is for acceptance to say; register makes it so.
        server = {**settings["server"], "first_champion": False}
        simulate({**settings, "server": server, "run_dir": str(run_dir)})
    summary = read_json(run_dir / "summary.json")
    registry = Registry(work.settings["registry_dir"])
    best = registry.best(summary["run_id"])
    first = registry.version(f"{summary['run_id']}:0")
    assert best is not None  # the run committed version 0 at least
    selection = dict(best.manifest["selection"])
    metric = str(selection["metric"])
    evidence = {
        "run_id": summary["run_id"],
        "version": best.name,
        "version_hash": best.hash,
        "model_sha256": best.model_sha256,
        "metrics": best.metrics,
        "version_0": first.metrics,
        "selection": selection,
        "rounds": summary["rounds_completed"],
        "clients": summary["clients"],
        "num_parameters": summary["num_parameters"],
    }
    values = [version.metrics.get(metric) for version in (best, first)]
    shown = ", ".join(
        f"{name} {value:.4g}" for name, value in zip((metric, "before"), values, strict=True) if value is not None
    )
    # The best version is at least as good as version 0 by its choice: what is checked is that it is a finite number.
    return Result(
        evidence,
        f"{best.name} of {summary['rounds_completed']} rounds: {shown}",
        {"the best version was measured": values[0] is not None or not best.metrics},
    )


def holds(settings: Settings, evidence: Mapping[str, Any]) -> bool:
    """Whether the version is still in the registry, with its parameters."""
    from fl.registry import Registry

    try:
        registry = Registry(settings["registry_dir"])
        found = registry.version(str(evidence["version"]))
        return found.hash == evidence["version_hash"] and not registry.verify(found)
    except (BadInput, CorruptFile):
        return False


def without_quarantined(work: Work, run_dir: Path) -> dict[str, Any]:
    """The settings, naming the clients that were left out in a file of the run: should it deal its data again."""
    from fl.files import storing

    found = work.before["split"].evidence
    if not found.get("quarantined_clients"):
        return {**work.settings, "dataset": {**work.settings["dataset"], "quarantine": None}}
    with storing(run_dir, site="stage.folder"):
        shutil.copyfile(work.before["validate"].folder / QUARANTINE, run_dir / QUARANTINE)
    return {**work.settings, "dataset": {**work.settings["dataset"], "quarantine": str(run_dir / QUARANTINE)}}


def hand_over(split: Path, run_dir: Path) -> None:
    """Give a run its data, as if it had prepared them: a copy, because a run may mend its own."""
    from experiments.prepare import note_prepared
    from fl.data.centre import PICTURE, open_centre
    from fl.files import storing

    shutil.rmtree(run_dir, ignore_errors=True)  # begun, and given up before it was one
    with storing(run_dir, site="stage.folder"):
        shutil.copytree(split / CENTRE, run_dir / CENTRE)
        shutil.copytree(split / PARTITIONS, run_dir / PARTITIONS)
    num_clients = open_centre(run_dir / CENTRE).num_clients
    note_prepared(run_dir, num_clients=num_clients, picture=run_dir / CENTRE / PICTURE)


STAGE = Stage(
    name="train",
    after=("split", QUARANTINED),
    reads=(
        *("seed", "num_clients", "unseen_clients", "cohort_size", "num_rounds", "registry_dir", "evaluate_every"),
        *("evaluate_clients_every", "dataset", "partition", "model", "algorithm", "strategy", "client", "server"),
        "engine",
    ),
    code=(
        *("experiments.lifecycle.train", "experiments.run", "experiments.engine", "clients", "server", "fl.algorithms"),
        *("fl.aggregators", "fl.models", "fl.cohorts", "fl.messages", "fl.metrics", "fl.parameters", "fl.seeds"),
        *("fl.wire", "fl.data.store", "fl.data.centre", "fl.data.training_part", "fl.transforms"),
    ),
    run=run,
    quality=Quality(
        requirement="the same settings, data and seed give the same model; every round is a version",
        risk="training that diverges, or that fewer clients answer than the quorum asks for",
        check="replies are checked before they are added up; the best version is chosen by the server's test set",
    ),
    sources=lambda settings: dict(own_code(settings)),
    holds=holds,
)
