"""What is done to training parts alone: the same bits on every engine, and nothing of it reaches any other part."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.evaluation import evaluate_clients
from clients.setting import open_setting
from clients.updates import make_updates
from experiments.compose import compose
from experiments.config_file import read_config
from experiments.run import simulate
from fl.data.centre import open_centre
from fl.data.store import open_store
from fl.errors import BadInput
from fl.files import read_json
from fl.messages import EvaluateTask, EvaluationReport, TrainTask, Update
from fl.transforms.recipe import Recipe

CLIENTS, ROWS = 4, 120

DROPS = (
    "{deduplicate: {}}, {outliers: {columns: [x1], by: deviation, width: 2, action: drop}}, "
    "{drop_rows: {columns: [x2]}}, {impute: {}}, {scale: {}}"
)

FILLED = "dataset.recipe=[{impute: {}}, {scale: {}}]"
TREATMENTS: dict[str, tuple[str, ...]] = {
    "none": (FILLED,),
    "rows dropped": (f"dataset.recipe=[{DROPS}]",),
    "noise, mixup, oversampling, stacked": (
        FILLED,
        "client.balance=oversample",
        "client.augment=[{noise: {deviation: 0.2, columns: [x0, x2]}}, {mixup: {alpha: 0.3}}]",
        "client.path=stacked",
    ),
    "neighbours, undersampling": (FILLED, "client.denoise=neighbours", "client.balance=undersample"),
    "weights": (FILLED, "client.balance=weights"),
    "mixup of a regression": (FILLED, "client.augment=[{mixup: {alpha: 0.3}}]", "dataset.task=regression"),
    "neighbours of a regression": (FILLED, "client.denoise=neighbours", "dataset.task=regression"),
    "rows dropped, a regression": (f"dataset.recipe=[{DROPS}]", "dataset.task=regression"),
}


def table() -> dict[str, np.ndarray]:
    """Rows of four clients one after the other; some are repeated, some lack a value, some lie far out."""
    draw = np.random.default_rng(0)
    n = CLIENTS * ROWS
    x = draw.normal(size=(n, 4)).astype(np.float32)
    y = (x[:, 0] + 0.3 * draw.normal(size=n) > 0.6).astype(np.int64)
    x[draw.random(n) < 0.1, 2] = np.nan
    x[draw.random(n) < 0.05, 1] *= 20
    x[1::9], y[1::9] = x[::9][: len(x[1::9])], y[::9][: len(y[1::9])]
    return {"x": x, "y": y, "client": np.repeat(np.arange(CLIENTS), ROWS)}


def run(folder: Path, *overrides: str, arrays: dict[str, Any] | None = None) -> Path:
    """A run of two rounds in ``folder`` on the table, or on another one."""
    np.savez(folder.with_suffix(".npz"), **(arrays or table()))
    settings = compose(
        [
            *("dataset=npz", f"dataset.path={folder.with_suffix('.npz')}", "partition=natural", "model=table_mlp"),
            *("server.seeding=random", "dataset.held_out_fraction=0.2", "num_rounds=2", "server.tensorboard=false"),
            *("client.schedule.name=constant", "client.learning_rate=0.05", "engine=inprocess", *overrides),
            *(f"run_dir={folder}", f"registry_dir={folder.parent / 'registry'}"),
        ]
    )
    return simulate(settings)


Original = Callable[[str], Path]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """The run of a treatment in this process."""

    @cache
    def original(treatment: str) -> Path:
        return run(tmp_path_factory.mktemp("original") / "run", *TREATMENTS[treatment])

    return original


def weights(run_dir: Path) -> str:
    return str(read_json(run_dir / "summary.json")["model_sha256"])


FAST = ("rows dropped, a regression", "noise, mixup, oversampling, stacked", "neighbours, undersampling")
SOME_FAST = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in TREATMENTS]


@pytest.mark.parametrize("treatment", SOME_FAST)
@pytest.mark.parametrize(
    "engine", ["forked", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)])]
)
def test_the_same_bits_whatever_trains(original: Original, tmp_path: Path, engine: str, treatment: str) -> None:
    there = run(tmp_path / "run", *TREATMENTS[treatment], f"engine={engine}", "engine.num_actors=2")
    assert weights(there) == weights(original(treatment))


def test_each_makes_a_difference(original: Original) -> None:
    assert len({weights(original(treatment)) for treatment in TREATMENTS}) == len(TREATMENTS)


@pytest.mark.parametrize("treatment", SOME_FAST)
def test_a_tell_tale_in_a_part_that_is_not_trained_on_changes_nothing(
    original: Original, tmp_path: Path, treatment: str
) -> None:
    """Rows of validation, test and server's test are swapped for others that nobody could overlook."""
    known = table()
    trained_on = {row.tobytes() for row in _rows(original(treatment), "train")}
    others = np.array([row.tobytes() not in trained_on for row in known["x"]])
    assert 0.2 * len(others) < others.sum() < 0.5 * len(others)
    planted = {name: values.copy() for name, values in known.items()}
    planted["x"][others] = 1e3 + np.arange(4)
    planted["y"][others] = 1 - known["y"][others]
    told = run(tmp_path / "told", *TREATMENTS[treatment], arrays=planted)
    assert any((row == planted["x"][others][0]).all() for row in _rows(told, "test"))
    assert weights(told) == weights(original(treatment))
    assert (open_centre(told / "centre").test.x >= 1e3).any()


def _rows(run_dir: Path, part: str) -> np.ndarray:
    store = open_store(run_dir / "devices" / "partitions")
    return np.concatenate([getattr(store.partition(client), part).x for client in range(CLIENTS)])


def test_dropped_rows_are_counted_weigh_nothing_and_are_measured_all_the_same(
    original: Original, tmp_path: Path
) -> None:
    made = original("rows dropped")
    settings = {**read_config(made), "num_clients": CLIENTS, "cohort_size": CLIENTS}
    setting = open_setting(settings, partitions=made / "devices" / "partitions", states=tmp_path)
    recipe = Recipe.from_json(setting.signature.recipe)
    parts = [setting.store.partition(client) for client in range(CLIENTS)]
    kept = [recipe.kept(part.train.x, part.train.y) for part in parts]
    left = [len(rows) for rows in kept]
    facts = read_json(made / "summary.json")["recipe"]
    assert facts["training_rows"] == sum(len(part.train) for part in parts) > sum(left) == facts["trained_on"]
    assert [one["step"] for one in facts["dropped"]] == ["deduplicate", "drop_outliers", "drop_missing"]
    assert min(one["rows"] for one in facts["dropped"]) > 0
    assert sum(one["rows"] for one in facts["dropped"]) == facts["training_rows"] - facts["trained_on"]
    updates = dict(make_updates(setting, TrainTask(1, 0, setting.model), range(CLIENTS)))
    assert [u.num_examples for u in updates.values() if isinstance(u, Update)] == left
    # A client that had the kept rows alone would send the same.
    for client, rows in enumerate(kept):
        assert np.array_equal(setting.kept(client).x, parts[client].train.x[rows], equal_nan=True)
    # Every row of a test part is measured, those too that would not be trained on.
    assert any(len(recipe.kept(part.test.x, part.test.y)) < len(part.test) for part in parts)
    reports = dict(evaluate_clients(setting, EvaluateTask(1, 0, setting.model), range(CLIENTS)))
    assert [r.num_examples for r in reports.values() if isinstance(r, EvaluationReport)] == [
        len(part.test) for part in parts
    ]


def test_what_a_client_weighs_is_its_own_rows(original: Original, tmp_path: Path) -> None:
    """Not what it draws of them: another copy is no other example."""
    made = original("noise, mixup, oversampling, stacked")
    settings = {**read_config(made), "num_clients": CLIENTS, "cohort_size": CLIENTS}
    setting = open_setting(settings, partitions=made / "devices" / "partitions", states=tmp_path)
    for client, update in make_updates(setting, TrainTask(1, 0, setting.model), range(CLIENTS)):
        assert isinstance(update, Update)
        drawn = setting.trained_on(client, round=1, purpose="train")
        assert len(drawn) > update.num_examples == len(setting.store.partition(client).train)


def test_the_summary_says_why_weights_train_one_by_one(original: Original) -> None:
    assert read_json(original("weights") / "summary.json")["training"].endswith("weighs every example by itself")
    assert read_json(original("noise, mixup, oversampling, stacked") / "summary.json")["training"] == "stacked"


def test_trees_are_grown_by_rows(tmp_path: Path) -> None:
    trees = ("model=xgboost", "strategy=fedxgbbagging")
    balanced = run(tmp_path / "balanced", *trees, "client.balance=oversample")
    assert weights(balanced) != weights(run(tmp_path / "plain", *trees))
    with pytest.raises(BadInput, match=r"client.balance: got weights, allowed: oversample, undersample or null"):
        run(tmp_path / "weighed", *trees, "client.balance=weights")
