"""One run on this machine: data prepared, engine started, the ServerApp called on our grid.

Here the two sides are put together, and here alone: the centre gets its own folder, the devices theirs.

    RUN/config.yaml     written before anything else          RUN/centre/     public part and test set: the server's
    RUN/run.json        the run's id in the registry          RUN/devices/    private partitions, states, own models
    RUN/metrics.jsonl, summary.json, tensorboard/, state/     what the rounds leave behind
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from experiments.config_file import CONFIG, read_config, write_config
from experiments.prepare import PREPARED, counted, load_data, note_prepared, prepare_data
from experiments.run_folder import RUN, claimed_run_id, forget_what_is_damaged, only_writer
from fl import garbage, interrupts
from fl.errors import BadInput, CorruptFile
from fl.files import read_json, writable_folder


def simulate(config: Mapping[str, Any], *, until: int | None = None) -> Path:
    """Run a composed configuration in ``config["run_dir"]``; returns that folder.

    until   a round to pause after: ``resume`` goes on from there, to the bits of a run that was not paused

    Raises BadInput before any training, having removed what it had begun; StoppedByFaults or Interrupted after the
    summary is written.
    """
    began = time.time()
    run_dir = writable_folder(Path(config["run_dir"]).resolve(), key="run_dir")
    if (run_dir / CONFIG).exists():
        allowed = f"a new folder; this one holds a run, which goes on with: fl resume {run_dir}"
        raise BadInput(key="run_dir", got=str(run_dir), allowed=allowed)
    with only_writer(run_dir), interrupts.handled():
        write_config(run_dir, config)
        try:
            _run(config, run_dir, began, until=until)
        except BadInput:
            if not (run_dir / RUN).exists():  # nothing was saved yet: leave no half-made run behind
                shutil.rmtree(run_dir, ignore_errors=True)
            raise
    return run_dir


def resume(run_dir: Path, *, until: int | None = None) -> Path:
    """Go on after the last committed round of the run in ``run_dir``, ``until`` one; one without any starts over.

    Raises BadInput with key ``RUN_DIR`` where there is no run, or it is being written by somebody else.
    """
    run_dir = run_dir.resolve()
    if not (run_dir / CONFIG).is_file():
        raise BadInput(key="RUN_DIR", got=str(run_dir), allowed="the folder of a run: one with a config.yaml")
    with only_writer(run_dir), interrupts.handled():
        _run(read_config(run_dir), run_dir, time.time(), until=until)
    return run_dir


def _run(config: Mapping[str, Any], run_dir: Path, began: float, *, until: int | None) -> None:
    from clients.flower_internals import begin_run, server_context
    from clients.setting import open_setting
    from experiments import engine as engines
    from fl.data.centre import open_centre
    from fl.registry import Registry
    from fl.run_config import flatten
    from server.app import app, check
    from server.commit_process import NOBODY, commit_process
    from server.history import quarantined

    logging.getLogger("flwr").setLevel(logging.ERROR)
    centre, partitions, states = run_dir / "centre", run_dir / "devices" / "partitions", run_dir / "devices" / "states"
    facts = _prepare(config, run_dir, centre=centre, partitions=partitions)
    values = counted(config, facts["num_clients"])
    known = open_centre(centre)
    setting = open_setting(values, partitions=partitions, states=states, signature=known.signature)
    registry = Registry(writable_folder(Path(config["registry_dir"]).resolve(), key="registry_dir"))
    check(values, centre=centre, registry=registry)
    engine = engines.choose(
        config["engine"],
        setting,
        num_rounds=int(config["num_rounds"]),
        cohort_size=values["cohort_size"],
        deadline=config["server"].get("deadline_seconds") is not None,
    )
    run_id = claimed_run_id(run_dir, registry)
    stores = [store for store in (setting.states, setting.personal) if store is not None]
    forget_what_is_damaged(stores, registry, run_id, run_dir, num_rounds=int(config["num_rounds"]))
    run = {
        "id": run_id,
        "dir": str(run_dir),
        "registry": str(registry.folder),
        "centre": str(centre),
        "picture": facts.get("picture") or "",
        "engine": engine.name,
        "began": began,
        "until": until,
        "summary": {
            "engine_asked": config["engine"]["name"],
            "engine_reason": engine.reason,
            "num_actors": engine.num_actors,
            "training": "stacked" if setting.one_by_one is None else f"one by one: {setting.one_by_one}",
            "private_examples_read_by": engines.READERS[engine.name],
            **({"recipe": known.facts["recipe"]} if "recipe" in known.facts else {}),
        },
    }
    away = quarantined(registry.versions(run_id))
    # Where training takes every core, a process that commits would only take turns with it.
    has_a_core = engines.cores_at_work(engine, setting, values) < engines.available_cores()
    writes_events = bool(config["server"].get("tensorboard", True))
    garbage.loaded()
    with (
        commit_process(tensorboard=writes_events) if has_a_core else nullcontext(NOBODY) as commits,
        engines.open_grid(
            engine, setting, values, run_id=run_id, partitions=partitions, states=states, quarantined=away
        ) as grid,
    ):
        app(grid, server_context(begin_run(run_id), flatten({**values, "run": {**run, "commits": commits}})))


def _prepare(config: Mapping[str, Any], run_dir: Path, *, centre: Path, partitions: Path) -> dict[str, Any]:
    """Load, partition and write the data, once; a resumed run finds it as it was, or makes it again where it is not."""
    from fl.data.centre import verify_centre
    from fl.data.store import verify_store

    known = run_dir / PREPARED
    if known.exists():
        try:
            facts = dict(read_json(known))
            verify_centre(centre)
            verify_store(partitions)
        except CorruptFile as error:
            print(f"damaged: {error}\npreparing the data again", file=sys.stderr)
            known.unlink()
        else:
            return facts
    prepared = prepare_data(config, load_data(config), centre=centre, devices=partitions)
    note_prepared(run_dir, num_clients=prepared.num_clients, picture=prepared.picture)
    return dict(read_json(known))
