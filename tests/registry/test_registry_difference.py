import math

import numpy as np
import pytest

from fl.errors import BadInput
from fl.registry import Registry


def test_parameters_metrics_and_config_side_by_side(registry: Registry):
    old = {
        "w": np.array([3.0, 0.0], np.float32),
        "n": np.array([200], np.uint8),
        "gone": np.zeros(2),
        "grown": np.zeros(1),
    }
    new = {
        "w": np.array([3.0, 4.0], np.float32),
        "n": np.array([197], np.uint8),
        "new": np.zeros(3),
        "grown": np.zeros(2),
    }
    registry.commit(
        old,
        {"run_id": "r", "round": 0, "metrics": {"loss": 1.0}, "config": {"client": {"lr": 0.1, "epochs": 1}}},
    )
    registry.commit(
        new,
        {
            "run_id": "r",
            "round": 1,
            "metrics": {"loss": 0.5, "accuracy": 0.9},
            "config": {"client": {"lr": 0.2, "epochs": 1}, "clip": None},
            "dataset": {"name": "mnist"},
            "model": {"arguments": {"hidden": [1, 2]}},
            "code": {"commit": "c", "dirty": False},
        },
    )
    found = registry.diff("r:0", "r:1")
    assert (found.a, found.b, found.same_parameters) == ("r:0", "r:1", False)
    assert found.norms == {"w": 4.0, "n": 3.0}  # 197 - 200 does not wrap
    assert found.norm == 5.0
    assert found.relative == pytest.approx(5 / math.hypot(3, 200), rel=1e-12)
    assert found.reshaped == {"gone": ([2], None), "grown": ([1], [2]), "new": (None, [3])}
    assert found.metrics == {"accuracy": (None, 0.9), "loss": (1.0, 0.5)}
    assert found.config == {"client.lr": (0.1, 0.2)}
    assert found.dataset == {"name": (None, "mnist")}
    assert found.model == {"arguments.hidden": (None, [1, 2])}
    assert found.code["commit"][1] == "c"
    assert found.signature == {}


def test_a_version_does_not_differ_from_itself(registry: Registry):
    registry.commit({"w": np.zeros(2)}, {"run_id": "r", "round": 0})
    found = registry.diff("r:0", "r")
    assert found.same_parameters
    assert (found.norm, found.relative, found.reshaped, found.config) == (0.0, None, {}, {})


def test_pruned_parameters_cannot_be_compared(registry: Registry, grow):
    grow("r", 0.1, 0.2, 0.3)
    registry.prune("r", "last:1")
    with pytest.raises(BadInput, match="r:1, whose parameters were pruned"):
        registry.diff("r:1", "r:2")
