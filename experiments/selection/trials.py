"""A trial: a run to a round, measured on clients' validation parts, so that no test example chooses anything.

What a trial came to after a round is kept in its folder. A search that was killed is replayed from these files, and
goes on to what it would have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.errors import BadInput
from fl.files import read_json, write_json

TRIAL = "trial.json"
FINISHED = ("finished", "stopped early")


def rungs(num_rounds: int, *, first: int, factor: int | None) -> list[int]:
    """The rounds after which a trial is looked at; the last is ``num_rounds``.

    >>> rungs(20, first=2, factor=3)
    [2, 6, 18, 20]
    """
    found, round = [], first
    while factor is not None and round < num_rounds:
        found.append(round)
        round *= factor
    return [*found, num_rounds]


def value_after(settings: Mapping[str, Any], *, until: int | None, metric: str) -> float:
    """The run of ``settings`` after round ``until`` (None: its last): it runs to there unless it has already.

    ``metric`` is over all clients' validation parts. Raises BadInput where the task has no such metric, or the run's
    folder holds a run of other settings.
    """
    from experiments.selection.measure import measure
    from fl.registry import Registry

    run_dir = Path(settings["run_dir"])
    known = kept(run_dir)
    round = int(settings["num_rounds"] if until is None else until)
    if known and known["config"] == _comparable(settings) and str(round) in known["values"].get(metric, {}):
        return float(known["values"][metric][str(round)])
    run_to(settings, until=until)
    registry = Registry(settings["registry_dir"])
    run_id = str(read_json(run_dir / "run.json")["run_id"])
    latest = registry.latest(run_id)
    assert latest is not None  # the run got somewhere
    version = registry.version(f"{run_id}:{min(round, latest.round)}")
    figures = measure(run_dir, version, part="validation").metrics
    if metric not in figures:
        raise BadInput(key="hydra.sweeper.metric", got=metric, allowed=", ".join(figures))
    values = dict(known["values"]) if known and known["config"] == _comparable(settings) else {}
    values.setdefault(metric, {})[str(round)] = figures[metric]
    write_json(run_dir / TRIAL, {"config": _comparable(settings), "values": values}, site="report")
    return figures[metric]


def checked_value_after(settings: Mapping[str, Any], until: int | None, metric: str) -> float:
    """``value_after`` of settings that are checked where nothing was done with them yet."""
    from experiments.rules import check

    if not (Path(settings["run_dir"]) / "config.yaml").is_file():
        check(settings)
    return value_after(settings, until=until, metric=metric)


def run_to(settings: Mapping[str, Any], *, until: int | None = None) -> None:
    """The run of ``settings`` up to a round or its end: from the start, from where it was stopped, or not at all.

    Raises BadInput where the folder holds a run of other settings.
    """
    from experiments.config_file import read_config
    from experiments.run import resume, simulate

    run_dir = Path(settings["run_dir"])
    if not (run_dir / "config.yaml").is_file():
        simulate(settings, until=until)
        return
    if _comparable(read_config(run_dir)) != _comparable(settings):
        allowed = "a new folder, or the settings that the run in it was started with"
        raise BadInput(key="run_dir", got=str(run_dir), allowed=allowed)
    summary = run_dir / "summary.json"
    if not summary.is_file() or read_json(summary)["status"] not in FINISHED:
        resume(run_dir, until=until)


def kept(run_dir: Path) -> dict[str, Any]:
    """What is kept of a trial: its settings and its values by metric and round. Empty for none."""
    path = run_dir / TRIAL
    return read_json(path) if path.is_file() else {}


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for the engine, which changes nothing but time."""
    return {key: value for key, value in settings.items() if key != "engine"}
