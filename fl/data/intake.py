"""A data set as it was taken in: its arrays and what is known of them, in a folder that knows its own files.

intake.json      everything of the data set but its arrays, and the hash of each file
x.npy y.npy ...  the arrays as they were read; written once, then never changed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fl.data.dataset import Dataset
from fl.errors import CorruptFile
from fl.files import FILES, check_files, read_json, save_arrays, storing, write_json
from fl.signature import Signature

_ARRAYS = ("x", "y", "client", "x_test", "y_test", "order")
_WORDS = ("name", "standardize", "missing", "origin", "licence")


def write_intake(folder: Path, dataset: Dataset) -> None:
    """Write a data set that has not been partitioned; ``intake.json`` last."""
    arrays = {name: value for name in _ARRAYS if (value := getattr(dataset, name)) is not None}
    with storing(folder, site="intake"):
        folder.mkdir(parents=True, exist_ok=True)
        hashes = save_arrays(folder, arrays)
    about: dict[str, Any] = {word: getattr(dataset, word) for word in _WORDS}
    about |= {"signature": dataset.signature.to_dict(), "client_names": list(dataset.client_names), FILES: hashes}
    write_json(folder / "intake.json", about, site="intake.about")


def read_intake(folder: Path) -> Dataset:
    """The data set that ``write_intake`` wrote, to the bit. Raises CorruptFile where a file is not what was written."""
    path = folder / "intake.json"
    if not path.is_file():
        raise CorruptFile(path=str(path), why="the file is missing")
    about = read_json(path)
    check_files(folder, about[FILES])
    arrays = {name.removesuffix(".npy"): np.load(folder / name, allow_pickle=False) for name in about[FILES]}
    return Dataset(
        signature=Signature.from_dict(about["signature"]),
        client_names=tuple(about["client_names"]),
        **{word: about[word] for word in _WORDS},
        **arrays,
    )


def schema(dataset: Dataset) -> list[dict[str, Any]]:
    """The columns of a table, in order: name, dtype, and how many values are missing; of anything else, one entry."""
    x = dataset.x
    if not dataset.is_table:
        return [{"name": "x", "dtype": x.dtype.name, "shape": list(x.shape[1:]), "missing": 0}]
    names = dataset.signature.feature_names or tuple(f"column {c}" for c in range(x.shape[1]))
    gaps = np.isnan(x).sum(axis=0) if x.dtype.kind == "f" else np.zeros(x.shape[1], int)
    return [{"name": n, "dtype": x.dtype.name, "missing": int(m)} for n, m in zip(names, gaps, strict=True)]
