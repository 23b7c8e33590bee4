"""Clients that grow trees: what they send, and what may not leave them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.setting import Setting, open_setting
from fl.errors import RefusedUpdate
from fl.messages import Update
from fl.models.xgboost import BYTES, grow, num_trees
from fl.parameters import Parameters

Growers = Callable[..., Setting]


@pytest.fixture
def growers(partitions: tuple[dict[str, Any], Path], tmp_path: Path) -> Growers:
    """Devices with trees of three classes, as a strategy's name and options of the model say."""

    def growers(strategy: str, **model: Any) -> Setting:
        settings = copy.deepcopy(partitions[0])
        settings["model"] = {"_target_": "fl.models.xgboost.build", **model}
        settings["strategy"] = {"_target_": f"flwr.serverapp.strategy.{strategy}"}
        return open_setting(settings, partitions=partitions[1], states=tmp_path / "states")

    return growers


def grown(setting: Setting, rounds: int) -> Parameters:
    part = setting.store.partition(0).train
    module: Any = setting.module
    return grow(module, setting.model, part.x, part.y, rounds=rounds, seed=1)


def update(arrays: Parameters) -> Update:
    return Update(client=4, round=3, base_version=2, delta=arrays, num_examples=5, whole=True)


@pytest.mark.parametrize("strategy, sent", [("FedXgbBagging", 2), ("FedXgbCyclic", 6)])
def test_bagging_sends_the_new_trees_and_cyclic_all(strategy: str, sent: int, growers: Growers) -> None:
    setting = growers(strategy, num_parallel_tree=2)
    start = grown(setting, 2)
    trees: Any = setting.trees
    assert num_trees(start) == 4
    part = setting.store.partition(1).train
    module: Any = setting.module
    end = grow(module, start, part.x, part.y, rounds=1, seed=1)
    assert num_trees(trees.sent(end, module)) == sent
    assert setting.boundary.release(update(trees.sent(end, module)))


def test_too_many_trees_and_too_few_do_not_leave(growers: Growers) -> None:
    bagging, cyclic = growers("FedXgbBagging"), growers("FedXgbCyclic", local_rounds=3)
    with pytest.raises(RefusedUpdate, match=r"client 4.*2 trees, expected 1"):
        bagging.boundary.release(update(grown(bagging, 2)))
    with pytest.raises(RefusedUpdate, match=r"client 4.*2 trees, expected at least 3"):
        cyclic.boundary.release(update(grown(cyclic, 2)))
    assert cyclic.boundary.release(update(grown(cyclic, 4)))


def test_bytes_that_are_no_booster_do_not_leave(growers: Growers) -> None:
    setting = growers("FedXgbBagging")
    private = {BYTES: setting.store.partition(0).train.x.view(np.uint8).reshape(-1)}
    with pytest.raises(RefusedUpdate, match=r"client 4.*holds no booster of XGBoost"):
        setting.boundary.release(update(private))
    with pytest.raises(RefusedUpdate, match=r"client 4.*0 trees, expected 1"):
        setting.boundary.release(update(setting.model))
