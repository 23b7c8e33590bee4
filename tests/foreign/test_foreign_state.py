"""A strategy's state: whatever changed is kept, whatever cannot be is left to the app."""

from __future__ import annotations

import pickle

import numpy as np
from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping, FedAvg

from fl.foreign import state


class Own(FedAvg):
    def __init__(self):
        super().__init__()
        self.momentum = None
        self._private = {"norms": [1.0]}
        self._draws = np.random.default_rng(3)
        self.function = lambda x: x


def test_what_changed_is_kept_and_put_back():
    strategy = Own()
    first = state.digests(state.pickled(strategy))
    assert state.changes(state.pickled(strategy), first) == {}
    strategy.momentum = {"w": np.arange(3.0)}
    strategy._private["norms"].append(2.0)
    strategy._draws.random()
    kept = state.changes(state.pickled(strategy), first)
    assert kept.keys() == {"momentum", "_private", "_draws"}
    again = Own()
    state.restore(again, pickle.loads(pickle.dumps(kept)))
    assert again.momentum["w"].tolist() == [0, 1, 2] and again._private == {"norms": [1.0, 2.0]}
    assert again._draws.random() == strategy._draws.random()
    assert again.function(1) == 1


def test_a_strategy_inside_another():
    def wrapped():
        return DifferentialPrivacyServerSideAdaptiveClipping(Own(), 0.1, 20)

    strategy = wrapped()
    first = state.digests(state.pickled(strategy))
    strategy.clipping_norm, strategy.strategy.momentum = 0.25, 4
    again = wrapped()
    state.restore(again, state.changes(state.pickled(strategy), first))
    assert again.clipping_norm == 0.25 and again.strategy.momentum == 4
