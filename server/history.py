"""A run's past: what was committed, what goes into a commit, and where to go on.

A round exists when its manifest does. Before that its strategy state is written, so that whoever finds the manifest
finds everything; what a dead run left of a round without a manifest is written over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import Strategy

from fl.data.centre import Centre
from fl.errors import CorruptFile
from fl.files import check_files, make_parents, write_together
from fl.metrics import Confusion
from fl.models.imports import source_sha256
from fl.plain import plain
from fl.registry import Registry, Version, code_state
from server.records import Closing, RoundRecord
from server.rounds import LOWER_IS_BETTER, Totals
from server.strategy_state import load_state, pack_state

PRUNE_EVERY = 20
"""Rounds between two looks at which parameters may go."""

IN_MANIFEST = ("metrics", "cohort")
"""Facts of a round that have a place of their own in the manifest; the others stand under ``record``."""


@dataclass
class History:
    """The versions of one run in ``registry``. ``fields`` are the same in each of its manifests.

    ``blank`` is the strategy's state before any round: while it is no other, there is nothing to keep.
    """

    registry: Registry
    run_id: str
    run_dir: Path
    fields: Mapping[str, Any]
    keep: str = "all"
    blank: bytes = b""
    _last: Version | None = None

    def committed(self) -> list[Version]:
        """The run's versions by round."""
        return self.registry.versions(self.run_id)

    def pack(self, strategy: Strategy) -> bytes | None:
        """The strategy's state as it is now, None while there is nothing to keep."""
        packed = pack_state(strategy)
        return None if packed == self.blank else packed

    def commit(self, closings: Sequence[Closing]) -> list[Version]:
        """Make rounds versions. They are durable when it returns, in whatever thread that is."""
        states = {self._state_path(one.round): one.state for one in closings if one.state is not None}
        for path in states:
            make_parents(path)
        write_together(states, site="strategy_state")
        versions = self.registry.commit_all([(one.parameters, self._fields(one)) for one in closings])
        for one in closings:
            self._state_path(one.round - 2).unlink(missing_ok=True)
            if self.keep != "all" and one.round % PRUNE_EVERY == 0:
                self.registry.prune(self.run_id, self.keep)
        self._last = versions[-1]
        return versions

    def _fields(self, one: Closing) -> dict[str, Any]:
        own = {name: one.facts[name] for name in IN_MANIFEST if name in one.facts}
        told = {name: value for name, value in one.facts.items() if name not in own}
        fields = {
            **self.fields,
            **own,
            "run_id": self.run_id,
            "round": one.round,
            "record": plain(told | ({"confusion": told["confusion"].counts} if told.get("confusion") else {})),
            "strategy_state_sha256": None if one.state is None else hashlib.sha256(one.state).hexdigest(),
            **one.origin,
        }
        if one.round and self._last is not None and self._last.round == one.round - 1:
            fields["parent"] = self._last
        return fields

    def resume(self, strategy: Strategy) -> tuple[Totals, list[RoundRecord]] | None:
        """Where the run stands: its totals, and the records of its rounds. None for a run without a version.

        Puts the strategy's state of that round into ``strategy``. Raises CorruptFile where ``sound_round`` would have
        gone further back.
        """
        versions = self.committed()
        if not versions:
            return None
        last = versions[-1]
        if digest := last.manifest["strategy_state_sha256"]:
            load_state(strategy, self._state_path(last.round), sha256=digest)
        totals = Totals(parameters=self.registry.parameters(last))
        records = [record_of(version) for version in versions]
        for record in records:
            totals.include(record)
        return totals, records

    def _state_path(self, round: int) -> Path:
        return state_path(self.run_dir, round)


def state_path(run_dir: Path, round: int) -> Path:
    """Where the strategy's state after a round lies."""
    return run_dir / "state" / f"{round:06d}.safetensors"


def sound_round(
    registry: Registry, run_id: str, run_dir: Path, *, state_path: Callable[[Path, int], Path] = state_path
) -> tuple[int, list[str]]:
    """The last round of a run that is whole: -1 for none. And what is wrong with those after it, a line each.

    Whole is a round whose manifest, parameters and strategy's state are what was committed, and every round before it
    has the manifest that was. ``state_path``: where in ``run_dir`` the state after a round lies.
    """
    versions, problem = registry.sound_versions(run_id)
    wrong = [f"{problem.path}: {problem.what}"] if problem else []
    while versions:
        last = versions[-1]
        try:
            registry.parameters(last)
            if digest := last.manifest.get("strategy_state_sha256"):
                path = state_path(run_dir, last.round)
                check_files(path.parent, {path.name: digest})
        except CorruptFile as error:
            wrong.append(str(error))
            versions.pop()
        else:
            return last.round, wrong
    return -1, wrong


def quarantined(versions: Iterable[Version]) -> dict[int, str]:
    """Clients that were quarantined in the rounds of ``versions``, each with the reason: they stay so."""
    found: dict[int, str] = {}
    for version in versions:
        record = version.manifest.get("record") or {}
        away = set(record.get("quarantined", ()))
        found |= {item["client"]: item["reason"] for item in record.get("failed", ()) if item["client"] in away}
    return found


def open_history(
    values: Mapping[str, Any], *, registry: Registry, run_id: str, run_dir: Path, centre: Centre, task_metric: str
) -> History:
    """The history of a run with these settings, new or to be resumed."""
    model = dict(values["model"])
    target = model.pop("_target_")
    metric = values["server"].get("selection_metric") or task_metric
    fields = {
        "config": {k: v for k, v in values.items() if k != "run"},
        "seed": int(values["seed"]),
        "dataset": {"name": centre.name, "fingerprint": centre.fingerprint},
        "signature": centre.signature.to_dict(),
        "model": {"target": target, "arguments": model, "source_sha256": source_sha256(target)},
        "code": code_state(),
        "selection": {"metric": metric, "direction": "min" if metric in LOWER_IS_BETTER else "max"},
    }
    keep = str(values["server"].get("keep_versions", "all"))
    return History(registry=registry, run_id=run_id, run_dir=run_dir, fields=fields, keep=keep)


def record_of(version: Version) -> RoundRecord:
    """The round's record as its manifest tells it. Raises CorruptFile if the manifest was not written by a run."""
    manifest = version.manifest
    facts = dict(manifest.get("record") or {})
    if not {"clients", "bytes", "seconds"} <= facts.keys():
        raise CorruptFile(path=str(version.path), why="the manifest has no record of its round")
    table = facts.pop("confusion", None)
    confusion = Confusion(tuple(tuple(row) for row in table)) if table else None
    metrics = {name: value for name, value in version.metrics.items() if value is not None}
    known = {**facts, "metrics": metrics, "cohort": manifest.get("cohort", ()), "confusion": confusion}
    known |= {"round": version.round, "version": version.name, "model_sha256": version.model_sha256}
    return RoundRecord(**known)
