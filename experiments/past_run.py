"""A run that is over, or stopped, opened again: its settings, its data and its devices, for commands that look back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import engine as engines
from experiments.config_file import CONFIG, read_config
from experiments.prepare import counted
from experiments.run_folder import RUN
from fl.errors import BadInput
from fl.files import read_json

if TYPE_CHECKING:
    from clients.grid import UnitGrid
    from clients.setting import Setting
    from fl.data.centre import Centre
    from fl.registry import Registry, Version


@dataclass(frozen=True)
class PastRun:
    """What a run was made of. ``values`` are its settings with the numbers of clients as they came out."""

    run_dir: Path
    run_id: str
    values: Mapping[str, Any]
    centre: Centre
    registry: Registry
    setting: Setting
    partitions: Path
    states: Path

    @contextmanager
    def grid(
        self, *, engine: str | None, num_rounds: int, asked: int, quarantined: Mapping[int, str]
    ) -> Iterator[UnitGrid]:
        """The run's clients on ``engine``, None: the run's own, for some ``num_rounds`` of ``asked`` clients each."""
        from clients.flower_internals import begin_run, server_context

        chosen = engines.choose(
            {**self.values["engine"], **({"name": engine} if engine else {})},
            self.setting,
            num_rounds=num_rounds,
            cohort_size=asked,
            deadline=self.values["server"].get("deadline_seconds") is not None,
        )
        with engines.open_grid(
            chosen,
            self.setting,
            self.values,
            run_id=self.run_id,
            partitions=self.partitions,
            states=self.states,
            quarantined=quarantined,
        ) as grid:
            server_context(begin_run(self.run_id), {})
            yield grid


def check_begun(run_dir: Path, *, key: str = "RUN_DIR") -> Path:
    """The absolute folder of a run of `fl simulate` that has begun; BadInput by ``key`` if it is none."""
    if not (run_dir / CONFIG).is_file() or not (run_dir / RUN).is_file():
        raise BadInput(key=key, got=str(run_dir), allowed="the folder of a run of `fl simulate` that has begun")
    return run_dir.resolve()


def data_run(registry: Registry, version: Version) -> str:
    """The id of the run whose data a version was made and is measured with: its own, or that of what it was made of."""
    return str(registry.run(version.run_id).get("data_of") or version.run_id)


def run_folder(registry: Registry, version: Version) -> Path:
    """The folder of that run, which may be gone."""
    return Path(str(registry.run(data_run(registry, version)).get("run_dir", "")))


def open_past_run(run_dir: Path, *, states: Path, model: Mapping[str, Any] | None = None) -> PastRun:
    """The run in ``run_dir``, whose devices keep what they keep in ``states``.

    model   a manifest's ``model``, of a version whose model is another than the run's; devices then measure it

    Raises CorruptFile for what is damaged of its data: it is named, rather than found to train to other bits.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from clients.setting import open_setting
    from fl.data.centre import open_centre
    from fl.data.store import verify_store
    from fl.registry import Registry

    config, partitions = read_config(run_dir), run_dir / "devices" / "partitions"
    centre = open_centre(run_dir / "centre")
    verify_store(partitions)
    values = counted(config, centre.num_clients)
    if model is not None:
        target = {"_target_": model["target"], **model["arguments"]}
        values = {**values, "model": target, "client": {**values["client"], "path": "auto", "frozen": []}}
    return PastRun(
        run_dir=run_dir,
        run_id=str(read_json(run_dir / RUN)["run_id"]),
        values=values,
        centre=centre,
        registry=Registry(config["registry_dir"]),
        setting=open_setting(values, partitions=partitions, states=states, signature=centre.signature),
        partitions=partitions,
        states=states,
    )
