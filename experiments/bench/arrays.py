"""The arrays that every system of the bench gets: made-up examples that can be learnt, and initial parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.drivers.record import NOTHING
from experiments.bench.workloads import Workload
from fl.parameters import Array
from fl.seeds import generator

CLASSES, SIDE = 10, 28
SIDE_OF_NOTHING = 2
"""Images so small that the model of a client that does nothing has 50 parameters."""

VOCABULARY, LENGTH = 80, 80
TEST_EXAMPLES = 200
FLIPPED = 0.2
"""Share of the labels that are random, so that no model brings the loss to nothing."""


def write_data(workload: Workload, path: Path) -> None:
    """x, y, client (ascending), x_test and y_test as .npz: images of ten kinds, or text that follows a few habits."""
    draw = generator(workload.seed, purpose="bench/data")
    rows = workload.clients * workload.examples + TEST_EXAMPLES
    x, y = _text(draw, rows) if workload.model == "lstm" else _images(draw, rows, _side(workload))
    n = len(x) - TEST_EXAMPLES
    client = np.repeat(np.arange(workload.clients), workload.examples)
    np.savez(path, x=x[:n], y=y[:n], client=client, x_test=x[n:], y_test=y[n:])


def write_start(path: Path, start: dict[str, Array]) -> None:
    """The initial parameters, in model order, as .npz."""
    np.savez(path, **start)  # type: ignore[arg-type]


def start_of(workload: Workload) -> dict[str, Array]:
    """Version 0 of `fl simulate server=random` with the workload's model and seed."""
    from fl.models.arrays import parameters_of

    return {name: value.copy() for name, value in parameters_of(module_of(workload)).items()}


def our_model(workload: Workload) -> str:
    """The choice of the group ``model``: a client of ours that does nothing takes a step of softmax regression."""
    return "softmax" if workload.model == NOTHING else workload.model


def module_of(workload: Workload) -> Any:
    """The workload's model as our own builders make it."""
    from fl.models.build import build_model

    target = f"fl.models.{our_model(workload)}.build"
    return build_model(target=target, arguments={}, signature=signature_of(workload), seed=workload.seed)


def signature_of(workload: Workload) -> Any:
    """What the examples of ``write_data`` look like."""
    from fl.signature import Signature

    if workload.model == "lstm":
        return Signature("next_token", (LENGTH,), "int64", VOCABULARY)
    return Signature("classification", (1, _side(workload), _side(workload)), "float32", CLASSES)


def _side(workload: Workload) -> int:
    return SIDE_OF_NOTHING if workload.model == NOTHING else SIDE


def train_loss(workload: Workload, data: Path, parameters: dict[str, Array]) -> float:
    """Mean loss of the model over every client's examples."""
    from fl.metrics import values
    from fl.models.arrays import load_parameters
    from fl.models.evaluate import evaluate

    module = module_of(workload)
    load_parameters(module, parameters)
    with np.load(data) as held:
        return float(values(evaluate(module, held["x"], held["y"], signature_of(workload)))["loss"])


def _images(draw: np.random.Generator, n: int, side: int) -> tuple[Array, Array]:
    """Noisy copies of ten patterns, (n, 1, side, side) in 0 .. 1; a share of the labels is drawn anew."""
    patterns = draw.random((CLASSES, 1, side, side), dtype=np.float32)
    y = draw.integers(CLASSES, size=n)
    y[0] = CLASSES - 1  # who counts classes by the largest finds them all, however few examples there are
    x = (patterns[y] + draw.random((n, 1, side, side), dtype=np.float32)) / 2
    flipped = draw.random(n) < FLIPPED
    flipped[0] = False
    return x, np.where(flipped, draw.integers(CLASSES, size=n), y)


def _text(draw: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Windows (n, 80) of a chain in which a character has one usual successor; y is x, one further."""
    usual = draw.permutation(VOCABULARY)
    text = np.empty((n, LENGTH + 1), np.int64)
    text[:, 0] = draw.integers(VOCABULARY, size=n)
    text[0, 0] = VOCABULARY - 1
    strays = np.where(draw.random((n, LENGTH)) < FLIPPED, draw.integers(VOCABULARY, size=(n, LENGTH)), -1)
    for t in range(LENGTH):
        text[:, t + 1] = np.where(strays[:, t] >= 0, strays[:, t], usual[text[:, t]])
    return text[:, :-1].copy(), text[:, 1:].copy()
