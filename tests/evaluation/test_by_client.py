"""Client by client: worked out by hand, and how far the figure would move with other clients."""

import numpy as np
import pytest

from fl.evaluation.by_client import by_client
from fl.evaluation.intervals import Figure, intervals


def row(client: int, examples: int, **metrics: float) -> dict:
    return {"client": client, "num_examples": examples, "global": metrics}


TOLD = {"seed": 1, "resamples": 500, "confidence": 0.95}


def test_the_worst_the_spread_and_the_whole():
    found = by_client([row(0, 10, accuracy=0.9, loss=0.3), row(4, 30, accuracy=0.5, loss=0.7)], asked=5, **TOLD)
    assert (found["asked"], found["count"], found["examples"]) == (5, 2, 40)
    assert found["worst"] == {"client": 4, "metric": "accuracy", "value": 0.5, "examples": 30}
    assert found["pooled"]["accuracy"]["value"] == pytest.approx(0.6)  # by examples, not a mean of means
    assert found["metrics"]["loss"] == pytest.approx({"min": 0.3, "p10": 0.34, "median": 0.5, "p90": 0.66, "max": 0.7})


def test_a_regression_goes_by_r2_where_a_client_has_one():
    found = by_client([row(0, 9, mae=1.0, r2=0.4), row(1, 9, mae=9.0), row(2, 9, mae=2.0, r2=-1.0)], asked=3, **TOLD)
    assert found["worst"]["client"] == 2 and found["worst"]["metric"] == "r2"
    assert found["pooled"]["mae"]["value"] == pytest.approx(4.0)


def test_nobody_answered():
    assert by_client([], asked=7, **TOLD) == {"absent": "no client has a test part: dataset.test_fraction"}


def test_other_clients_move_a_figure_more_than_other_examples_do():
    random = np.random.default_rng(1)
    rates = random.uniform(0.3, 1.0, 30)
    right = random.random((30, 100)) < rates[:, None]
    clients = by_client([row(c, 100, accuracy=float(right[c].mean())) for c in range(30)], asked=30, **TOLD)
    pooled = clients["pooled"]["accuracy"]
    examples = intervals({"": Figure.mean(right.ravel().astype(float))}, **TOLD)[""]
    assert pooled["value"] == pytest.approx(examples.value)
    assert pooled["high"] - pooled["low"] > 2 * (examples.high - examples.low)
