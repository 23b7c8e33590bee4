"""What an algorithm is: a client half and a server half, as plain functions over named arrays.

A round of every algorithm here, in the order in which the functions are called:

    server    shared = broadcast(server_state)
    client    correction_i = correction(shared, state_i, x)      what is added to every local gradient
              y_i = x; for each of K_i local steps: y_i -= lr * (gradient(y_i) + correction_i(y_i))
              state_i, extra_i = client_update(LocalRun)         what the client keeps, what it sends beside y_i - x
    server    x, server_state = server_update(x, server_state, Aggregate)

Arrays named ``x`` here are the trainable ones only; what a model merely tracks (running means of batch
normalisation) is averaged by the strategy and never corrected. To add an algorithm is to write one file with a
``build`` function and one YAML file in conf/algorithm that names it.
"""

from __future__ import annotations

import importlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fl.errors import BadInput
from fl.parameters import Parameters, zeros_like

ServerState: TypeAlias = dict[str, Parameters]
"""What the server keeps between rounds: a letter of the paper -> named arrays."""


@dataclass(frozen=True)
class Correction:
    """What is added to a local gradient at ``y``: ``proximal * (y - x) + constant``.

    FedProx is the first term, SCAFFOLD the second, FedDyn both. Being linear in y, it costs one pass on every
    path that trains. ``constant`` holds arrays of the trainable names, or is empty for zero.
    """

    proximal: float = 0.0
    constant: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class LocalRun:
    """What happened on a client: from ``start`` (x) to ``end`` (y_i) in ``num_steps`` (K_i) steps of ``learning_rate``.

    ``shared`` and ``state`` are those the run began with. ``learning_rate`` is the mean over the steps.
    """

    start: Parameters
    end: Parameters
    num_steps: int
    learning_rate: float
    shared: Parameters
    state: Parameters


@dataclass(frozen=True)
class Aggregate:
    """What came back, added up: never a single client's update.

    delta          weighted mean of y_i - x over those who answered
    extra          plain mean of the extra arrays over those who answered
    num_clients    how many answered;  population  how many there are in all
    """

    delta: Parameters
    extra: Parameters
    num_clients: int
    population: int


def _no_correction(shared: Parameters, state: Parameters, x: Parameters) -> Correction:
    return Correction()


def _keep_nothing(run: LocalRun) -> tuple[Parameters, Parameters]:
    return {}, {}


def _nothing(x: Parameters) -> Parameters:
    return {}


def _no_state(x: Parameters) -> ServerState:
    return {}


def _share_nothing(state: ServerState) -> Parameters:
    return {}


@dataclass(frozen=True)
class Algorithm:
    """The pair of halves from one paper. Only ``server_update`` is needed; the rest does nothing by default.

    init_client   x -> the state of a client that never took part; {} for an algorithm without client state
    extra_like    x -> arrays of the names, shapes and dtypes that ``client_update`` sends: the declaration that the
                  boundary checks every update against
    """

    name: str
    server_update: Callable[[Parameters, ServerState, Aggregate], tuple[Parameters, ServerState]]
    init_server: Callable[[Parameters], ServerState] = _no_state
    broadcast: Callable[[ServerState], Parameters] = _share_nothing
    init_client: Callable[[Parameters], Parameters] = _nothing
    correction: Callable[[Parameters, Parameters, Parameters], Correction] = _no_correction
    client_update: Callable[[LocalRun], tuple[Parameters, Parameters]] = _keep_nothing
    extra_like: Callable[[Parameters], Parameters] = _nothing

    @property
    def keeps_client_state(self) -> bool:
        """Whether a client carries anything from one round to the next."""
        return self.init_client is not _nothing


def same_as_model(x: Parameters) -> Parameters:
    """``extra_like`` or ``init_client`` of an algorithm whose arrays are shaped like the model's: zeros."""
    return zeros_like(x)


def check(
    key: str, value: float, *, above: float | None = None, least: float | None = None, below: float | None = None
) -> float:
    """``value`` as a float, or BadInput naming ``algorithm.key``: finite, > ``above``, >= ``least``, < ``below``."""
    limits = [("above", above, operator.gt), ("at least", least, operator.ge), ("below", below, operator.lt)]
    asked = [(word, limit, holds) for word, limit, holds in limits if limit is not None]
    number: object = value  # YAML may hold anything
    if (
        not isinstance(number, int | float)
        or isinstance(number, bool)
        or not math.isfinite(number)
        or not all(holds(value, limit) for _, limit, holds in asked)
    ):
        allowed = "a number " + " and ".join(f"{word} {limit:g}" for word, limit, _ in asked)
        raise BadInput(key=f"algorithm.{key}", got=repr(value), allowed=allowed)
    return float(value)


def load_algorithm(values: Mapping[str, Any]) -> Algorithm:
    """The algorithm that the function named by ``values["_target_"]`` builds from the other values.

    Raises BadInput naming ``algorithm._target_``, or ``algorithm.<option>`` for one that does not fit.
    """
    options = dict(values)
    target = str(options.pop("_target_", None))
    module, _, name = target.rpartition(".")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        allowed = f"the dotted name of a function that builds an algorithm ({error})"
        raise BadInput(key="algorithm._target_", got=target, allowed=allowed) from error
    algorithm = build(**_checked(options, build, target)) if callable(build) else None
    if not isinstance(algorithm, Algorithm):
        raise BadInput(key="algorithm._target_", got=target, allowed="a function that returns an Algorithm")
    return algorithm


def _checked(options: dict[str, Any], build: Callable[..., Any], target: str) -> dict[str, Any]:
    """``options``, none too many and none too few for ``build``."""
    try:
        parameters = inspect.signature(build).parameters
    except ValueError:  # a builtin that does not say what it takes
        return options
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in options.items():
        if name not in parameters and not takes_any:
            allowed = f"only what {target} takes: {', '.join(sorted(parameters)) or 'no options'}"
            raise BadInput(key=f"algorithm.{name}", got=value, allowed=allowed)
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and name not in options:
            raise BadInput(key=f"algorithm.{name}", got="nothing", allowed=f"a value, because {target} needs one")
    return options
