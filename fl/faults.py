"""Fault points: named places of a run where a test, or a doubtful user, can make the disk fail or the process die.

    MEADOW_FAULT="registry.manifest.renamed=kill"         this process dies there by SIGKILL
    MEADOW_FAULT="client_state.begin#3=ENOSPC"            there, the third time, the disk is full: and stays full

The environment is read here and nowhere else, when this module is imported. ``fl doctor --fault-points`` lists them.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

from fl.errors import BadInput

SITES: dict[str, str] = {
    "config": "the run's settings, config.yaml, before anything else",
    "run": "the run's id in the registry, run.json",
    "partitions": "the devices' examples",
    "partitions.about": "what is known of the devices' examples, store.json",
    "centre": "the server's public part and test set",
    "centre.about": "what is known of the server's part, centre.json: written last",
    "prepared": "the note that the data are prepared, prepared.json",
    "registry.run": "the registry's record of the run",
    "registry.examples": "the few test examples that exports are proved on",
    "registry.blob": "a round's parameters",
    "registry.log": "the line that announces a version",
    "registry.log.rewritten": "the log without versions that were damaged",
    "registry.manifest": "the manifest: its renaming is the commit",
    "registry.aliases": "who is champion and challenger",
    "strategy_state": "what the strategy keeps between rounds",
    "client_state": "what a device keeps between rounds, its own model included",
    "metrics": "a round's line in metrics.jsonl",
    "metrics.rewritten": "metrics.jsonl as it was, when a run begins or is resumed",
    "events": "a round's values in TensorBoard's file",
    "events.rewritten": "TensorBoard's file as it was, when a run begins or is resumed",
    "personal": "every device's own model compared with the global one, personal.jsonl",
    "summary": "summary.json, the last file of a run",
    "export": "the proof beside an exported model",
    "bundle": "a file of a bundle, or the bundle itself",
    "report": "what `fl data` found: a profile's page, rules, a quarantine; and what `fl clients` did",
    "intake": "a data set as `fl lifecycle` read it",
    "intake.about": "what is known of that data set, intake.json: written last",
    "stage.folder": "the folder of a stage of `fl lifecycle`",
    "stage.evidence": "what a stage found, evidence.json",
    "stage.decision": "the decision on what a stage found, decision.json",
    "stage.record": "what a stage was made of, stage.json: written last",
    "project": "the folder of a new project",
    "asked": "the asker's name, beside the answers that it gathers",
    "answers": "answers that came through a broker",
    "registry.dataset": "the catalogue's record of a data set",
    "registry.evidence": "what is known of a version besides its manifest",
    "registry.release": "what a release was ordered to be",
    "registry.release.state": "where a release stands",
    "registry.release.decisions": "a line a decision of a release",
    "registry.release.request": "what an operator asks of a release",
    "registry.release.end": "how a release ended: written last",
}
"""What is written, and so can fail."""

STAGES: dict[str, str] = {
    "begin": "before the first byte",
    "written": "written, and not yet durable",
    "renamed": "durable, and about to be known as such",
    "done": "all done",
}

APPENDED = (
    "registry.log",
    "registry.release.decisions",
    "metrics",
    "events",
    "centre",
    "intake",
    "stage.folder",
    "project",
    "answers",
)
"""Files that grow, and a folder that is filled: nothing is renamed there."""

POINTS: tuple[str, ...] = tuple(
    f"{site}.{stage}" for site in SITES for stage in STAGES if not (site in APPENDED and stage == "renamed")
)

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "EROFS": errno.EROFS}
VARIABLE = "MEADOW_FAULT"


@dataclass
class _Fault:
    """What is to happen: at ``point``, when it is reached for the ``left``-th time from now."""

    point: str
    left: int
    action: str
    tripped: bool = False


def arm(text: str | None) -> None:
    """Set the one fault of this process and of those it starts; None: none. Raises BadInput for what is no fault."""
    global _armed
    _armed = _parse(text) if text else None
    if text:
        os.environ[VARIABLE] = text
    else:
        os.environ.pop(VARIABLE, None)


def reach(point: str) -> None:
    """The program has come to ``point``. Raises OSError, or never returns, where that is what was asked for."""
    fault = _armed
    if fault is None:
        return
    if fault.tripped:
        if point.endswith(".begin"):
            raise OSError(ERRORS[fault.action], os.strerror(ERRORS[fault.action]))
    elif fault.point == point:
        fault.left -= 1
        if not fault.left:
            _trip(fault)


def end_together(pid: int) -> None:
    """Where this process is to die, let ``pid`` die with it: they are one program, and only one of them comes here."""
    global _companion
    _companion = pid


def _trip(fault: _Fault) -> None:
    if fault.action == "kill":
        for pid in (_companion, os.getpid()):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
    fault.tripped = True
    raise OSError(ERRORS[fault.action], os.strerror(ERRORS[fault.action]))


def _parse(text: str) -> _Fault:
    place, _, action = text.partition("=")
    point, _, count = place.partition("#")
    if point not in POINTS or not (count or "1").isdigit() or int(count or 1) < 1:
        raise BadInput(key=VARIABLE, got=text, allowed="POINT=ACTION or POINT#N=ACTION; fl doctor --fault-points")
    if action != "kill" and action not in ERRORS:
        raise BadInput(key=VARIABLE, got=action, allowed=", ".join(["kill", *ERRORS]))
    return _Fault(point, int(count or 1), action)


_armed = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None

_companion: int | None = None
