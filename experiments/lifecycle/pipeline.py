"""The pipeline walks its stages in order and does those whose inputs are not what they were.

    DIR/<stage>/evidence.json    what the stage found: depends on its inputs alone
    DIR/<stage>/stage.json       its inputs, the hashes of its files, seconds and what else it measured; written last
    DIR/<stage>/decision.json    of a stage that is judged: the decision on its evidence, and the thresholds behind it
    DIR/<stage>/...              what it made
    DIR/runs/<run>/              what train made, which has to outlive an interrupt; see experiments/run.py

A stage works in a folder beside its own, which then takes the place of the old one: it is whole, or it is not there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.choices import flat
from experiments.lifecycle.inputs import Inputs, changed, inputs_of, narrowed, sha256_of
from experiments.lifecycle.stage import Done, Result, Settings, Stage, Work
from fl.decisions import Action
from fl.errors import BadInput, CorruptFile, MeadowError, MissingExtra
from fl.files import check_files, read_json, sha256_file, storing, sync_folder, write_json

EVIDENCE, RECORD, DECISION = "evidence.json", "stage.json", "decision.json"
DID, SKIPPED, FAILED, STOPPED, REFUSED = "did", "skipped", "failed", "stopped here", "refused"
_ENDS = {Action.STOP.value: STOPPED, Action.REFUSE.value: REFUSED}


@dataclass(frozen=True)
class Told:
    """What became of a stage: ``what`` is DID, SKIPPED, FAILED, STOPPED or REFUSED; ``why`` it ran or did not."""

    stage: str
    what: str
    why: str
    seconds: float
    found: str
    error: MeadowError | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the stages after it get their turn."""
        return self.what in (DID, SKIPPED)


def chosen(stages: Sequence[Stage], name: str | None) -> list[Stage]:
    """All stages, or the one called ``name`` and those that it depends on, in order."""
    if name is None:
        return list(stages)
    known = {stage.name: stage for stage in stages}
    if name not in known:
        raise BadInput(key="stage", got=name, allowed=f"one of {', '.join(known)}, or null for all of them")
    wanted, waiting = {name}, [name]
    while waiting:
        for other in known[waiting.pop()].before:
            if other not in wanted:
                wanted.add(other)
                waiting.append(other)
    return [stage for stage in stages if stage.name in wanted]


def walk(
    stages: Sequence[Stage], settings: Settings, root: Path, *, check: Callable[[Settings], None]
) -> Iterator[Told]:
    """Do what has to be done of ``stages``; one Told a stage, up to the first that does not let the others go on.

    ``check`` raises BadInput for settings that cannot be; it is called once, before the first stage that runs.
    """
    done: dict[str, Done] = {}
    checked = False
    for stage in stages:
        began = time.monotonic()
        given = narrowed(settings, stage.reads)
        before = {name: done[name] for name in stage.before}
        try:
            inputs = inputs_of(stage, given, before)
            why = _reasons(stage, given, root / stage.name, inputs)
        except MeadowError as error:
            yield _failed(stage, error, began)
            return
        if why and not checked:
            check(settings)
            checked = True
        try:
            thresholds, differs = narrowed(settings, stage.judged_by), []
            if why:
                _do(stage, given, thresholds, before, inputs, root, began)
            elif differs := _judged_otherwise(stage, thresholds, _open(root / stage.name)):
                if not checked:
                    check(settings)
                    checked = True
                _judge(stage, thresholds, _open(root / stage.name))
            done[stage.name] = _with_decision(stage, _open(root / stage.name))
        except MeadowError as error:
            yield _failed(stage, error, began)
            return
        words = f"only decided again: {_in_short(differs)}" if differs else _in_short(why)
        told = _told(done[stage.name], stage, DID if why else SKIPPED, words, began)
        yield told
        if not told.goes_on:
            return


def _reasons(stage: Stage, settings: Settings, folder: Path, inputs: Inputs) -> list[str]:
    """Why the stage has to run; empty if what it left is there, whole, and made of the same."""
    if not (folder / RECORD).is_file():
        return ["first time"]
    try:
        record = read_json(folder / RECORD)
        edits = _edits(stage, folder, record["files"])
        check_files(folder, {name: digest for name, digest in record["files"].items() if name not in edits})
        evidence = read_json(folder / EVIDENCE)
    except (CorruptFile, KeyError) as error:
        return [f"damaged: {error}"]
    why = [f"{name} was edited" for name in edits] + changed(record["inputs"], inputs)
    if not why and not stage.holds(settings, evidence):
        return ["what it made, or compared with, is gone"]
    return why


def _edits(stage: Stage, folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Those files that people may edit, and did."""
    there = [name for name in stage.edited if name in hashes and (folder / name).is_file()]
    return [name for name in there if sha256_file(folder / name) != hashes[name]]


def _do(
    stage: Stage,
    settings: Settings,
    thresholds: Settings,
    before: dict[str, Done],
    inputs: Inputs,
    root: Path,
    began: float,
) -> None:
    beside = root / f".{stage.name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    with storing(beside, site="stage.folder"):
        beside.mkdir()
    try:
        result = stage.run(Work(settings, beside, before, root, sha256_of(inputs)))
        _check(stage, result)
        _write(stage, result, beside, inputs, began)
        if stage.judge is not None:
            _judge(stage, thresholds, _open(beside))
        _put(beside, root / stage.name)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _check(stage: Stage, result: Result) -> None:
    broken = [what for what, held in result.checks.items() if not held]
    if broken:
        raise BadInput(key="quality", got=f"not so: {'; '.join(broken)}", allowed=stage.quality.requirement)


def _write(stage: Stage, result: Result, folder: Path, inputs: Inputs, began: float) -> None:
    quality = stage.quality
    evidence: dict[str, Any] = {
        **result.evidence,
        "stage": stage.name,
        "found": result.found,
        "quality": {
            "requirement": quality.requirement,
            "risk": quality.risk,
            "check": quality.check,
            "checked": dict(result.checks),
        },
    }
    if result.decision is not None:
        evidence["decision"] = {"action": result.decision.action.value, "reason": result.decision.reason}
    write_json(folder / EVIDENCE, evidence, site="stage.evidence")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(folder)): sha256_file(path) for path in paths}
    record = {"inputs": inputs, "files": files, "seconds": time.monotonic() - began, "measured": result.measured}
    write_json(folder / RECORD, record, site="stage.record")


def _put(new: Path, place: Path) -> None:
    """Let ``new`` take the place of what stands at ``place``: a crash in between leaves nothing there, never half."""
    old = place.with_name(f".{place.name}.old")
    with storing(place, site="stage.folder"):
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        new.rename(place)
        sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def _open(folder: Path) -> Done:
    record = read_json(folder / RECORD)
    return Done(folder, read_json(folder / EVIDENCE), record["files"], record.get("measured", {}))


def _judged_otherwise(stage: Stage, thresholds: Settings, done: Done) -> list[str]:
    """Why the decision on what a stage found has to be made again, in words; empty where it stands or there is none."""
    if stage.judge is None:
        return []
    try:
        known = read_json(done.folder / DECISION)
        return changed(known["inputs"], _behind(thresholds, done))
    except (CorruptFile, KeyError, OSError):
        return ["first time"]


def _behind(thresholds: Settings, done: Done) -> Inputs:
    """What a decision depends on."""
    return {"settings": json.loads(json.dumps(flat(dict(thresholds)))), "stages": {"found": sha256_of(done.evidence)}}


def _judge(stage: Stage, thresholds: Settings, done: Done) -> None:
    assert stage.judge is not None  # asked before
    judged = stage.judge(thresholds, done.evidence)
    reason = judged.decision.reason
    evidence = {
        **judged.evidence,
        "found": reason,
        "decision": {"action": judged.decision.action.value, "reason": reason},
    }
    told = {"inputs": _behind(thresholds, done), "evidence": evidence}
    write_json(done.folder / DECISION, told, site="stage.decision")


def _with_decision(stage: Stage, done: Done) -> Done:
    """What a stage left, as those after it see it: with the decision, where there is one."""
    if stage.judge is None:
        return done
    judged = read_json(done.folder / DECISION)["evidence"]
    files = {**done.files, DECISION: sha256_of(judged)}
    return replace(done, evidence={**done.evidence, **judged}, files=files)


def _told(done: Done, stage: Stage, what: str, why: str, began: float) -> Told:
    decision = done.evidence.get("decision")
    ends = _ENDS.get(decision["action"]) if decision else None
    return Told(stage.name, ends or what, why, time.monotonic() - began, done.evidence["found"])


def _in_short(why: Sequence[str]) -> str:
    more = f" and {len(why) - 3} more" if len(why) > 3 else ""
    return ", ".join(why[:3]) + more or "nothing changed"


def _failed(stage: Stage, error: MeadowError, began: float) -> Told:
    """The error with the stage in its message, where it is about what the user gave."""
    if isinstance(error, BadInput) and not isinstance(error, MissingExtra):
        error = BadInput(key=f"stage {stage.name}, {error.key}", got=error.got, allowed=error.allowed)
    return Told(stage.name, FAILED, "", time.monotonic() - began, str(error), error)
