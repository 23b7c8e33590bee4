"""The configuration tree: every choice composes, agrees with the code that it names, and leaves nothing to guess."""

from __future__ import annotations

import importlib
import inspect
from itertools import zip_longest
from pathlib import Path

import flwr.serverapp.strategy as stock
import pytest
import yaml

from conf import schema
from experiments.choices import (
    FOLDER,
    GROUPS,
    LIFECYCLE_GROUPS,
    choices,
    closest,
    defaults,
    flat,
    meanings,
    one_of,
    summary,
    values,
)
from experiments.compose import LIFECYCLE, compose, jobs
from fl.data.catalog import CATALOG, load
from fl.data.partition import PARTITIONERS
from fl.errors import BadInput
from fl.run_config import flatten, unflatten
from server.app import build_strategy, round_options

FILES = ["dataset.path=/data/mine", "dataset.label=y"]
OPEN = ("model", "algorithm", "strategy")


@pytest.fixture(scope="module")
def default() -> dict:
    return compose([])


def function(target: str):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def options_of(target: str) -> dict:
    """Name -> default of what can be passed by name and has a default."""
    parameters = inspect.signature(function(target)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def listed(value):
    return list(value) if isinstance(value, tuple) else value


# What is there


def test_the_default_is_the_one_of_the_issue(default):
    assert default["dataset"]["name"] == "mnist"
    assert default["partition"] == {"name": "shards", "shards_per_client": 2}
    assert default["model"]["_target_"] == "fl.models.mlp.build"
    assert default["algorithm"]["_target_"] == "fl.algorithms.fedavg.build"
    assert default["strategy"] == {"_target_": None}
    assert (default["num_clients"], default["cohort_size"], default["seed"]) == (100, 10, 1)
    assert default["server"]["seeding"] == "pretrained" and default["client"]["sends"] == "fresh"
    assert default["dataset"]["validation_fraction"] == default["dataset"]["test_fraction"] == 0.1
    assert default["evaluate_every"] == 1 and default["engine"]["name"] == "auto"


def test_groups_are_the_folders():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*GROUPS, *LIFECYCLE_GROUPS, "hydra"}  # Hydra's own group: sweepers


def test_every_choice_composes():
    """The first choice of every group together, then the second ...: whatever does not go together is seen later."""
    free = [group for group in GROUPS if group not in ("model", "dataset", "experiment")]
    columns = [[f"{group}={name}" for name in choices(group)] for group in free]
    datasets = [f"dataset={name}" for name in choices("dataset")]
    models = [f"model={name}" for name in choices("model") if name != "custom"]
    for chosen in zip_longest(*columns, datasets, models):
        overrides = [text for text in chosen if text]
        settings = compose(overrides)
        for text in overrides:
            group, _, name = text.partition("=")
            if group in ("dataset", "partition", "engine"):
                assert settings[group]["name"] == name
        assert set(settings) == {"seed", *settings} and not set(settings) & {
            "defaults",
            "hydra",
            "experiment",
            "schema",
        }


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_composes(name):
    settings = compose([f"experiment={name}"])
    assert settings["num_rounds"] > 0 and settings["dataset"]["name"] in CATALOG


@pytest.mark.parametrize("name", choices("business"))
def test_every_business_composes_with_a_simulation_around_it(name):
    settings = compose([f"business={name}", "dataset=heart_disease"], name=LIFECYCLE)
    assert set(settings) == {
        *compose([]),
        "business",
        "evaluation",
        "keep_runs",
        "package",
        "rules",
        "selection",
        "stage",
    }


@pytest.mark.parametrize("group", [group for group in (*GROUPS, *LIFECYCLE_GROUPS) if group != "experiment"])
def test_every_choice_says_what_it_is(group):
    for name in choices(group):
        assert summary(group, name).endswith("."), f"{group}/{name}.yaml begins with a comment that says what it is"


def test_catalog_and_tree_name_the_same():
    assert choices("dataset") == sorted(CATALOG)
    assert choices("partition") == sorted(PARTITIONERS)
    modules = {path.stem for path in (FOLDER.parent / "fl/algorithms").glob("*.py")} - {"__init__", "algorithm"}
    assert set(choices("algorithm")) == modules


@pytest.mark.parametrize("name", [name for name in choices("dataset") if name != "function"])
def test_data_set_options_are_those_of_the_catalog(name):
    known = {p.name: p.default for p in inspect.signature(load).parameters.values()}
    for key, value in values("dataset", name).items():
        if not key.endswith("_fraction") and key not in ("name", "max_server_test", "quarantine", "recipe"):
            assert known[key] == value, f"dataset/{name}.yaml: {key}"


@pytest.mark.parametrize("name", choices("partition"))
def test_partition_options_are_those_of_the_function(name):
    parameters = inspect.signature(PARTITIONERS[name]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "client"}
    written = values("partition", name)
    assert written.pop("name") == name
    assert set(written) == set(known)
    assert {k: v for k, v in known.items() if k != "base"} == {k: v for k, v in written.items() if k != "base"}


@pytest.mark.parametrize(
    "group, name", [(g, n) for g in ("model", "algorithm") for n in choices(g) if n != "custom"], ids=str
)
def test_arguments_are_those_of_the_build_function(group, name):
    written = values(group, name)
    target = written.pop("_target_")
    assert target == f"fl.{group}s.{name}.build"
    assert {key: listed(value) for key, value in options_of(target).items()} == written


def test_every_setting_has_a_meaning(default):
    known = set(meanings(schema.Simulate)) | {
        f"{group}.{key}" for group, kinds in schema.CHOICES.items() for kind in kinds.values() for key in meanings(kind)
    }
    for group in ("dataset", "partition"):
        known |= {f"{group}.{key}" for name in choices(group) for key in values(group, name)}
    closed = [key for key in flat(default) if not key.startswith(OPEN)]
    assert closed and set(closed) <= known


# Flower's strategies


def test_every_stock_strategy_has_a_file():
    named = {values("strategy", name)["_target_"] for name in choices("strategy")} - {None}
    given = {f"flwr.serverapp.strategy.{name}" for name in stock.__all__} - {
        "flwr.serverapp.strategy.Strategy",
        "flwr.serverapp.strategy.Result",
    }
    assert named == given


AVERAGING = [name for name in choices("strategy") if name != "own" and not name.startswith("fedxgb")]


@pytest.mark.parametrize("name", AVERAGING)
def test_a_stock_strategy_is_built_from_its_file(name):
    settings = compose([f"strategy={name}", "num_clients=40", "cohort_size=8"])
    chosen = settings["strategy"]
    strategy = build_strategy(settings, {}, (), round_options(settings, 40), 40)
    assert type(strategy).__name__ == chosen["_target_"].rpartition(".")[2]
    asked = getattr(strategy, "strategy", strategy)
    assert getattr(strategy, "num_sampled_clients", 8) == 8
    assert asked.min_available_nodes == 8
    assert asked.fraction_train == chosen.get("fraction_train", 0.2)
    for key, value in chosen.items():
        # Adaptive clipping derives two from what is given (Andrew et al., 2021, theorem 1).
        if key in vars(strategy) and key not in ("strategy", "noise_multiplier", "clipped_count_stddev"):
            assert vars(strategy)[key] == value, key


# What follows from what


@pytest.mark.parametrize(
    "overrides, model, partition",
    [
        (["dataset=mnist"], "mlp", "shards"),
        (["dataset=fashion_mnist"], "mlp", "shards"),
        (["dataset=shakespeare"], "lstm", "natural"),
        (["dataset=heart_disease"], "table_mlp", "natural"),
        (["dataset=synthetic"], "softmax", "natural"),
        (["dataset=npz", FILES[0]], "softmax", "shards"),
        (["dataset=csv", *FILES], "table_mlp", "natural"),
        (["dataset=shakespeare", "model=transformer"], "transformer", "natural"),
        (["partition=iid", "dataset=shakespeare"], "lstm", "iid"),
        (["experiment=mnist_cnn"], "cnn", "shards"),
        (["experiment=mnist_cnn", "model=softmax", "partition=iid"], "softmax", "iid"),
    ],
)
def test_a_data_set_brings_its_model_and_partition_unless_they_are_chosen(overrides, model, partition):
    settings = compose(overrides)
    assert settings["model"]["_target_"] == f"fl.models.{model}.build"
    assert settings["partition"]["name"] == partition


def test_an_experiment_wins_over_defaults_and_loses_to_what_is_typed():
    assert compose(["experiment=mnist_cnn"])["num_rounds"] == 100
    typed = compose(["experiment=mnist_cnn", "num_rounds=3", "client.local_epochs=2"])
    assert (typed["num_rounds"], typed["client"]["local_epochs"], typed["client"]["batch_size"]) == (3, 2, 10)


@pytest.mark.parametrize(
    "overrides, num_clients, cohort_size",
    [
        ([], 100, 10),
        (["num_clients=7"], 7, 7),
        (["num_clients=30", "cohort_size=3"], 30, 3),
        (["partition=natural"], None, None),
        (["partition=natural", "cohort_size=4"], None, 4),
        (["partition=natural", "num_clients=8"], 8, 8),
    ],
)
def test_how_many_take_part(overrides, num_clients, cohort_size):
    settings = compose(overrides)
    assert (settings["num_clients"], settings["cohort_size"]) == (num_clients, cohort_size)


def test_folders_and_files_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = compose(["dataset=npz", "dataset.path=mine.npz", "run_dir=here"])
    assert settings["dataset"]["path"] == str(tmp_path / "mine.npz")
    assert settings["run_dir"] == str(tmp_path / "here")
    assert settings["registry_dir"] == str(tmp_path / "outputs/registry")
    assert compose(["dataset=hub", "dataset.path=ylecun/mnist"])["dataset"]["path"] == "ylecun/mnist"
    assert list(tmp_path.iterdir()) == []


def test_two_runs_get_two_folders():
    first, second = (Path(compose([])["run_dir"]) for _ in range(2))
    assert first.parent == second.parent == Path.cwd() / "outputs/runs"
    assert first != second


def test_a_function_may_be_called_target_and_takes_arguments():
    own = ["dataset=function", "dataset._target_=my.data", "dataset.function_arguments.size=3"]
    dataset = compose(own)["dataset"]
    assert dataset["function"] == "my.data" and dataset["function_arguments"] == {"size": 3}
    assert "_target_" not in dataset
    assert compose(["dataset=function", "dataset.function=f.py:g"])["dataset"]["function"] == "f.py:g"


def test_a_model_of_ones_own_takes_any_argument():
    settings = compose(["model=custom", "model._target_=my.Net", "model.width=3"])
    assert settings["model"] == {"_target_": "my.Net", "width": 3}


def test_settings_survive_yaml_and_flowers_flat_run_config(default):
    assert yaml.safe_load(yaml.safe_dump(default)) == default
    assert unflatten(flatten(default)) == default


# Multirun


def test_jobs_are_the_product_in_order():
    assert jobs(["seed=1,2", "num_rounds=3", "strategy=fedavg,krum"]) == [
        [f"seed={seed}", "num_rounds=3", f"strategy={strategy}"] for seed in (1, 2) for strategy in ("fedavg", "krum")
    ]
    assert jobs(["seed=range(1,4)"]) == [["seed=1"], ["seed=2"], ["seed=3"]]


def test_composing_leaves_hydra_as_it_was():
    from hydra.core.global_hydra import GlobalHydra

    compose([])
    with pytest.raises(BadInput, match="nothing"):
        compose(["nothing=1"])
    assert not GlobalHydra.instance().is_initialized()


# Names


def test_closest_names():
    assert one_of(["csv", "mnist"], "mnits") == "one of csv, mnist; the closest is mnist"
    assert one_of(["csv", "mnist"], "zebra") == "one of csv, mnist"
    assert closest(["client.learning_rate"], "clinet.learning_rate", cutoff=0.8) == ["client.learning_rate"]


def test_defaults_are_those_that_hydra_takes(default):
    for group, name in defaults().items():
        if group not in OPEN:
            assert values(group, name) == flat(default[group]), group
