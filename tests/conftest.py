"""What every test starts from: nothing calls home, and nothing is written outside temporary folders.

Set here as well as in the Makefile, since tests are also started by hand; Flower reads some of it when it is imported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

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
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update(QUIET)
FLOWER_HOME = tempfile.mkdtemp(prefix="meadow-flwr-")
os.environ["FLWR_HOME"] = FLOWER_HOME


def pytest_unconfigure() -> None:
    shutil.rmtree(FLOWER_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the sources."""
    return Path(__file__).resolve().parent.parent
