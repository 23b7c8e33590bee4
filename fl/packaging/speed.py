"""How long a reader takes: from the file to its first answer, and for a row more."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from fl.packaging.predict import Predict
from fl.parameters import Array

LONG_ENOUGH_SECONDS = 0.3
LARGEST_BYTES = 2**26
"""Rows are asked about again and again, up to so many, until they take long enough to be told from the start."""


def measure(read: Callable[[], Predict], inputs: Array) -> tuple[float, float]:
    """Seconds from ``read`` to the first answer, with all that the reader starts; seconds a row of many.

    ``inputs`` (N, ...) are as the model takes them. A reader that is a program of its own is started for every call:
    that is in the first number, and subtracted from the second; CSV in and out stays in.
    """
    begun = time.perf_counter()
    predict = read()
    predict(inputs[:1])
    load = time.perf_counter() - begun
    one = min(_seconds(predict, inputs[:1]) for _ in range(2))
    batch = inputs
    while (many := _seconds(predict, batch) - one) < LONG_ENOUGH_SECONDS and batch.nbytes <= LARGEST_BYTES / 4:
        batch = np.concatenate([batch] * 4)
    return load, max(0.0, many) / max(1, len(batch) - 1)


def _seconds(predict: Predict, batch: Array) -> float:
    begun = time.perf_counter()
    predict(batch)
    return time.perf_counter() - begun
