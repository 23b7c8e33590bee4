"""How far a quick model comes, from sums over clients: nobody shows a row, and nothing is trained.

    classification   least squares on the classes as 0 and 1; probabilities are its answers, clipped and scaled
    regression       least squares
    next_token       how often a token follows another

Every number is a sum over clients of what one client computes: values and gaps a column; squared distances to the
merged mean; products of columns with each other and with the target; counts of pairs of tokens. The server's test set
is in none of them, and what is measured is measured on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from fl.data.dataset import Dataset, Examples
from fl.parameters import Array
from fl.seeds import generator

MOST_ROWS = 20_000
ROWS_WITHOUT_CLIENT = 1_000
_RIDGE = 1e-3
_LEAST = 1e-3


@dataclass(frozen=True)
class Baseline:
    """``trivial``: metrics of an answer that looks at no input; ``model``: of the quick model. ``rows`` it rests on."""

    trivial: dict[str, float]
    model: dict[str, float]
    rows: int
    test_examples: int


def baseline(dataset: Dataset, rows: Array, test: Examples, *, seed: int, most_rows: int = MOST_ROWS) -> Baseline:
    """Fit on ``rows`` of the data, or a part of them drawn by ``seed``, client by client; measure on ``test``."""
    if len(rows) > most_rows:
        drawn = generator(seed, purpose="baseline").choice(len(rows), size=most_rows, replace=False)
        rows = rows[np.sort(drawn)]
    parts = [Examples(dataset.x[part], dataset.y[part]) for part in _by_client(dataset, rows)]
    task = dataset.signature.task
    measure = _tokens if task == "next_token" else _table
    trivial, model = measure(parts, test, dataset.signature.num_outputs, task == "classification")
    return Baseline(trivial, model, len(rows), len(test))


def _by_client(dataset: Dataset, rows: Array) -> Iterator[Array]:
    """Rows of one client after the other; where the data name none, of as many at a time as a client may have."""
    if dataset.client is None:
        yield from np.array_split(rows, max(1, len(rows) // ROWS_WITHOUT_CLIENT))
        return
    owners = dataset.client[rows]
    for client in np.unique(owners):
        yield rows[owners == client]


def _sum(compute: Callable[[Examples], Array], parts: list[Examples]) -> Array:
    return reduce(add, map(compute, parts))


def _flat(examples: Examples) -> Array:
    return examples.x.reshape(len(examples), -1).astype(np.float64)


def _table(
    parts: list[Examples], test: Examples, num_outputs: int, classes: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Least squares on standardised columns; a gap is the mean, and told by a column of its own."""
    known = _sum(lambda e: np.isfinite(_flat(e)).sum(axis=0), parts)
    mean = _sum(lambda e: np.nan_to_num(_flat(e)).sum(axis=0), parts) / np.maximum(known, 1)
    square = _sum(lambda e: np.square(np.nan_to_num(_flat(e) - mean)).sum(axis=0), parts) / np.maximum(known, 1)
    scale = np.where(square > 0, 1 / np.sqrt(np.where(square > 0, square, 1)), 0)
    total = sum(len(part) for part in parts)
    gaps = np.flatnonzero((known < total) & (known > 0))

    def design(examples: Examples) -> Array:
        x = _flat(examples)
        return np.concatenate([np.nan_to_num((x - mean) * scale), np.isnan(x[:, gaps]), np.ones((len(x), 1))], axis=1)

    def targets(examples: Examples) -> Array:
        return np.eye(num_outputs)[examples.y] if classes else examples.y[:, None].astype(np.float64)

    products = _sum(lambda e: (z := design(e)).T @ np.concatenate([z, targets(e)], axis=1), parts)
    columns = len(products)
    weights = np.linalg.solve(products[:, :columns] + _RIDGE * total * np.eye(columns), products[:, columns:])
    shares = _sum(lambda e: targets(e).sum(axis=0), parts) / total
    answers, nothing = design(test) @ weights, np.tile(shares, (len(test), 1))
    if classes:
        return _classes(nothing, test.y), _classes(answers, test.y)
    spread = _sum(lambda e: np.square(targets(e) - shares).sum(axis=0), parts)[0] / total
    return _numbers(nothing[:, 0], test.y, spread), _numbers(answers[:, 0], test.y, spread)


def _tokens(
    parts: list[Examples], test: Examples, num_outputs: int, classes: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Pairs of tokens, each counted once more than it is seen."""

    def count(examples: Examples) -> Array:
        pairs = examples.x.astype(np.int64).ravel() * num_outputs + examples.y.ravel()
        return np.bincount(pairs, minlength=num_outputs**2)

    pairs = _sum(count, parts).reshape(num_outputs, num_outputs) + 1.0
    alone = pairs.sum(axis=0)
    follow, targets = pairs[test.x.astype(np.int64).ravel()], test.y.ravel()
    found = [_classes(scores, targets) for scores in (np.tile(alone, (len(targets), 1)), follow)]
    trivial, model = ({**metrics, "perplexity": float(np.exp(metrics["loss"]))} for metrics in found)
    return trivial, model


def _classes(scores: Array, targets: Array) -> dict[str, float]:
    chances = np.maximum(scores, _LEAST * scores.max(axis=1, keepdims=True))
    chances = chances / chances.sum(axis=1, keepdims=True)
    right = chances[np.arange(len(targets)), targets]
    return {"accuracy": float((scores.argmax(axis=1) == targets).mean()), "loss": float(-np.log(right).mean())}


def _numbers(answers: Array, targets: Array, spread: float) -> dict[str, float]:
    """``spread`` is the variance of the target where the model was fitted, which is what ``loss`` is measured in."""
    wrong = answers - targets.astype(np.float64)
    mse, variance = float(np.square(wrong).mean()), float(np.var(targets.astype(np.float64)))
    metrics = {"mse": mse, "rmse": mse**0.5, "mae": float(np.abs(wrong).mean())}
    metrics |= {"loss": mse / spread} if spread > 0 else {}
    return metrics | ({"r2": 1 - mse / variance} if variance > 0 else {})
