"""Activities by subject: windows of a phone's or a watch's sensors as features, for experiment=har_by_subject.

The file is not shipped (Matey-Sanz et al. 2023, Data in Brief 109809; CC BY 4.0). Windows of one subject do not overlap
unless ``step`` is below ``window``: a test window would otherwise hold samples that were trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.errors import BadInput
from fl.parameters import Array

DEVICES = {"watch": "sw", "phone": "sp"}
KEY = "dataset.function_arguments"
FEATURES = ("mean", "deviation", "smallest", "largest", "change")


def load(*, path: str | None, device: str, window: int, step: int) -> Dataset:
    """A table with a row a window, and the subject as its client.

    path     the .npz file: ``signal_*`` (n, 6) raw, ``scale`` (6,), ``label_*``, ``subject_*``, ``execution_*`` (n,)
    window   samples a window, at some 103 a second;  step  samples from one window to the next

    Five features a channel in real units: mean, deviation, smallest, largest, and the mean change from one sample to
    the next. The label is the commonest of the window; no window reaches over two executions. Raises BadInput, by key.
    """
    if path is None or not Path(path).is_file():
        allowed = "the path of har_phone_watch_by_subject.npz, which is not shipped"
        raise BadInput(key=f"{KEY}.path", got="null" if path is None else path, allowed=allowed)
    if device not in DEVICES:
        raise BadInput(key=f"{KEY}.device", got=device, allowed=", ".join(DEVICES))
    for key, value in (("window", window), ("step", step)):
        if value < 1:
            raise BadInput(key=f"{KEY}.{key}", got=value, allowed="a whole number, at least 1")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[f"{name}_{DEVICES[device]}"] for name in ("signal", "label", "subject", "execution")}
        scale, classes, channels = file["scale"], file["classes"], file["channels"]
    signal, label = arrays["signal"].astype(np.float32) * scale, arrays["label"].astype(np.int64)
    starts = _starts(arrays["subject"].astype(np.int64) * 1000 + arrays["execution"], window, step)
    rows = starts[:, None] + np.arange(window)
    subjects = np.unique(arrays["subject"])
    return from_arrays(
        {
            "x": features(signal[rows]),
            "y": np.array([np.bincount(labels).argmax() for labels in label[rows]]),
            "client": arrays["subject"][starts].astype(np.int64),
        },
        name="har_by_subject",
        source=path,
        key=f"{KEY}.path",
        task="classification",
        class_names=[str(name) for name in classes],
        feature_names=[f"{channel} {what}" for what in FEATURES for channel in channels],
        client_names=[f"subject {subject}" for subject in subjects],
    )


def features(windows: Array) -> Array:
    """(n, samples, channels) -> (n, 5 * channels), float32: FEATURES of each channel, a feature after the other."""
    each: list[Any] = [windows.mean(1), windows.std(1), windows.min(1), windows.max(1)]
    each.append(np.abs(np.diff(windows, axis=1)).mean(1))
    return np.concatenate(each, axis=1).astype(np.float32)


def _starts(groups: Array, window: int, step: int) -> Array:
    """Where the windows begin that lie within one group of consecutive equal numbers (n,)."""
    edges = np.flatnonzero(np.diff(groups)) + 1
    spans = zip([0, *edges], [*edges, len(groups)], strict=True)
    return np.concatenate([np.arange(first, last - window + 1, step) for first, last in spans])
