"""`fl replay`: a round of a finished or stopped run, trained again and compared with the version that it became."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import engine as engines
from experiments.config_file import CONFIG, read_config
from experiments.run_folder import RUN, only_writer
from fl.errors import BadInput
from fl.files import read_json


def replay(run_dir: Path, *, round: int, engine: str | None, as_json: bool) -> int:
    """Print each round that was trained again. Returns the exit status: 1 if one differs.

    Raises CorruptFile for what is damaged of the data and states that it trains from.
    """
    if not (run_dir / CONFIG).is_file() or not (run_dir / RUN).is_file():
        raise BadInput(key="RUN_DIR", got=str(run_dir), allowed="the folder of a run of `fl simulate` that has begun")
    run_dir = run_dir.resolve()
    with only_writer(run_dir, key="RUN_DIR"), tempfile.TemporaryDirectory(prefix="meadow-replay-") as folder:
        rows = _rounds(read_config(run_dir), run_dir, Path(folder), round=round, engine=engine)
    same = all(row["array"] is None for row in rows)
    if as_json:
        print(json.dumps({"same": same, "rounds": rows}))
    else:
        for row in rows:
            what = "the same bits" if row["array"] is None else f"differs, first in {row['array']}: {row['got'][:12]}"
            print(f"round {row['round']}  {row['expected'][:12]}  {what}")
    return 0 if same else 1


def _rounds(
    config: Mapping[str, Any], run_dir: Path, folder: Path, *, round: int, engine: str | None
) -> list[dict[str, Any]]:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from clients.flower_internals import begin_run, server_context
    from clients.setting import open_setting
    from fl.arrays_file import read_arrays
    from fl.cohorts import check_cohort_size
    from fl.data.centre import open_centre, verify_centre
    from fl.data.store import verify_store
    from fl.registry import Registry
    from server.history import quarantined
    from server.replay import first_round
    from server.replay import replay as again

    run_id, registry = str(read_json(run_dir / RUN)["run_id"]), Registry(config["registry_dir"])
    partitions, states = run_dir / "devices" / "partitions", folder / "states"
    verify_centre(run_dir / "centre")  # what is damaged is named, rather than found to train to other bits
    verify_store(partitions)
    centre = open_centre(run_dir / "centre")
    values = {**config, "num_clients": centre.num_clients}
    values["cohort_size"] = check_cohort_size(config.get("cohort_size"), centre.num_clients)
    if (run_dir / "devices" / "states").is_dir():
        shutil.copytree(run_dir / "devices" / "states", states)
    setting = open_setting(values, partitions=partitions, states=states, signature=centre.signature)
    keeps = setting.algorithm.keeps_client_state or setting.sends == "personal"
    versions = {version.round: version for version in registry.versions(run_id)}
    start = first_round(versions, round, run_dir, keeps_client_state=keeps) if round in versions else 0
    for store in (setting.states, setting.personal):
        if store is not None:
            store.drop_from(start + 1)
    for path in sorted((run_dir / "devices" / "states").rglob("*.safetensors")):
        if int(path.stem) <= start:
            read_arrays(path)
    if start < round - 1:
        print(f"states of round {round - 1} are gone: beginning after round {start}", file=sys.stderr)
    chosen = engines.choose(
        {**config["engine"], **({"name": engine} if engine else {})},
        setting,
        num_rounds=round - start,
        cohort_size=values["cohort_size"],
        deadline=config["server"].get("deadline_seconds") is not None,
    )
    away = quarantined([version for number, version in versions.items() if number <= start + 1])
    with engines.open_grid(
        chosen, setting, values, run_id=run_id, partitions=partitions, states=states, quarantined=away
    ) as grid:
        server_context(begin_run(run_id), {})
        replayed = again(
            grid,
            values,
            centre=centre,
            registry=registry,
            run_id=run_id,
            run_dir=run_dir,
            round=round,
            keeps_client_state=keeps,
        )
        return [vars(one) for one in replayed]
