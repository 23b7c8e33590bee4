"""Which replies a foreign app's strategy may aggregate."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, FedMedian, FedXgbBagging

from clients.flower_internals import begin_run
from fl.foreign.guard import guarded

W = np.zeros((2, 3), np.float32)
WRAPPED = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1, 1, 2)


class Own(FedAvg):
    def aggregate_train(self, server_round, replies):
        return super().aggregate_train(server_round, replies)


@pytest.fixture
def asked():
    begin_run("guard")

    def asked(*replies, weights=10):
        weights = weights if isinstance(weights, tuple) else (weights,) * len(replies)
        content = RecordDict({"arrays": ArrayRecord({"w": array(W)})})
        sent = [Message(content, node, "train") for node in range(2, 2 + len(replies))]
        made = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({name: array(value) for name, value in reply.items()}),
                        "metrics": MetricRecord({"num-examples": weight}),
                    }
                ),
                reply_to=message,
            )
            for message, reply, weight in zip(sent, replies, weights, strict=True)
        ]
        return sent, made

    return asked


def array(value):
    return ArrayRecord([value])["0"]


def refused(strategy, sent, made):
    return [reply.error.reason if reply.has_error() else "" for reply in guarded(strategy, sent, made)]


@pytest.mark.parametrize(
    "strategy", [FedAvg(), FedMedian(), DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1, 1, 2)]
)
@pytest.mark.parametrize(
    "reply, why",
    [
        ({"w": W}, ""),
        ({"w": W.astype(np.float64)}, ""),
        ({"w": W.astype(np.int8)}, ""),
        ({"w": np.full_like(W, np.inf)}, "refused: array 'w' holds a NaN or an infinity"),
        ({"w": W.T}, "refused: array 'w' has the shape (3, 2), not (2, 3)"),
        ({"w": W, "v": W}, "refused: array 'v' was not asked for"),
        ({"v": W}, "refused: array 'w' is missing"),
    ],
)
def test_what_flowers_strategies_may_add_up(asked, strategy, reply, why):
    assert refused(strategy, *asked({"w": W}, reply)) == ["", why]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 2**50, [1.0]])
def test_weights_that_are_none(asked, weight):
    assert all("num-examples" in why for why in refused(FedAvg(), *asked({"w": W}, weights=weight)))


@pytest.mark.parametrize("strategy", [FedAvg(), FedMedian()])
def test_a_client_without_examples_counts_as_it_does_with_flower(asked, strategy):
    """It weighs nothing in a mean, but a median is of it too. Of nobody's examples there is no mean."""
    assert refused(strategy, *asked({"w": W}, {"w": W + 1}, weights=(0, 3))) == ["", ""]
    why = "refused: num-examples is 0, as in every reply that could be taken"
    assert refused(strategy, *asked({"w": W}, {"w": W}, weights=(0, 0))) == [why, why]
    _, second = refused(strategy, *asked({"w": W}, {"v": W}, weights=(0, 3)))
    assert "array 'w' is missing" in second


def test_an_app_that_aggregates_its_own_way_may_agree_on_other_arrays(asked):
    part = {"head": np.ones(2)}
    assert refused(Own(), *asked(part, part, part)) == ["", "", ""]
    assert refused(Own(), *asked(part, {"head": np.ones(3)}, part))[1].endswith("has the shape (3,), not (2,)")
    assert "NaN" in refused(Own(), *asked({"head": np.full(2, np.nan)}, part))[0]


def test_trees_may_grow(asked):
    assert refused(FedXgbBagging(), *asked({"0": np.zeros(7, np.uint8)}, {"0": np.zeros(9, np.uint8)})) == ["", ""]


def test_an_error_stays_what_it_was(asked):
    from flwr.app import Error

    sent, _ = asked({"w": W})
    error = Message(Error(2, "no"), reply_to=sent[0])
    assert refused(FedAvg(), sent, [error]) == ["no"]
