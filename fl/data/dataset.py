"""A data set in memory, and the pair of arrays that examples are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fl.parameters import Array
from fl.signature import Signature


@dataclass(frozen=True)
class Examples:
    """Inputs ``x`` (n, ...) and targets ``y`` (n,) or, for tokens, (n, length). Often read-only views of a file.

    ``x`` is as stored: whoever trains multiplies by ``signature.input_scale`` and casts to ``signature.input_dtype``.
    """

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> Examples:
        """A copy of some rows, in the order given."""
        return Examples(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Dataset:
    """A named data set before it is partitioned.

    x, y             training data, as stored: (n, ...) and (n,), or (n, length) twice for tokens
    client           the natural client of each row, 0 .. n_clients-1 (int64), or None
    client_names     a name a natural client, or empty
    order            a whole number a row by which ``dataset.split_by`` divides: the rank of its time, or its group
    x_test, y_test   the server's held-out test set, or None: then ``prepare`` takes one from the training data
    standardize      whether table columns (and a regression target) are standardised by merged statistics
    missing          "federated": missing values are filled by the model with merged medians; "client": each client
                     fills with its own
    origin, licence  where it came from, in a line each
    """

    name: str
    signature: Signature
    x: Array
    y: Array
    client: Array | None = None
    client_names: tuple[str, ...] = ()
    x_test: Array | None = None
    y_test: Array | None = None
    standardize: bool = True
    missing: str = "federated"
    origin: str = ""
    licence: str = ""
    order: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def is_table(self) -> bool:
        """Whether an example is a row of numbers: the only kind whose values may be missing."""
        return len(self.signature.input_shape) == 1 and self.signature.task != "next_token"


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over every array of a data set, with names, dtypes and shapes: equal data, equal fingerprint."""
    arrays = {name: getattr(dataset, name) for name in ("x", "y", "client", "x_test", "y_test", "order")}
    return sha256_arrays((name, value) for name, value in arrays.items() if value is not None)


def sha256_arrays(arrays: Iterable[tuple[str, Array]]) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes, in the order given."""
    digest = hashlib.sha256()
    for name, value in arrays:
        little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode())
        digest.update(little.data if little.size else b"")
    return digest.hexdigest()
