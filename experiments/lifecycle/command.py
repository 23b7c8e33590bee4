"""`fl lifecycle`: settings composed, the pipeline walked, and what became of its stages as a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.lifecycle.old_runs import num_bytes, remove, unneeded_runs
from experiments.lifecycle.pipeline import REFUSED, STOPPED, Told, chosen, walk
from experiments.lifecycle.stage import Settings
from experiments.lifecycle.stages import STAGES
from fl.errors import NotAccepted

FOLDER = Path("outputs/lifecycle")
NO_GO = 1


def run_lifecycle(overrides: Sequence[str], *, as_json: bool) -> int:
    """Walk the stages that ``overrides`` ask for; returns the exit status, after what became of them is printed.

    Raises the error of the stage that failed, if one did.
    """
    from experiments.compose import LIFECYCLE, compose
    from experiments.run_folder import only_writer
    from fl.files import writable_folder

    settings = compose(overrides, name=LIFECYCLE)
    stages = chosen(STAGES, settings["stage"])
    if not any(text.startswith("run_dir=") for text in overrides):
        settings["run_dir"] = str((FOLDER / settings["dataset"]["name"]).absolute())
    root = writable_folder(Path(settings["run_dir"]).resolve(), key="run_dir")
    with only_writer(root):
        told = list(walk(stages, settings, root, check=_check))
        old = unneeded_runs(root, settings["registry_dir"]) if all(one.goes_on for one in told) else []
        weight = num_bytes(old)
        if not settings["keep_runs"]:
            remove(old)
    _show(told, root, old, as_json=as_json)
    if old:
        _tell(old, weight, root, kept=settings["keep_runs"])
    for one in told:
        if one.error is not None:
            raise one.error
    return {STOPPED: NO_GO, REFUSED: NotAccepted.exit_status}.get(told[-1].what, 0)


def _check(settings: Settings) -> None:
    from experiments.rules import check

    check(settings)


def _tell(old: Sequence[Path], weight: int, root: Path, *, kept: bool) -> None:
    """Where runs lie that nothing needs, or that they are gone; on standard error."""
    runs = "1 older run" if len(old) == 1 else f"{len(old)} older runs"
    about = f"{runs} that no alias and no lineage needs, {weight / 1e6:.1f} MB"
    print(f"{about}: in {root / 'runs'}; keep_runs=false removes them" if kept else f"removed {about}", file=sys.stderr)


def _show(told: Sequence[Told], root: Path, old: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        stages = [
            {"stage": t.stage, "what": t.what, "why": t.why, "seconds": round(t.seconds, 3), "found": t.found}
            for t in told
        ]
        print(json.dumps({"run_dir": str(root), "stages": stages, "old_runs": [path.name for path in old]}, indent=2))
        return
    from experiments.printing import print_table

    rows = [(t.stage, t.what, f"{t.seconds:.2f}", t.why, t.found) for t in told]
    print_table(("stage", "", "seconds", "because", "found"), rows)
