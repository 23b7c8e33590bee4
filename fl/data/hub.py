"""Data sets of the Hugging Face Hub, through Flower Datasets (the extra ``hub``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.errors import BadInput, MissingExtra
from fl.parameters import Array


def hub(
    *,
    path: str | None,
    label: str | None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    subset: str | None = None,
    task: str = "auto",
) -> Dataset:
    """Load ``path``, a Hub name such as ``ylecun/mnist`` or a local folder of Parquet files, with ``FederatedDataset``.

    The splits ``train`` and, where there is one, ``test`` are read whole, in their own order: Meadow partitions them.
    Columns that are one number a row are stacked into a table; a single other column (pictures, arrays) is x itself.
    """
    if not path:
        raise BadInput(
            key="dataset.path", got=path, allowed="the name of a data set on the Hub, or a local folder of it"
        )
    try:
        from flwr_datasets import FederatedDataset
    except ImportError as error:
        raise MissingExtra(key="dataset", package="flwr-datasets", extra="hub") from error
    federated = FederatedDataset(dataset=path, subset=subset, partitioners={"train": 1}, shuffle=False)
    try:
        train = federated.load_split("train")
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(
            key="dataset.path", got=f"{path}, which cannot be loaded ({why})", allowed="a data set with a split 'train'"
        ) from error
    try:
        test = federated.load_split("test")
    except ValueError:
        test = None
    columns = list(train.column_names)
    for key, column in (("dataset.label", label), ("dataset.client", client)):
        if column not in columns and (column is not None or key == "dataset.label"):
            raise BadInput(key=key, got=column, allowed=f"a column of {path}: {', '.join(columns)}")
    inputs = list(features) if features is not None else [c for c in columns if c not in (label, client)]
    unknown = [c for c in inputs if c not in columns]
    if unknown or not inputs:
        raise BadInput(
            key="dataset.features", got=unknown or "no column", allowed=f"columns of {path}: {', '.join(columns)}"
        )
    class_names = tuple(getattr(train.features[label], "names", None) or ())
    y = np.asarray(train.with_format("numpy")[label][:])
    if y.dtype.kind in "UO":
        class_names = tuple(str(c) for c in np.unique(y.astype(str)))
    arrays: dict[str, Any] = {"x": _inputs(train, inputs, path), "y": _classes(y, class_names)}
    client_names: tuple[str, ...] = ()
    if client is not None:
        names, arrays["client"] = np.unique(np.asarray(train.with_format("numpy")[client][:]), return_inverse=True)
        client_names = tuple(str(n) for n in names)
    if test is not None:
        arrays["x_test"] = _inputs(test, inputs, path)
        arrays["y_test"] = _classes(np.asarray(test.with_format("numpy")[label][:]), class_names)
    return from_arrays(
        arrays, name="hub", source=path, task=task, class_names=class_names, client_names=client_names,
        feature_names=inputs if len(inputs) > 1 else (), origin=f"Hugging Face Hub: {path}",
        licence=str(train.info.license or ""),
    )  # fmt: skip


def _inputs(split: Any, columns: Sequence[str], path: str) -> Array:
    """(n, columns) for numbers; the column itself for one column of arrays."""
    values = []
    for column in columns:
        items = list(split.with_format("numpy")[column][:])
        shapes = {np.shape(item) for item in items}
        value = np.stack(items) if len(shapes) == 1 else np.array([None])
        if value.dtype.kind not in "biuf" or (value.ndim > 1 and len(columns) > 1):
            got = f"column {column!r} with values of shapes {sorted(shapes)[:3]} and type {split.features[column]}"
            among = ", ".join(split.column_names)
            allowed = f"numbers, or one column of equal arrays; choose with dataset.features=[...] among {among}"
            raise BadInput(key="dataset.features", got=got, allowed=allowed)
        # The numpy format widens bytes; pictures kept as arrays are bytes again, so that they are scaled as pictures.
        values.append(value.astype(np.uint8) if getattr(split.features[column], "dtype", "") == "uint8" else value)
    if len(values) > 1 or values[0].ndim == 1:
        return np.stack(values, axis=1)
    only = values[0]
    # Pictures in colour come with the channel last; models take it first.
    return np.ascontiguousarray(only.transpose(0, 3, 1, 2)) if only.ndim == 4 and only.shape[3] in (3, 4) else only


def _classes(y: Array, names: Sequence[str]) -> Array:
    """Strings as positions among ``names``; numbers as they are."""
    if y.dtype.kind not in "UO":
        return y
    position = {name: i for i, name in enumerate(names)}
    unknown = sorted({str(v) for v in y} - set(names))
    if unknown:
        raise BadInput(
            key="dataset.label", got=f"{unknown[0]!r} in the test split", allowed="a label of the training split"
        )
    return np.array([position[str(v)] for v in y], dtype=np.int64)
