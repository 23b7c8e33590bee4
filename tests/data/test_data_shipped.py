"""The data sets that come with Meadow have the shapes, counts and rules they promise."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fl.data.catalog import CATALOG, known, load
from fl.data.dataset import fingerprint
from fl.data.shipped_files import FILES
from fl.errors import BadInput


def test_mnist_is_images_kept_as_bytes_with_a_channel():
    data = load("mnist")
    assert data.x.shape == (60000, 28, 28)
    assert data.x.dtype == np.uint8
    assert data.y.dtype == np.int64
    assert data.x_test.shape == (10000, 28, 28)
    assert np.bincount(data.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    signature = data.signature
    assert (signature.task, signature.input_shape, signature.num_outputs) == ("classification", (1, 28, 28), 10)
    assert (signature.input_dtype, signature.input_scale) == ("float32", 1 / 255)
    assert data.client is None
    assert data.licence == "CC BY-SA 3.0"


def test_fashion_mnist_is_balanced():
    data = load("fashion_mnist")
    assert (len(data.x), len(data.x_test)) == (10000, 2000)
    assert set(np.bincount(data.y)) == {1000}
    assert data.signature.class_names[9] == "Ankle boot"


def test_shakespeare_windows_are_the_text_and_its_shift():
    data = load("shakespeare")
    with np.load(FILES / "shakespeare_by_role.npz") as file:
        text, offsets, split = file["text"], file["offsets"], file["split"]
    names = np.array(data.signature.class_names)
    assert data.x.shape == data.y.shape == (43402, 80)
    assert (data.signature.task, data.signature.input_dtype, data.signature.num_outputs) == ("next_token", "int64", 76)
    assert np.array_equal(data.x[:, 1:], data.y[:, :-1])
    first = "".join(names[data.x[0]])
    assert first == bytes(text[:80]).decode("latin-1")
    assert "".join(names[data.y[0]]) == bytes(text[1:81]).decode("latin-1")
    # Windows do not overlap: the next one starts where the first ends.
    assert names[data.x[1][0]] == names[data.y[0][-1]]
    train = [(s - o - 1) // 80 for o, s in zip(offsets[:-1], split, strict=True)]
    test = [max(0, (e - s - 1) // 80) for s, e in zip(split, offsets[1:], strict=True)]
    assert np.bincount(data.client).tolist() == [n for n in train if n >= 3]
    assert len(data.x_test) == sum(test)
    assert len(data.client_names) == 981


def test_shakespeare_takes_another_length():
    data = load("shakespeare", sequence_length=40)
    assert data.signature.input_shape == (40,)
    with pytest.raises(BadInput, match=r"dataset\.sequence_length: got 0, allowed: 1 to 1000"):
        load("shakespeare", sequence_length=0)


def test_heart_disease_is_four_hospitals_with_gaps():
    data = load("heart_disease", seed=3)
    assert len(data.x) + len(data.x_test) == 920
    assert np.bincount(data.client).tolist() == [242, 235, 98, 160]
    assert data.client_names[3] == "V.A. Long Beach"
    chol = data.signature.feature_names.index("chol")
    assert not (data.x[:, chol] == 0).any()
    assert np.isnan(data.x[data.client == 2, chol]).all()
    assert data.x.dtype == np.float32
    assert data.signature.class_names == ("no disease", "disease")
    assert not np.array_equal(data.x_test, load("heart_disease", seed=4).x_test, equal_nan=True)


def test_heart_disease_can_predict_a_measurement_instead():
    data = load("heart_disease", label="thalach")
    assert (data.signature.task, data.signature.num_outputs) == ("regression", 1)
    assert "thalach" not in data.signature.feature_names
    assert data.x.shape[1] == 12
    assert data.y.dtype == data.x.dtype == np.float32
    assert np.isfinite(data.y).all()
    assert data.y.max() == 202
    with pytest.raises(BadInput, match=r"dataset\.label: got weight, allowed: one of age, sex"):
        load("heart_disease", label="weight")


def test_synthetic_follows_the_generator():
    data = load("synthetic", clients=8, alpha=1, beta=1, seed=1)
    sizes = np.bincount(data.client)
    assert len(sizes) == 8
    assert sizes.min() >= 50
    assert data.x.shape == (sizes.sum(), 60)
    # The variance of input j inside a client is j^-1.2.
    big = int(sizes.argmax())
    spread = data.x[data.client == big].var(axis=0)
    assert np.allclose(spread, np.arange(1, 61) ** -1.2, rtol=0.5)
    # Each client's labels are a linear rule of its own: client 0 is the same however many follow it.
    fewer = load("synthetic", clients=2, seed=1)
    assert np.array_equal(fewer.x[fewer.client == 0], data.x[data.client == 0])
    assert not np.array_equal(load("synthetic", clients=2, seed=2).x[:50], fewer.x[:50])


def test_synthetic_zero_zero_is_more_alike_than_one_one():
    def spread_of_means(alpha: float, beta: float) -> float:
        data = load("synthetic", clients=20, alpha=alpha, beta=beta, seed=5)
        return float(np.std([data.x[data.client == c].mean() for c in range(20)]))

    assert spread_of_means(0, 0) < 0.3 < spread_of_means(0, 2)


@pytest.mark.parametrize("options", [{"alpha": -1}, {"beta": float("nan")}, {"clients": 0}, {"classes": 1}])
def test_synthetic_refuses(options):
    (key,) = options
    with pytest.raises(BadInput, match=rf"dataset\.{key}: got"):
        load("synthetic", **options)


def test_shipped_files_are_the_ones_that_were_handed_over():
    origin = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not origin.is_dir():
        pytest.skip("the folder of the originals is not here")
    for file in FILES.glob("*.npz"):
        ours, theirs = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (file, origin / file.name))
        assert ours == theirs, file.name


def test_every_shipped_file_has_its_licence_in_the_readme():
    text = (FILES / "README.md").read_text()
    for file in FILES.glob("*.npz"):
        assert f"`{file.name}`" in text


def test_known_names_every_data_set_in_a_line():
    assert list(known()) == list(CATALOG)
    assert all(line and "\n" not in line and len(line) < 100 for line in known().values())


def test_fingerprint_sees_every_array():
    data = load("synthetic", clients=2)
    assert fingerprint(data) == fingerprint(load("synthetic", clients=2))
    assert fingerprint(data) != fingerprint(load("synthetic", clients=2, seed=1))
    other = load("synthetic", clients=2)
    other.client[0] = 1
    assert fingerprint(data) != fingerprint(other)


def test_unknown_names_and_keys_that_would_be_ignored_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"dataset: got cifar, allowed: mnist, fashion_mnist"):
        load("cifar")
    with pytest.raises(
        BadInput, match=r"dataset\.path: got .*, allowed: nothing for mnist; npz, csv, parquet, jsonl, sql, hub"
    ):
        load("mnist", path=tmp_path)
    with pytest.raises(BadInput, match=r"dataset\.missing: got drop, allowed: federated, client"):
        load("heart_disease", missing="drop")
