"""Cross-validation is exact in who sees what: every row is known by its own number, and is looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from fl.data.centre import open_centre
from fl.data.dataset import Dataset
from fl.data.folds import LEFT_OUT, Fold, cut
from fl.data.prepare import prepare
from fl.data.store import open_store
from fl.errors import BadInput
from fl.signature import Signature

ROWS = 60
SIZES = {0: 1, 1: 2, 2: 17, 3: 20, 4: 20}


def dataset(missing: str = "federated") -> Dataset:
    """Rows that carry their number; client 0 has a single one."""
    x = np.stack([np.arange(ROWS), np.arange(ROWS) % 7], axis=1).astype(np.float32)
    client = np.repeat(list(SIZES), list(SIZES.values()))
    return Dataset(
        name="numbered",
        signature=Signature("classification", (2,), "float32", 2),
        x=x,
        y=np.arange(ROWS) % 2,
        client=client,
        x_test=x[:4] + 1000,
        y_test=np.array([0, 1, 0, 1]),
        missing=missing,
    )


def prepared(folder: Path, fold: Fold | None, *, partition: str = "natural", public: float = 0.0, **more) -> Path:
    prepare(
        dataset(**more),
        partition=partition,
        partition_options={"examples_per_client": 3} if partition == "iid" else {},
        num_clients=None if partition == "natural" else 100,
        seed=5,
        public_fraction=public,
        held_out_fraction=0.1,
        validation_fraction=0.2,
        test_fraction=0.2,
        centre_dir=folder / "centre",
        devices_dir=folder / "devices" / "partitions",
        fold=fold,
    )
    return folder


def numbers(examples) -> list[int]:
    return examples.x[:, 0].astype(int).tolist()


def seen(folder: Path, store: str = "partitions") -> list[tuple[list[int], list[int], list[int]]]:
    opened = open_store(folder / "devices" / store)
    found = [opened.partition(c) for c in range(opened.num_clients)]
    return [(numbers(p.train), numbers(p.validation), numbers(p.test)) for p in found]


def own_rows(client: int) -> set[int]:
    return set(np.flatnonzero(dataset().client == client).tolist())


def test_every_example_is_left_out_once_within_its_client(tmp_path):
    folds = [seen(prepared(tmp_path / str(i), Fold(4, i, "examples"))) for i in range(4)]
    for client in SIZES:
        tested = [row for fold in folds for row in fold[client][2]]
        for train, validation, test in (fold[client] for fold in folds):
            assert set(train) | set(test) == own_rows(client) and not set(train) & set(test) and not validation
            assert train
        # A client's only example always trains; every other is tested once.
        assert sorted(tested) == ([] if client == 0 else sorted(own_rows(client)))


def test_clients_that_are_left_out_are_in_no_part_of_the_run(tmp_path):
    out: list[int] = []
    for i in range(3):
        folder = prepared(tmp_path / str(i), Fold(3, i, "clients"))
        trained = {row for train, validation, test in seen(folder) for row in [*train, *validation, *test]}
        unseen = seen(folder, LEFT_OUT)
        assert all(not train and not validation for train, validation, _ in unseen)
        tested = {row for *_, test in unseen for row in test}
        assert not trained & tested and trained | tested == set(range(ROWS))
        out += [next(c for c in SIZES if own_rows(c) == set(test)) for *_, test in unseen]
        # Nothing that the model is given was fitted on them either: the mean is of those that train.
        mean = open_store(folder / "devices" / "partitions").signature.feature_mean[0]
        assert mean == pytest.approx(np.mean(sorted(trained)))
    assert sorted(out) == list(SIZES)


def test_public_folds_are_of_the_server_alone(tmp_path):
    whole = open_centre(prepared(tmp_path / "whole", None, public=0.3) / "centre")
    tested: list[int] = []
    for i in range(3):
        folder = prepared(tmp_path / str(i), Fold(3, i, "public"), public=0.3)
        centre = open_centre(folder / "centre")
        assert set(numbers(centre.public)) | set(numbers(centre.test)) == set(numbers(whole.public))
        assert not set(numbers(centre.public)) & set(numbers(centre.test))
        assert not {row for parts in seen(folder) for part in parts for row in part} & set(numbers(whole.public))
        tested += numbers(centre.test)
    assert sorted(tested) == sorted(numbers(whole.public))


def test_a_bootstrap_tests_on_what_was_not_drawn(tmp_path):
    first, second = (seen(prepared(tmp_path / str(i), Fold(2, i, "bootstrap"))) for i in range(2))
    for client, size in SIZES.items():
        for train, _, test in (first[client], second[client]):
            assert len(train) == size and set(train) | set(test) == own_rows(client)
            assert not set(train) & set(test)
    assert sorted(first[4][0]) != sorted(second[4][0]) and len(set(first[4][0])) < 20


def test_folds_are_cut_as_scikit_learn_cuts_them():
    theirs = [test.tolist() for _, test in KFold(3).split(np.zeros(11))]
    assert [cut(11, Fold(3, i, "public"))[1].tolist() for i in range(3)] == theirs


@pytest.mark.parametrize(
    "fold, more, key",
    [
        ((1, 0, "examples"), {}, "folds.number"),
        ((3, 3, "examples"), {}, "folds.index"),
        ((3, 0, "rows"), {}, "folds.over"),
        ((6, 0, "clients"), {}, "folds.number"),
        ((3, 0, "clients"), {"missing": "client"}, "dataset.missing"),
        ((3, 0, "public"), {}, "folds.number"),
        ((3, 0, "examples"), {"partition": "iid"}, "folds.number"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path, fold, more, key):
    with pytest.raises(BadInput) as error:
        prepared(tmp_path, Fold(*fold), **more)
    assert error.value.key == key
