"""Register: the version that train made, with the evidence of every stage attached to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.lifecycle.stage import Done, Quality, Result, Settings, Stage, Work
from fl.errors import BadInput, CorruptFile

OF_DATA = ("profile", "validate", "wrangle")
"""The stages whose evidence is of the data set as much as of the version."""


def run(work: Work) -> Result:
    """Attach what the stages before found to the version, in the registry."""
    from experiments.recorded_data import record
    from fl.registry import Registry

    registry = Registry(work.settings["registry_dir"])
    version = registry.version(str(work.before["train"].evidence["version"]))
    attached = {name: _evidence(done) for name, done in work.before.items()}
    for name, evidence in attached.items():
        registry.attach(version, name, evidence)
    data, goal = attached["ingest"], attached["understand"]
    found = {name: attached[name] for name in OF_DATA if attached[name]["table"]}
    recorded = record(registry.folder, data, found, owner=goal["owner"], used_by=version.name)
    registry.crown_if_vacant(version.run_id)
    aliases = sorted(alias for alias, found in registry.aliases().items() if found.hash == version.hash)
    named = f", {' and '.join(aliases)}" if aliases else ""
    return Result(
        {"version": version.name, "version_hash": version.hash, "attached": sorted(attached), "dataset": recorded},
        f"{version.name}{named}, made from {recorded}, with the evidence of {', '.join(attached)}",
        {"what was attached can be read back": attached.items() <= registry.evidence(version).items()},
    )


def _evidence(done: Done) -> dict[str, Any]:
    return {**done.evidence, **({"measured": dict(done.measured)} if done.measured else {})}


def holds(settings: Settings, evidence: Mapping[str, Any]) -> bool:
    """Whether version and evidence are still in the registry."""
    from fl.registry import Registry

    try:
        registry = Registry(settings["registry_dir"])
        version = registry.version(str(evidence["version"]))
        there = registry.evidence(version).keys()
        known = version.name in registry.dataset(str(evidence["dataset"]))["used_by"]
        return version.hash == str(evidence["version_hash"]) and there >= set(evidence["attached"]) and known
    except (BadInput, CorruptFile):
        return False


STAGE = Stage(
    name="register",
    after=(
        *("understand", "ingest", "profile", "validate", "wrangle", "split", "select", "train", "evaluate", "accept"),
        "package",
    ),
    reads=("registry_dir",),
    code=("experiments.lifecycle.register", "experiments.recorded_data"),
    run=run,
    quality=Quality(
        requirement="whoever meets a version can see what it was made from and why it was thought good",
        risk="a model in use of which nobody knows the data, the goal or the checks",
        check="the evidence is read back from the registry and compared",
    ),
    holds=holds,
)
