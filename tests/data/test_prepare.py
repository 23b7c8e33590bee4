"""The whole way from data to store and centre: no row in two places, same choices same bits, honest statistics."""

from dataclasses import replace

import numpy as np
import pytest

from fl.data.arrays import from_arrays
from fl.data.catalog import load
from fl.data.centre import open_centre
from fl.data.describe import describe, describe_dataset
from fl.data.partition import PARTITIONERS
from fl.data.picture import shown_clients
from fl.data.prepare import prepare
from fl.data.store import open_store
from fl.errors import BadInput
from fl.seeds import generator

CHOICES = {
    "partition": "iid",
    "partition_options": {},
    "num_clients": 6,
    "seed": 3,
    "public_fraction": 0.05,
    "held_out_fraction": 0.1,
    "validation_fraction": 0.1,
    "test_fraction": 0.2,
}
PARTS = ("train", "validation", "test")


def numbered(n=600, *, classes=4, test_rows=0, clients=6, task="classification"):
    """A table whose first column is the row's number, so that rows can be found again."""
    draw = generator(0, purpose="numbered")
    x = np.stack([np.arange(n + test_rows), draw.normal(size=n + test_rows)], axis=1)
    y = draw.integers(0, classes, n + test_rows) if task == "classification" else draw.normal(size=n + test_rows)
    arrays = {"x": x[:n], "y": y[:n], "client": np.sqrt(np.arange(n)).astype(int) % clients}
    if test_rows:
        arrays |= {"x_test": x[n:], "y_test": y[n:]}
    return from_arrays(arrays, name="numbered", source="here", task=task)


def prepared(tmp_path, dataset, **changes):
    choices = CHOICES | changes
    made = prepare(dataset, centre_dir=tmp_path / "centre", devices_dir=tmp_path / "devices", **choices)
    return made, open_store(tmp_path / "devices"), open_centre(tmp_path / "centre")


def row_numbers(store, part):
    return [getattr(store.partition(c), part).x[:, 0].astype(int).tolist() for c in range(store.num_clients)]


@pytest.mark.parametrize("test_rows", [0, 50])
@pytest.mark.parametrize("name", sorted(set(PARTITIONERS) - {"feature_skew"}))
def test_every_row_is_in_one_place_and_keeps_its_label(tmp_path, name, test_rows):
    data = numbered(test_rows=test_rows)
    changes = {"num_clients": None} if name == "natural" else {}
    made, store, centre = prepared(tmp_path, data, partition=name, **changes)
    places = [row for part in PARTS for rows in row_numbers(store, part) for row in rows]
    places += centre.public.x[:, 0].astype(int).tolist() + centre.test.x[:, 0].astype(int).tolist()
    assert sorted(places) == list(range(600 + test_rows))
    assert len(centre.public) == 30
    assert len(centre.test) == (test_rows or 60)
    assert made.num_clients == store.num_clients == centre.num_clients
    assert made.fingerprint == store.fingerprint == centre.fingerprint
    if name != "concept_shift":
        found = store.partition(2).train
        assert np.array_equal(found.y, data.y[found.x[:, 0].astype(int)])
    if name == "natural":
        assert set(data.client[store.partition(2).test.x[:, 0].astype(int)]) == {2}


def test_parts_follow_the_fractions(tmp_path):
    _, store, _ = prepared(tmp_path, numbered())
    assert store.parts.tolist() == [[59, 9, 17]] * 6 or store.parts.sum() == 510
    assert {tuple(p) for p in store.parts.tolist()} == {(59, 9, 17)}


def test_same_choices_same_bits_and_another_seed_other_ones(tmp_path):
    names = ("x.npy", "y.npy", "offsets.npy", "parts.npy", "store.json")
    stores = []
    for i, seed in enumerate((3, 3, 4)):
        made, _, _ = prepared(tmp_path / str(i), numbered(), partition="dirichlet", seed=seed)
        files = [(tmp_path / str(i) / "devices" / n).read_bytes() for n in names]
        centre = {f.name: f.read_bytes() for f in (tmp_path / str(i) / "centre").iterdir()}
        stores.append((made.fingerprint, files, centre))
    assert stores[0] == stores[1]
    assert stores[0][0] != stores[2][0]
    assert stores[0][1][0] != stores[2][1][0]


@pytest.mark.parametrize(
    "change", [{"partition": "shards"}, {"num_clients": 5}, {"test_fraction": 0.1}, {"public_fraction": 0}]
)
def test_the_fingerprint_tells_choices_apart(tmp_path, change):
    one, _, _ = prepared(tmp_path / "a", numbered())
    other, _, _ = prepared(tmp_path / "b", numbered(), **change)
    assert one.fingerprint != other.fingerprint


def gappy(n=400):
    data = numbered(n, test_rows=40)
    x = data.x.copy()
    x[::9, 1] = np.nan
    return replace(data, x=x)


@pytest.mark.parametrize("missing", ["federated", "client"])
def test_statistics_come_from_training_parts_alone(tmp_path, missing):
    """Values planted everywhere else must not change a digit."""
    data = replace(gappy(), missing=missing)
    _, store, centre = prepared(tmp_path / "a", data)
    elsewhere = [r for part in ("validation", "test") for rows in row_numbers(store, part) for r in rows]
    x, x_test = data.x.copy(), data.x_test.copy()
    x[elsewhere, 1] += 1e9
    x_test[:, 1] += 1e9
    if missing == "federated":
        x[centre.public.x[:, 0].astype(int), 1] += 1e9
    planted, planted_store, _ = prepared(tmp_path / "b", replace(data, x=x, x_test=x_test))
    assert row_numbers(planted_store, "train") == row_numbers(store, "train")
    assert planted.signature == store.signature
    trained = np.concatenate([store.partition(c).train.x for c in range(6)])
    if missing == "federated":
        assert store.signature.indicators == (1,)
        known = np.sort(trained[~np.isnan(trained[:, 1]), 1])
        assert store.signature.medians[1] == known[(len(known) - 1) // 2]
        trained = np.where(np.isnan(trained), store.signature.medians, trained)
    assert store.signature.feature_mean == pytest.approx(trained.mean(axis=0), rel=1e-12)
    assert store.signature.feature_std == pytest.approx(trained.std(axis=0), rel=1e-9)


def test_gaps_outside_training_parts_bring_medians_but_no_indicator(tmp_path):
    data = numbered(test_rows=40)
    data.x_test[0, 1] = np.nan
    made, _, _ = prepared(tmp_path, data)
    assert len(made.signature.medians) == 2
    assert made.signature.indicators == ()
    whole, _, _ = prepared(tmp_path / "whole", numbered(test_rows=40))
    assert whole.signature.medians == ()


def test_clients_that_fill_for_themselves(tmp_path):
    data = replace(gappy(), missing="client")
    made, store, centre = prepared(tmp_path, data)
    assert made.signature.input_shape == (3,)
    assert made.signature.medians == ()
    raw = data.x
    for c in range(6):
        found = store.partition(c)
        mine = raw[found.train.x[:, 0].astype(int), 1]
        known = np.sort(mine[~np.isnan(mine)])
        for part in (found.train, found.validation, found.test):
            gap = np.isnan(raw[part.x[:, 0].astype(int), 1])
            assert np.array_equal(part.x[:, 2], gap)
            assert (part.x[gap, 1] == known[(len(known) - 1) // 2]).all()
    assert centre.test.x.shape == (40, 3)
    assert np.isfinite(centre.public.x).all()


def test_heart_disease_keeps_its_gaps_for_the_model(tmp_path):
    made, store, centre = prepared(tmp_path, load("heart_disease"), partition="natural", num_clients=None)
    assert made.num_clients == 4
    assert np.isnan(store.x).any()
    assert np.isnan(centre.test.x).any()
    signature = made.signature
    assert len(signature.medians) == len(signature.feature_mean) == len(signature.feature_std) == 13
    assert [signature.feature_names[i] for i in signature.indicators][:2] == ["trestbps", "chol"]
    assert 200 < signature.medians[4] < 260


def test_regression_targets_are_measured_unless_told_not_to(tmp_path):
    made, store, _ = prepared(tmp_path / "a", numbered(task="regression"))
    targets = np.concatenate([store.partition(c).train.y for c in range(6)])
    assert made.signature.target_mean == pytest.approx(targets.mean())
    assert made.signature.target_std == pytest.approx(targets.std())
    plain, _, _ = prepared(tmp_path / "b", replace(numbered(task="regression"), standardize=False))
    assert (plain.signature.target_mean, plain.signature.target_std, plain.signature.feature_mean) == (0, 1, ())


def test_more_clients_than_data_are_views(tmp_path):
    made, store, centre = prepared(
        tmp_path, numbered(), num_clients=100_000, partition_options={"examples_per_client": 20}
    )
    found = store.partition(99_999)
    assert (len(found.train), len(found.validation), len(found.test)) == (14, 2, 4)
    held = {int(r) for part in PARTS for r in getattr(found, part).x[:, 0]}
    assert not held & set(centre.public.x[:, 0].astype(int))
    assert not held & set(centre.test.x[:, 0].astype(int))
    assert made.facts["overlapping"] is True
    assert made.sizes == {"min": 20, "median": 20, "max": 20}
    assert sum(f.stat().st_size for f in store.folder.iterdir()) < 20_000


def test_concept_shift_changes_clients_and_not_the_server(tmp_path):
    data = numbered(test_rows=50)
    options = {"fraction": 0.5, "kind": "permute"}
    _, store, centre = prepared(tmp_path, data, partition="concept_shift", partition_options=options)
    changed = 0
    for c in range(6):
        found = store.partition(c)
        original = [data.y[getattr(found, p).x[:, 0].astype(int)] for p in PARTS]
        different = {bool((getattr(found, p).y != o).all()) for p, o in zip(PARTS, original, strict=True)}
        assert len(different) == 1
        changed += different == {True}
    assert changed == 3
    assert np.array_equal(centre.test.y, data.y_test)


def test_feature_skew_changes_clients_and_not_the_server(tmp_path):
    x = generator(0, purpose="x").integers(0, 256, (300, 6, 6)).astype(np.uint8)
    data = from_arrays({"x": x, "y": np.arange(300) % 3}, name="pictures", source="here")
    _, plain, _ = prepared(tmp_path / "a", data, partition="feature_skew", partition_options={"noise": 0.0})
    _, noisy, centre = prepared(tmp_path / "b", data, partition="feature_skew", partition_options={"noise": 0.2})
    levels = [
        float(np.abs(noisy.partition(c).test.x.astype(int) - plain.partition(c).test.x.astype(int)).mean())
        for c in range(6)
    ]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[5] > 10
    assert {row.tobytes() for row in centre.test.x} <= {row.tobytes() for row in x}


def test_natural_takes_the_number_of_clients_from_the_data(tmp_path):
    with pytest.raises(BadInput, match=r"num_clients: got 9, allowed: 6, as in the data, or nothing"):
        prepared(tmp_path, numbered(), partition="natural", num_clients=9)
    made, _, _ = prepared(tmp_path, numbered(), partition="natural", num_clients=6)
    assert made.num_clients == 6
    with pytest.raises(BadInput, match="natural, for data that name no client"):
        prepared(tmp_path, load("fashion_mnist"), partition="natural", num_clients=None)


def test_a_large_public_part_leaves_every_natural_client_something(tmp_path):
    client = np.repeat(np.arange(20), [3, 4] * 10)
    arrays = {"x": np.arange(140.0).reshape(70, 2), "y": np.arange(70) % 2, "client": client}
    data = from_arrays(arrays, name="small", source="here")
    made, store, _ = prepared(tmp_path, data, partition="natural", num_clients=None, public_fraction=0.5)
    assert made.num_clients == 20
    assert store.parts.tolist() == [[1, 1, 1]] * 20


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_clients": None}, r"num_clients: got None, allowed: a whole number from 1 for partition=iid"),
        ({"num_clients": 0}, r"num_clients: got 0"),
        ({"public_fraction": 1.0}, r"dataset\.public_fraction: got 1\.0"),
        ({"held_out_fraction": 0.0}, r"dataset\.held_out_fraction: got 0\.0"),
        ({"held_out_fraction": 0.99}, r"dataset\.held_out_fraction: got 0\.99"),
        ({"held_out_fraction": 1e-4}, r"dataset\.held_out_fraction: got 0\.0001, allowed: enough for one"),
        ({"test_fraction": 1.5}, r"dataset\.test_fraction: got 1\.5"),
        ({"max_server_test": 0}, r"dataset\.max_server_test: got 0"),
        ({"partition": "dirichlet", "num_clients": 500}, r"num_clients: got 500, allowed: at most 51 clients"),
    ],
)
def test_bad_choices_end_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(BadInput, match=message):
        prepared(tmp_path, numbered(), **changes)
    assert not any(tmp_path.iterdir())


def test_the_servers_test_set_can_be_a_sample(tmp_path):
    _, _, centre = prepared(tmp_path, numbered(test_rows=50), max_server_test=20)
    assert len(centre.test) == 20
    assert set(centre.test.x[:, 0].astype(int)) <= set(range(600, 650))


def test_facts_count_what_is_there_and_name_no_client(tmp_path):
    data = replace(numbered(), licence="mine")
    made, store, centre = prepared(tmp_path, data, partition="shards")
    facts = describe(centre)
    assert sum(facts["labels"].values()) == facts["examples"] == len(store.x) == 510
    assert [facts["labels"][str(c)] for c in range(4)] == np.bincount(store.y).tolist()
    assert facts["train_examples"] + facts["validation_examples"] + facts["test_examples"] == 510
    assert (facts["public_examples"], facts["server_test_examples"], facts["licence"]) == (30, 60, "mine")
    assert facts["classes_a_client"]["max"] <= 3
    assert facts["picture"] == str(made.picture)
    before = describe_dataset(data)
    assert (before["examples"], before["natural_clients"], before["missing_values"]) == (600, 6, 0)


def test_the_picture_is_a_png_of_what_is_there(tmp_path):
    from matplotlib.image import imread

    made, _, _ = prepared(tmp_path, numbered(), partition="shards")
    few = imread(made.picture)
    assert few.shape[1] > 900
    colours = {tuple(c) for c in (few[..., :3].reshape(-1, 3) * 255).round().astype(int)}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)} <= colours


@pytest.mark.parametrize("classes", [1, 15, 40])
def test_pictures_of_any_number_of_classes(tmp_path, classes):
    from fl.data.picture import draw_partition

    clients = shown_clients(1000)
    assert (len(clients), clients[0], clients[-1]) == (100, 0, 999)
    counts = generator(0, purpose="p").integers(0, 9, (100, classes))
    draw_partition(tmp_path / "p.png", counts, clients=clients, num_clients=1000, title="t")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_tokens_are_partitioned_whole(tmp_path):
    draw = generator(0, purpose="t")
    text = draw.integers(0, 9, (60, 11)).astype(np.uint8)
    arrays = {"x": text[:, :-1], "y": text[:, 1:], "client": np.arange(60) % 5}
    data = from_arrays(arrays, name="text", source="here", task="next_token")
    made, store, _ = prepared(tmp_path, data, partition="natural", num_clients=None)
    found = store.partition(3).train
    assert found.x.dtype == np.uint8
    assert found.y.dtype == np.int64
    assert np.array_equal(found.x[:, 1:], found.y[:, :-1])
    assert "labels" not in made.facts
