"""Flower's own strategies, built from plain values: whichever ``strategy=NAME`` names, unmodified."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    QFedAvg,
    Strategy,
)

from fl import wire
from fl.errors import BadInput
from fl.foreign import means
from server.objections import Needs, no_longer


def build_stock(
    values: Mapping[str, Any], *, num_clients: int, cohort_size: int, learning_rate: float, evaluate: bool
) -> Strategy:
    """The strategy class ``values["_target_"]`` with the other values, and with what follows from the cohort.

    A value that is itself a mapping with ``_target_`` is built first: the differential privacy wrappers take the
    strategy they wrap. Raises BadInput naming the option that does not fit.
    """
    means.installed()
    options = dict(values)
    target = str(options.pop("_target_"))
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(key="strategy._target_", got=target, allowed=f"a Flower strategy ({error})") from error
    inner = {
        key: build_stock(
            value, num_clients=num_clients, cohort_size=cohort_size, learning_rate=learning_rate, evaluate=evaluate
        )
        for key, value in options.items()
        if isinstance(value, Mapping) and "_target_" in value
    }
    follows = {
        "fraction_train": cohort_size / num_clients,
        "fraction_evaluate": cohort_size / num_clients if evaluate else 0.0,
        "min_train_nodes": cohort_size,
        "min_evaluate_nodes": cohort_size if evaluate else 0,
        "min_available_nodes": cohort_size,
        "num_sampled_clients": cohort_size,
        "client_learning_rate": learning_rate,
    }
    takes = _parameters(kind)
    given = {**{key: v for key, v in follows.items() if key in takes}, **options, **inner}
    try:
        strategy = kind(**given)
    except (TypeError, ValueError) as error:
        allowed = f"the options of {name} ({error})"
        raise BadInput(
            key="strategy", got=", ".join(f"{k}={v}" for k, v in options.items()), allowed=allowed
        ) from error
    if not isinstance(strategy, Strategy):
        raise BadInput(key="strategy._target_", got=target, allowed="a class derived from Flower's Strategy")
    return strategy


def needs_of(strategy: Strategy) -> Needs:
    """What ``strategy``, or the one that it wraps, computes with beside arrays; of our own that is nothing by name."""
    divides = False
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        clips = DifferentialPrivacyServerSideFixedClipping | DifferentialPrivacyServerSideAdaptiveClipping
        divides, strategy = divides or isinstance(strategy, clips), inner
    loss, length = None, no_longer
    if isinstance(strategy, QFedAvg):
        loss, power, steepness = strategy.train_loss_key, strategy.q, 1.0 / strategy.client_learning_rate

        def length(norm: float, loss: float) -> float:  # its delta_k, and before that the gradient it squares
            return float(norm * steepness * max(1.0, (loss + 1e-10) ** power))

    return Needs(str(getattr(strategy, "weighted_by_key", wire.NUM_EXAMPLES)), loss, length, divides)


def _parameters(kind: type) -> set[str]:
    """Names its constructor takes, those passed on to base classes by ``**kwargs`` included."""
    names: set[str] = set()
    for base in inspect.getmro(kind):
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names
