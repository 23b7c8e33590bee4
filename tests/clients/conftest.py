"""Devices with small private partitions, and what a server would ask of them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.setting import Setting, open_setting
from fl.parameters import Parameters

SMALL = ("dataset=synthetic", "dataset.clients=6", "dataset.dimension=8", "dataset.classes=3", "cohort_size=4")


@pytest.fixture(scope="session")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The settings of a small run, and its prepared partitions: six clients, three classes."""
    from experiments.compose import compose
    from experiments.prepare import load_data, prepare_data

    folder = tmp_path_factory.mktemp("devices")
    settings = compose([*SMALL, f"run_dir={folder / 'run'}"])
    prepare_data(settings, load_data(settings), centre=folder / "centre", devices=folder / "partitions")
    return settings, folder / "partitions"


@pytest.fixture
def devices(partitions: tuple[dict[str, Any], Path], tmp_path: Path) -> Callable[..., Setting]:
    """The side of the devices, as ``client`` and other sections of the settings say; their stores are empty."""

    def devices(*, algorithm: str = "fedavg", **client: Any) -> Setting:
        settings = copy.deepcopy(partitions[0])
        settings["client"] |= client
        settings["algorithm"] = {"_target_": f"fl.algorithms.{algorithm}.build"}
        return open_setting(settings, partitions=partitions[1], states=tmp_path / "states")

    return devices


@pytest.fixture
def start(devices: Callable[..., Setting]) -> Parameters:
    """A global model."""
    return {name: value.copy() for name, value in devices().model.items()}
