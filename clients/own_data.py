"""A device's own examples, from a file of its user's to the partition store that its ClientApp opens."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fl.data.store import write_store
from fl.errors import BadInput
from fl.files import sha256_file
from fl.parameters import Array
from fl.seeds import generator
from fl.signature import Signature

KEPT_APART = 0.1
"""Share of the examples that the validation part gets, and the test part."""


def take_in(file: Path, folder: Path, *, client: int, num_clients: int, signature: Signature, label: str) -> int:
    """Write the examples of ``file`` as the partition of ``client``, in a store whose other partitions are empty.

    file    .npz with x (N, ...) and y (N,); or .csv with a header: the model's columns, and ``label``

    Returns how many examples there are. Raises BadInput for what is no such file, or does not fit the model.
    """
    if not 0 <= client < num_clients:
        raise BadInput(key="--client", got=client, allowed=f"0 to {num_clients - 1}, with --clients {num_clients}")
    x, y = _arrays(file) if file.suffix == ".npz" else _table(file, signature, label)
    if x.shape[1:] != signature.input_shape or len(x) != len(y) or not len(x):
        got = f"examples of shape {list(x.shape[1:])}, {len(x)} of them, {len(y)} labels"
        raise BadInput(key="--data", got=got, allowed=f"as many of both, examples of {list(signature.input_shape)}")
    if signature.task == "classification" and not ((y >= 0) & (y < signature.num_outputs)).all():
        raise BadInput(key="--data", got="another label", allowed=f"classes from 0, below {signature.num_outputs}")
    apart = int(len(x) * KEPT_APART)
    order = generator(0, purpose="device split", client=client).permutation(len(x))
    parts = np.zeros((num_clients, 3), np.int64)
    parts[client] = (len(x) - 2 * apart, apart, apart)
    write_store(
        folder,
        x=x[order],
        y=y[order],
        parts=parts,
        signature=signature,
        name=file.name,
        fingerprint=sha256_file(file),
    )
    return len(x)


def _arrays(file: Path) -> tuple[Array, Array]:
    try:
        with np.load(file, allow_pickle=False) as found:
            return found["x"], found["y"]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise BadInput(key="--data", got=f"{file} ({error})", allowed="a .npz file with arrays x and y") from error


def _table(file: Path, signature: Signature, label: str) -> tuple[Array, Array]:
    """The rows of a CSV file; an empty cell is a missing value."""
    allowed = f"a .npz file, or a .csv file with the columns {', '.join(signature.input_names)} and {label}"
    if len(signature.input_shape) != 1:
        raise BadInput(key="--data", got=str(file), allowed="a .npz file with arrays x and y: these are no tables")
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        x = [[float(row[name] or "nan") for name in signature.input_names] for row in rows]
        y = [_target(row[label], signature) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput(key="--data", got=f"{file} ({error})", allowed=allowed) from error
    return np.array(x, signature.input_dtype), np.array(y)


def _target(text: str, signature: Signature) -> float | int:
    if signature.task == "regression":
        return float(text)
    return signature.class_names.index(text) if text in signature.class_names else int(text)
