"""What can be said about a data set and its partition in numbers: for ``fl data show`` and for the centre's facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fl.data.arrange import Arranged
from fl.data.centre import Centre
from fl.data.dataset import Dataset
from fl.parameters import Array
from fl.signature import Signature


def describe(centre: Centre) -> dict[str, Any]:
    """Everything the server knows about the data, as plain values."""
    return {
        "name": centre.name,
        **_shape_facts(centre.signature),
        "fingerprint": centre.fingerprint,
        "num_clients": centre.num_clients,
        "public_examples": len(centre.public),
        "server_test_examples": len(centre.test),
        **centre.facts,
        "picture": None if centre.picture is None else str(centre.picture),
    }


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """The same for a data set that has not been partitioned."""
    return {
        "name": dataset.name,
        **_shape_facts(dataset.signature),
        "examples": len(dataset),
        "server_test_examples": 0 if dataset.x_test is None else len(dataset.x_test),
        "natural_clients": None if dataset.client is None else int(dataset.client.max()) + 1,
        "missing_values": int(np.isnan(dataset.x).sum()) if dataset.x.dtype.kind == "f" else 0,
        "origin": dataset.origin,
        "licence": dataset.licence,
    }


def partition_facts(dataset: Dataset, arranged: Arranged, counts: Array) -> dict[str, Any]:
    """Facts of a partition that name no client. ``counts`` (clients, labels) are examples a client and label.

    Of overlapping views, examples are those in the pools, each counted once.
    """
    train, validation, test = (int(n) for n in arranged.parts.sum(axis=0))
    facts: dict[str, Any] = {
        "examples": len(arranged.x),
        "overlapping": arranged.view is not None,
        "examples_a_client": _spread(counts.sum(axis=1)),
        "train_examples": train,
        "validation_examples": validation,
        "test_examples": test,
        "origin": dataset.origin,
        "licence": dataset.licence,
    }
    signature = dataset.signature
    if signature.task == "classification":
        names = signature.class_names or tuple(str(c) for c in range(signature.num_outputs))
        labels = np.bincount(arranged.y, minlength=signature.num_outputs)
        facts["labels"] = {name: int(n) for name, n in zip(names, labels, strict=True)}
        facts["classes_a_client"] = _spread((counts > 0).sum(axis=1))
    return facts


def _shape_facts(signature: Signature) -> Mapping[str, Any]:
    return {
        "task": signature.task,
        "input_shape": list(signature.input_shape),
        "input_dtype": signature.input_dtype,
        "num_outputs": signature.num_outputs,
        "class_names": list(signature.class_names),
        "feature_names": list(signature.feature_names),
    }


def _spread(values: Array) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
