"""Hub data sets, from local folders: the real loading code of flwr-datasets, without the network."""

import os

import numpy as np
import pytest

from fl.data.catalog import load
from fl.errors import BadInput, MissingExtra
from fl.seeds import generator


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flwr_datasets", None)
    with pytest.raises(MissingExtra, match=r"dataset: needs the package flwr-datasets, .*meadow-fl\[hub\]"):
        load("hub", path="ylecun/mnist", label="label")


def test_without_the_extra_for_tables_its_name_is_told(monkeypatch, tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,1\n")
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(MissingExtra, match=r"needs the package duckdb, .*meadow-fl\[data\]"):
        load("csv", path=tmp_path / "t.csv", label="y")


def test_a_path_is_needed():
    with pytest.raises(BadInput, match=r"dataset\.path: got None, allowed: the name of a data set on the Hub"):
        load("hub", label="label")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # datasets and its own dependencies warn as they please
def test_a_local_folder_is_loaded_by_flwr_datasets(offline):
    pytest.importorskip("flwr_datasets")
    import datasets

    assert os.environ["HF_HUB_OFFLINE"] == "1"
    draw = generator(0, purpose="hub")

    def write(split, n):
        features = datasets.Features(
            {
                "image": datasets.Array2D((4, 4), "uint8"),
                "size": datasets.Value("float32"),
                "label": datasets.ClassLabel(names=["cat", "dog"]),
                "who": datasets.Value("string"),
            }
        )
        columns = {
            "image": [draw.integers(0, 255, (4, 4), dtype=np.uint8) for _ in range(n)],
            "size": draw.random(n),
            "label": [i % 2 for i in range(n)],
            "who": [f"w{i % 3}" for i in range(n)],
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(offline / "mine" / f"{split}.parquet"))
        return columns

    (offline / "mine").mkdir()
    train = write("train", 12)
    write("test", 4)
    options = {"path": str(offline / "mine"), "label": "label", "client": "who"}
    pictures = load("hub", features=["image"], **options)
    assert np.array_equal(pictures.x, np.stack(train["image"]))
    assert pictures.x.dtype == np.uint8
    assert pictures.signature.input_shape == (1, 4, 4)
    assert pictures.signature.input_scale == 1 / 255
    assert pictures.signature.class_names == ("cat", "dog")
    assert pictures.client_names == ("w0", "w1", "w2")
    assert len(pictures.x_test) == 4
    assert load("hub", features=["size"], **options).x.shape == (12, 1)
    for changes, message in (
        ({"label": "kind"}, r"dataset\.label: got kind, allowed: a column of .*: image, size, label, who"),
        ({"client": "place"}, r"dataset\.client: got place"),
        ({"features": ["weight"]}, r"dataset\.features: got \['weight'\]"),
        ({"features": ["image", "size"]}, r"dataset\.features: got column 'image'"),
        ({"features": ["who"], "client": None}, r"dataset\.features: got column 'who'"),
        ({"path": str(offline / "none")}, r"dataset\.path: got .*none, which cannot be loaded"),
    ):
        with pytest.raises(BadInput, match=message):
            load("hub", **(options | changes))
