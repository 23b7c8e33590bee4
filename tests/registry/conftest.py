from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.parameters import Parameters
from fl.registry import Registry, Version

Grow = Callable[..., list[Version]]


def model(value: float) -> Parameters:
    """Three arrays, in an order that is not the alphabet's, all filled with one value."""
    return {
        "w": np.full((3, 2), value, np.float32),
        "b": np.full(2, value, np.float64),
        "a.count": np.full(1, int(value), np.int64),
    }


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def parameters() -> Callable[[float], Parameters]:
    return model


@pytest.fixture
def grow(registry: Registry) -> Grow:
    """Commit one version for each accuracy, from round 0; the parameters of a round hold its number."""

    def grow(run_id: str, *accuracies: float | None, **fields: Any) -> list[Version]:
        made = []
        for round, accuracy in enumerate(accuracies):
            metrics = {} if accuracy is None else {"accuracy": accuracy}
            given = {"run_id": run_id, "round": round, "metrics": metrics, **(fields if round == 0 else {})}
            made.append(registry.commit(model(round), given))
        return made

    return grow
