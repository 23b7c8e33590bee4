"""From raw arrays, whoever made them, to a checked ``Dataset``: the rules on dtypes, labels and client ids.

x   uint8 of two or more axes an example (images)   kept, input_scale 1/255; (n, h, w) gains a channel in the signature
    float32, float64                                kept; NaN means "missing" in a table and is refused elsewhere
    other numbers, booleans                         float32, or int64 where they are tokens
y   classification, next_token                      int64, 0 .. classes-1
    regression                                      the dtype of x
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from fl.data.dataset import Dataset
from fl.errors import BadInput
from fl.parameters import Array
from fl.signature import TASKS, Signature, Task

# Integer labels with more unused numbers than used ones are ids or quantities, not classes; below this many, who cares.
_CLASSES_WITHOUT_QUESTION = 100


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    name: str,
    source: str,
    key: str = "dataset.path",
    task: str = "auto",
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    client_names: Sequence[str] = (),
    origin: str = "",
    licence: str = "",
) -> Dataset:
    """Check arrays ``x``, ``y`` and optionally ``client``, ``x_test``, ``y_test``, and put them into a ``Dataset``.

    ``source`` (a file, a function) and the array's name are in every message. Without ``class_names``, classes are the
    integers up to the largest label. ``client`` may hold any integers; their sorted values become 0 .. n-1 and, without
    ``client_names``, the names.
    """
    found = {n: np.asarray(arrays[n]) for n in ("x", "y", "client", "x_test", "y_test") if arrays.get(n) is not None}
    for needed in ("x", "y"):
        if needed not in found:
            have = ", ".join(sorted(arrays)) or "none"
            raise BadInput(key=key, got=f"no array {needed!r} in {source}", allowed=f"arrays x and y (found: {have})")
    _check_rows(found, source=source, key=key)
    chosen = task_of(found["y"], task)
    x, y = _inputs(found["x"], "x", chosen, source, key), _targets(found["y"], "y", chosen, source)
    x_test, y_test = None, None
    if "x_test" in found:
        x_test = _inputs(found["x_test"], "x_test", chosen, source, key).astype(x.dtype, copy=False)
        y_test = _targets(found["y_test"], "y_test", chosen, source)
    if chosen == "regression":
        target = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
        y, y_test = y.astype(target), None if y_test is None else y_test.astype(target)
    client, names = _clients(found.get("client"), tuple(client_names), source)
    signature = Signature(
        task=chosen,
        input_shape=_example_shape(x),
        input_dtype=_input_dtype(x, chosen),
        num_outputs=_num_outputs(x, y, x_test, y_test, chosen, len(class_names), source),
        input_scale=1 / 255 if _is_images(x) and chosen != "next_token" else 1.0,
        class_names=tuple(class_names),
        feature_names=tuple(feature_names),
    )
    return Dataset(
        name, signature, x, y, client, names, x_test=x_test, y_test=y_test, origin=origin or source, licence=licence
    )


def task_of(y: Array, task: str = "auto") -> Task:
    """The task asked for; with "auto", regression for floats that are not all whole numbers, else classification."""
    if task not in ("auto", *TASKS):
        raise BadInput(key="dataset.task", got=task, allowed=", ".join(("auto", *TASKS)))
    if task != "auto":
        return cast(Task, task)
    if y.dtype.kind != "f":
        return "classification"
    finite = y[np.isfinite(y)]
    return "classification" if np.array_equal(finite, np.rint(finite)) else "regression"


def _check_rows(found: Mapping[str, Array], *, source: str, key: str) -> None:
    """Every array has rows, and as many as its partner; tests come in pairs of the training shape."""
    for name, value in found.items():
        if value.dtype.kind not in "biuf":
            raise BadInput(key=key, got=f"array {name!r} of dtype {value.dtype} in {source}", allowed="numbers")
        if value.ndim == 0 or len(value) == 0:
            raise BadInput(key=key, got=f"array {name!r} is empty in {source}", allowed="at least one row")
    if ("x_test" in found) != ("y_test" in found):
        alone = "x_test" if "x_test" in found else "y_test"
        raise BadInput(key=key, got=f"only {alone!r} in {source}", allowed="x_test and y_test together, or neither")
    for name, partner in (("y", "x"), ("client", "x"), ("y_test", "x_test")):
        if name in found and len(found[name]) != len(found[partner]):
            got = f"array {name!r} of {len(found[name])} rows in {source}"
            raise BadInput(key=key, got=got, allowed=f"{len(found[partner])} rows, as in {partner!r}")
    if "x_test" in found and found["x_test"].shape[1:] != found["x"].shape[1:]:
        got = f"array 'x_test' of shape {found['x_test'].shape} in {source}"
        raise BadInput(key=key, got=got, allowed=f"the shape of 'x' after its rows, {found['x'].shape[1:]}")


def _inputs(x: Array, name: str, task: Task, source: str, key: str) -> Array:
    if x.ndim < 2:
        got = f"array {name!r} of shape {x.shape} in {source}"
        raise BadInput(
            key=key, got=got, allowed="rows and at least one more axis: (n, features), (n, height, width) ..."
        )
    if 0 in x.shape:
        raise BadInput(key=key, got=f"array {name!r} of shape {x.shape} in {source}", allowed="no axis of length 0")
    if task == "next_token":
        if x.dtype.kind not in "iu" or x.ndim != 2 or x.min() < 0:
            got = f"array {name!r} of dtype {x.dtype} and shape {x.shape} in {source}"
            raise BadInput(key=key, got=got, allowed="token numbers from 0, of shape (n, length)")
        return x
    if x.dtype.kind == "f":
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
        missing_allowed = x.ndim == 2
        if np.isinf(x).any() or (not missing_allowed and np.isnan(x).any()):
            rows = np.flatnonzero(
                ~np.isfinite(x.reshape(len(x), -1)).all(axis=1) if not missing_allowed else np.isinf(x).any(axis=1)
            )
            got = f"array {name!r} with infinite or NaN values in {source} (first in row {rows[0]})"
            raise BadInput(key=key, got=got, allowed="finite numbers" + (", or NaN for missing" * missing_allowed))
        return x
    return x if _is_images(x) else x.astype(np.float32)


def _targets(y: Array, name: str, task: Task, source: str) -> Array:
    key = "dataset.label"
    if task == "next_token":
        if y.dtype.kind not in "iu" or y.ndim != 2 or y.min() < 0:
            raise BadInput(
                key=key,
                got=f"array {name!r} of dtype {y.dtype} and shape {y.shape} in {source}",
                allowed="token numbers from 0, of the shape of x",
            )
        return y.astype(np.int64)
    y = y.reshape(len(y)) if y.size == len(y) else y
    if y.ndim != 1:
        raise BadInput(key=key, got=f"array {name!r} of shape {y.shape} in {source}", allowed="one label a row")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.flatnonzero(~np.isfinite(y))[0])
        raise BadInput(
            key=key, got=f"array {name!r} is {y[row]} in row {row} of {source}", allowed="a label in every row"
        )
    if task == "regression":
        return y
    if y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):
        row = int(np.flatnonzero(y != np.rint(y))[0])
        raise BadInput(
            key=key,
            got=f"array {name!r} is {y[row]} in row {row} of {source}",
            allowed="whole numbers for classification, or dataset.task=regression",
        )
    whole = y.astype(np.int64)
    if whole.min() < 0:
        row = int(whole.argmin())
        raise BadInput(
            key=key, got=f"array {name!r} is {whole[row]} in row {row} of {source}", allowed="classes numbered from 0"
        )
    return whole


def _num_outputs(
    x: Array, y: Array, x_test: Array | None, y_test: Array | None, task: Task, named: int, source: str
) -> int:
    """Classes, vocabulary or 1; test labels must be classes that the training labels know."""
    if task == "regression":
        return 1
    if task == "next_token":
        for name, partner, values in (("x", x, y), ("x_test", x_test, y_test)):
            if partner is not None and values is not None and partner.shape != values.shape:
                raise BadInput(
                    key="dataset.path",
                    got=f"array {name!r} of shape {partner.shape} in {source}",
                    allowed=f"the shape of its targets, {values.shape}",
                )
        tokens = [int(a.max()) for a in (x, y, x_test, y_test) if a is not None]
        return max(named, 1 + max(tokens))
    classes = named or int(y.max()) + 1
    for name, labels in (("y", y), ("y_test", y_test)):
        if labels is not None and labels.max() >= classes:
            row = int(labels.argmax())
            raise BadInput(
                key="dataset.label",
                got=f"array {name!r} is {labels[row]} in row {row} of {source}",
                allowed=f"one of the {classes} training classes, 0 to {classes - 1}",
            )
    used = len(np.unique(y))
    if classes > max(_CLASSES_WITHOUT_QUESTION, 2 * used):
        raise BadInput(
            key="dataset.label",
            got=f"{used} different labels up to {classes - 1} in {source}",
            allowed="classes numbered from 0 without such gaps, or dataset.task=regression",
        )
    return classes


def _clients(client: Array | None, names: tuple[str, ...], source: str) -> tuple[Array | None, tuple[str, ...]]:
    if client is None:
        return None, ()
    if client.dtype.kind not in "iu" or client.ndim != 1:
        raise BadInput(
            key="dataset.client",
            got=f"array 'client' of dtype {client.dtype} and shape {client.shape} in {source}",
            allowed="one whole number a row",
        )
    ids, dense = np.unique(client, return_inverse=True)
    if names and len(names) != len(ids):
        raise BadInput(
            key="dataset.client",
            got=f"{len(names)} names for {len(ids)} clients in {source}",
            allowed="a name a client, or none",
        )
    return dense.astype(np.int64), names or tuple(str(i) for i in ids)


def _is_images(x: Array) -> bool:
    return x.dtype == np.uint8 and x.ndim >= 3


def _example_shape(x: Array) -> tuple[int, ...]:
    return (1, *x.shape[1:]) if x.ndim == 3 else x.shape[1:]


def _input_dtype(x: Array, task: Task) -> str:
    if task == "next_token":
        return "int64"
    return "float64" if x.dtype == np.float64 else "float32"
