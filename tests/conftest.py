"""What every test starts from: nothing calls home, and nothing is written outside temporary folders.

Set here as well as in the Makefile, since tests are also started by hand; Flower reads some of it when it is imported.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # One token for all that this process starts: Ray reads it once.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update(QUIET)
FLOWER_HOME = tempfile.mkdtemp(prefix="meadow-flwr-")
os.environ["FLWR_HOME"] = FLOWER_HOME

# The same examples every time, however busy the machine is.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")


def pytest_unconfigure() -> None:
    shutil.rmtree(FLOWER_HOME, ignore_errors=True)


SMALL = (
    "dataset=synthetic",
    "dataset.clients=6",
    "dataset.dimension=8",
    "dataset.classes=3",
    "engine=inprocess",
    "cohort_size=4",
    "num_rounds=2",
    "client.schedule.name=constant",
    "evaluate_clients_every=1",
    "server.tensorboard=false",
)


@functools.cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    from experiments.compose import compose

    return compose([*SMALL, *overrides])


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Complete settings of a small run in ``tmp_path``/name, from overrides as they are typed. Half a second to run."""
    import matplotlib.figure  # noqa: F401  there already, so that no run starts a process to draw its picture

    def settings(*overrides: str, name: str = "run") -> dict[str, Any]:
        folders = {"run_dir": str(tmp_path / name), "registry_dir": str(tmp_path / "registry")}
        return {**copy.deepcopy(_composed(overrides)), **folders}

    return settings


@pytest.fixture(scope="session")
def told() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl, without the run's own name and what is measured."""

    def told(run_dir: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("version", "seconds")} for line in lines]

    return told


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the sources."""
    return Path(__file__).resolve().parent.parent
