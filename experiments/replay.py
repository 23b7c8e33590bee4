"""`fl replay`: a round of a finished or stopped run, trained again and compared with the version that it became."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.past_run import check_begun, open_past_run
from experiments.run_folder import only_writer


def replay(run_dir: Path, *, round: int, engine: str | None, as_json: bool) -> int:
    """Print each round that was trained again. Returns the exit status: 1 if one differs.

    Raises CorruptFile for what is damaged of the data and states that it trains from.
    """
    run_dir = check_begun(run_dir)
    with only_writer(run_dir, key="RUN_DIR"), tempfile.TemporaryDirectory(prefix="meadow-replay-") as folder:
        rows = _rounds(run_dir, Path(folder), round=round, engine=engine)
    same = all(row["array"] is None for row in rows)
    if as_json:
        print(json.dumps({"same": same, "rounds": rows}))
    else:
        for row in rows:
            what = "the same bits" if row["array"] is None else f"differs, first in {row['array']}: {row['got'][:12]}"
            print(f"round {row['round']}  {row['expected'][:12]}  {what}")
    return 0 if same else 1


def _rounds(run_dir: Path, folder: Path, *, round: int, engine: str | None) -> list[dict[str, Any]]:
    from fl.arrays_file import read_arrays
    from server.history import quarantined
    from server.replay import first_round
    from server.replay import replay as again

    states = folder / "states"
    past = open_past_run(run_dir, states=states)
    if (run_dir / "devices" / "states").is_dir():
        shutil.copytree(run_dir / "devices" / "states", states)
    setting, run_id = past.setting, past.run_id
    keeps = setting.algorithm.keeps_client_state or setting.sends == "personal"
    versions = {version.round: version for version in past.registry.versions(run_id)}
    start = first_round(versions, round, run_dir, keeps_client_state=keeps) if round in versions else 0
    for store in (setting.states, setting.personal):
        if store is not None:
            store.drop_from(start + 1)
    for path in sorted((run_dir / "devices" / "states").rglob("*.safetensors")):
        if int(path.stem) <= start:
            read_arrays(path)
    if start < round - 1:
        print(f"states of round {round - 1} are gone: beginning after round {start}", file=sys.stderr)
    away = quarantined([version for number, version in versions.items() if number <= start + 1])
    asked = past.values["cohort_size"]
    with past.grid(engine=engine, num_rounds=round - start, asked=asked, quarantined=away) as grid:
        replayed = again(
            grid,
            past.values,
            centre=past.centre,
            registry=past.registry,
            run_id=run_id,
            run_dir=run_dir,
            round=round,
            keeps_client_state=keeps,
        )
        return [vars(one) for one in replayed]
