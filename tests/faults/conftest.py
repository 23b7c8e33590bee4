"""Runs whose data are prepared and that have not begun, and devices whose data have gone bad."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.run import simulate

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def prepared(settings: Settings) -> Callable[..., Path]:
    """A run's folder as it is when its data have been written and nothing else has happened; ``resume`` begins it."""

    def prepared(*overrides: str, name: str = "prepared") -> Path:
        once = settings(*overrides, "num_rounds=1", name=f"{name}-once")
        config = settings(*overrides, name=name)
        simulate(once)
        done, run_dir = Path(once["run_dir"]), Path(config["run_dir"])
        for part in ("centre", "devices/partitions"):
            shutil.copytree(done / part, run_dir / part)
        shutil.copy(done / "devices" / "prepared.json", run_dir / "devices")
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
        return run_dir

    return prepared


@pytest.fixture
def poison() -> Callable[[Path, Iterable[int]], None]:
    """Make every number that some clients of a prepared run hold a NaN."""

    def poison(run_dir: Path, clients: Iterable[int]) -> None:
        folder = run_dir / "devices" / "partitions"
        x, offsets = np.load(folder / "x.npy", mmap_mode="r+"), np.load(folder / "offsets.npy")
        for client in clients:
            x[offsets[client] : offsets[client + 1]] = np.nan
        x.flush()

    return poison
