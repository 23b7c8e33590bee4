"""What is written is what is read: partitions, views, the server's part; and what is broken is named."""

import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from fl.data.centre import open_centre, write_centre
from fl.data.dataset import Examples
from fl.data.partition.assignment import View
from fl.data.store import open_store, write_store, write_view_store
from fl.errors import BadInput, CorruptFile
from fl.signature import Signature

IMAGES = Signature("classification", (1, 4, 4), "float32", 3, input_scale=1 / 255)
ROWS = Signature("classification", (2,), "float32", 3)


def images(folder, parts=((3, 1, 1), (2, 0, 1), (1, 0, 0))):
    parts = np.array(parts)
    n = int(parts.sum())
    x = np.arange(n * 16, dtype=np.uint8).reshape(n, 4, 4)
    y = np.arange(n) % 3
    write_store(folder, x=x, y=y, parts=parts, signature=IMAGES, name="tiny", fingerprint="f")
    return x, y


def view_store(folder, num_clients):
    x = np.arange(200, dtype=np.float32).reshape(100, 2)
    pools, counts = np.array([80, 10, 10]), np.array([8, 1, 2])
    view = View(100, 11, num_clients, seed=5)
    about = {"signature": ROWS, "name": "view", "fingerprint": "f"}
    write_view_store(folder, x=x, y=np.arange(100) % 3, pools=pools, counts=counts, view=view, **about)


def test_a_store_gives_back_each_clients_parts(tmp_path):
    x, y = images(tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert (store.num_clients, store.name, store.fingerprint, store.signature) == (3, "tiny", "f", IMAGES)
    start = 0
    for client, sizes in enumerate(((3, 1, 1), (2, 0, 1), (1, 0, 0))):
        found = store.partition(client)
        assert found.client_id == client
        assert store.num_train(client) == sizes[0]
        for part, size in zip((found.train, found.validation, found.test), sizes, strict=True):
            assert len(part) == size
            assert np.array_equal(part.x, x[start : start + size].reshape(size, 1, 4, 4))
            assert np.array_equal(part.y, y[start : start + size])
            assert part.x.dtype == np.uint8
            start += size


def test_partitions_are_views_of_the_mapped_file(tmp_path):
    images(tmp_path / "s")
    store = open_store(tmp_path / "s")
    part = store.partition(0).train.x
    assert np.shares_memory(part, store.x)
    assert type(part) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 0


def test_a_store_travels_as_its_folder(tmp_path):
    images(tmp_path / "s", parts=((200, 20, 20),))
    store = open_store(tmp_path / "s")
    packed = pickle.dumps(store)
    assert len(packed) < 500
    assert np.array_equal(pickle.loads(packed).partition(0).test.x, store.partition(0).test.x)


def test_a_store_replaces_the_one_before_and_leaves_nothing_beside(tmp_path):
    images(tmp_path / "s")
    images(tmp_path / "s", parts=((1, 1, 1),))
    assert open_store(tmp_path / "s").num_clients == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    with pytest.raises(ValueError, match="parts add up"):
        write_store(tmp_path / "s", x=np.zeros((3, 2)), y=np.zeros(3), parts=np.array([[1, 0, 0]]), signature=ROWS,
                    name="", fingerprint="")  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_clients_outside_the_store_are_refused(tmp_path):
    images(tmp_path / "s")
    for client in (-1, 3):
        with pytest.raises(BadInput, match=rf"client_id: got {client}, allowed: 0 to 2"):
            open_store(tmp_path / "s").partition(client)


def test_broken_stores_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"store: got .*nowhere"):
        open_store(tmp_path / "nowhere")
    images(tmp_path / "s")
    x = tmp_path / "s" / "x.npy"
    whole = x.read_bytes()
    x.write_bytes(whole[:-5])
    with pytest.raises(CorruptFile, match=r"x\.npy: its bytes are not those that were written"):
        open_store(tmp_path / "s")
    x.write_bytes(whole)
    np.save(tmp_path / "s" / "y.npy", np.zeros(4))
    with pytest.raises(CorruptFile, match=r"y\.npy: its bytes are not those that were written"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text("{")
    with pytest.raises(CorruptFile, match="not JSON"):
        open_store(tmp_path / "s")


def test_a_million_views_cost_what_ten_do(tmp_path):
    view_store(tmp_path / "few", 20)
    view_store(tmp_path / "many", 1_000_000)
    assert sum(f.stat().st_size for f in (tmp_path / "many").iterdir()) < 5000
    began = time.perf_counter()
    store = open_store(tmp_path / "many")
    last = store.partition(999_999)
    assert time.perf_counter() - began < 0.1
    assert (len(last.train), len(last.validation), len(last.test)) == (8, 1, 2)
    assert store.num_train(123_456) == 8
    # The same client is the same view, whatever the population.
    few = open_store(tmp_path / "few")
    assert np.array_equal(few.partition(7).train.x, store.partition(7).train.x)
    assert not np.array_equal(few.partition(7).train.x, few.partition(8).train.x)


def test_no_clients_test_example_is_anothers_training_example_in_a_view(tmp_path):
    view_store(tmp_path / "v", 300)
    store = open_store(tmp_path / "v")
    seen = {"train": set(), "validation": set(), "test": set()}
    for client in range(300):
        found = store.partition(client)
        for part, rows in seen.items():
            rows.update(getattr(found, part).x[:, 0].tolist())
    assert len(seen["train"]) == 80
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["test"] & seen["validation"]


def test_the_centre_comes_back(tmp_path):
    public = Examples(np.zeros((2, 4, 4), np.uint8), np.array([0, 1]))
    test = Examples(np.ones((3, 4, 4), np.uint8), np.array([0, 1, 2]))
    write_centre(tmp_path / "c", public=public, test=test, signature=IMAGES, name="tiny", fingerprint="f",
                 num_clients=9, facts={"licence": "none"})  # fmt: skip
    centre = open_centre(tmp_path / "c")
    assert (centre.num_clients, centre.signature, centre.facts["licence"]) == (9, IMAGES, "none")
    assert centre.public.x.shape == (2, 1, 4, 4)
    assert centre.test.y.tolist() == [0, 1, 2]
    assert centre.picture is None
    np.save(tmp_path / "c" / "test_y.npy", np.zeros(1))
    with pytest.raises(CorruptFile, match=r"test_y\.npy: its bytes are not those that were written"):
        open_centre(tmp_path / "c")
    (tmp_path / "c" / "test_x.npy").unlink()
    with pytest.raises(CorruptFile, match="test_x"):
        open_centre(tmp_path / "c")
    with pytest.raises(BadInput, match="centre: got"):
        open_centre(tmp_path)


def test_the_centre_and_its_description_import_no_store():
    code = "import fl.data.centre, fl.data.describe, sys, json; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    )
    assert "fl.data.centre" in modules
    assert "fl.data.store" not in modules
    assert not {"torch", "matplotlib", "duckdb", "pandas", "ray", "datasets"} & set(modules)
