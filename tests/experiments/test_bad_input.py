"""Bad input ends before any work: exit status 2, one message with key, got and allowed, and nothing left behind."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from experiments.compose import compose
from experiments.rules import RULES, check
from experiments.simulate import sweep
from fl.errors import BadInput


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys):
    """Runs a command line that must be refused; the message, without what it begins with."""

    def run(*arguments: str) -> str:
        assert cli.run(list(arguments)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ") and err.count("\n") == 1, err
        return err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def nothing_is_left():
    """Nothing but an empty registry, which many runs share, may be there."""
    before = set(Path().rglob("*"))
    yield
    made = {path for path in set(Path().rglob("*")) - before if path.is_file()}
    assert made == set()
    assert not Path("outputs/runs").exists() or not list(Path("outputs/runs").iterdir())


def message(key: str, got: str, allowed: str) -> str:
    return re.escape(f"{key}: got {got}, allowed: {allowed}")


TOP = "the keys: seed, num_clients, cohort_size, num_rounds, run_dir, registry_dir"
DATASETS = (
    "one of csv, fashion_mnist, function, heart_disease, hub, jsonl, mnist, npz, parquet, shakespeare, sql, synthetic"
)

# What is typed -> what is said: its beginning, up to which allowed is worth holding.
CASES: list[tuple[list[str], str]] = [
    # unknown keys
    (["foo=1"], message("foo", "1", TOP)),
    (["+foo=1"], message("foo", "1", TOP)),
    (["client.lr=1"], message("client.lr", "1", "the keys of client: ") + ".*batch_size, local_epochs"),
    (["clinet.learning_rate=1"], message("clinet.learning_rate", "1", TOP) + ".*; did you mean client.learning_rate?"),
    (["learning_rate=0.1"], message("learning_rate", "0.1", TOP) + ".*did you mean client.learning_rate"),
    (["model.hiden=[1]"], message("model.hiden", "[1]", "the keys of model: _target_, hidden, dropout; did you mean")),
    (["dataset.alpha=3"], message("dataset.alpha", "3", "the keys of dataset: name, validation_fraction")),
    (["client={lr: 0.5}"], message("client.lr", "a key", "the keys of client: ")),
    # unknown choices
    (["dataset=mnits"], message("dataset", "mnits", f"{DATASETS}; the closest is mnist")),
    (["dataset=null"], message("dataset", "null", DATASETS)),
    (["dataset=[mnist,csv]"], message("dataset", "[mnist,csv]", DATASETS)),
    (["partition=shard"], message("partition", "shard", "one of concept_shift, ") + ".*closest is shards"),
    (["strategy=fedavgn"], message("strategy", "fedavgn", "one of bulyan, ") + ".*closest is fedavg"),
    (["algorithm=fedsgd"], message("algorithm", "fedsgd", "one of fedadam, fedavg, fedprox, scaffold")),
    (["engine=spark"], message("engine", "spark", "one of auto, forked, inprocess, ray")),
    (["client=5"], message("client", "5", "one of adam, personal, sgd")),
    (["experiment=foo"], message("experiment", "foo", "one of ") + ".*mnist_cnn"),
    # types
    (["client.learning_rate=abc"], message("client.learning_rate", "abc", "a number")),
    (["seed=1.5"], message("seed", "1.5", "a whole number")),
    (["seed=null"], message("seed", "null", "a whole number")),
    (["num_clients=many"], message("num_clients", "many", "a whole number or null")),
    (["client.personal=maybe"], message("client.personal", "maybe", "true or false")),
    (["dataset=csv", "dataset.features=a"], message("dataset.features", "a", "a list of names: [a,b] or null")),
    # grammar
    (["seed"], message("seed", "'seed'", "KEY=VALUE")),
    (["seed=[1"], message("seed", "'[1'", "KEY=VALUE")),
    (["seed=1,2"], message("seed", "1,2", "one value; --multirun runs them all")),
    (["run_dir=a,b", "--multirun"], message("run_dir", "a,b", "one folder; each job gets one of its own")),
    (["~model"], message("model", "nothing", "a value")),
    (["~client.momentum"], message("overrides", "~client.momentum", "what Hydra can compose")),
    (["seed=${foo}"], message("seed", "${foo}", "a value (Interpolation key 'foo' not found)")),
    (["model=custom"], message("model._target_", "nothing", "a value")),
    (["hydra/sweeper=none"], message("hydra/sweeper", "none", "one of asha, basic, grid, random, tpe")),
    # values, files and folders
    (["client.learning_rate=-1"], message("client.learning_rate", "-1.0", "a number above 0")),
    (["cohort_size=101"], message("cohort_size", "101", "1 to num_clients=100")),
    (["dataset.name=zebra"], message("dataset.name", "zebra", DATASETS)),
    (["dataset=npz", "dataset.task=guess"], message("dataset.task", "guess", "one of auto, classification")),
    (["dataset=csv"], message("dataset.path", "null", "the path of a .csv file that exists")),
    (["algorithm=scaffold", "strategy=fedavg"], message("algorithm", "scaffold", "fedavg or fedprox")),
    (["engine=inprocess", "server.deadline_seconds=5"], message("engine", "inprocess", "forked, ray or auto with")),
    (["run_dir=/proc/run"], message("run_dir", "/proc/run", "a folder that can be written")),
    (["registry_dir=/proc/versions"], message("registry_dir", "/proc/versions", "a folder that can be written")),
    (["--config-dir=nowhere"], message("--config-dir", "nowhere", "a folder")),
    (["--cfg=jobs"], message("--cfg", "jobs", "one of job, hydra, all; the closest is job")),
]

# What a setting is set to -> what is said.
VALUES: list[tuple[dict[str, object], str]] = [
    ({"client.learning_rate": 0.0}, message("client.learning_rate", "0.0", "a number above 0")),
    ({"client.learning_rate": float("inf")}, message("client.learning_rate", "inf", "a number above 0")),
    ({"client.learning_rate": float("nan")}, message("client.learning_rate", "nan", "a number above 0")),
    ({"cohort_size": 0}, message("cohort_size", "0", "a whole number, at least 1")),
    ({"num_clients": 0}, message("num_clients", "0", "a whole number, at least 1")),
    ({"num_rounds": -1}, message("num_rounds", "-1", "a whole number, at least 0")),
    ({"evaluate_every": 0}, message("evaluate_every", "0", "a whole number, at least 1, or null")),
    ({"client.batch_size": 0}, message("client.batch_size", "0", "above 0")),
    ({"client.local_epochs": 0}, message("client.local_epochs", "0", "above 0")),
    ({"client.local_epochs": None}, "client.local_epochs: got None, allowed: a number of epochs"),
    ({"client.optimizer": "foo"}, message("client.optimizer", "foo", "sgd, or a class of torch.optim")),
    ({"client.schedule.name": "foo"}, message("client.schedule.name", "foo", "constant, exponential, step, cosine")),
    ({"client.sends": "all"}, message("client.sends", "all", "one of fresh, personal")),
    ({"client.nesterov": True}, message("client.nesterov", "true", "false, or a client.momentum above 0")),
    ({"dataset.test_fraction": 1.5}, message("dataset.test_fraction", "1.5", "a number at least 0 and below 1")),
    ({"dataset.test_fraction": 0.9}, "dataset.validation_fraction: got 0.1, with 0.9 for dataset.test_fraction, "),
    ({"dataset.public_fraction": 0.9}, "dataset.public_fraction: got 0.9, with 0.1 for dataset.held_out_fraction, "),
    ({"server.weighting": "by"}, message("server.weighting", "by", "one of examples, uniform")),
    ({"server.quorum": 2.0}, message("server.quorum", "2.0", "0 to 1")),
    ({"client.dropout_fraction": 1.0}, message("client.dropout_fraction", "1.0", "a number at least 0 and below 1")),
    ({"server.keep_versions": "some"}, message("server.keep_versions", "some", "all, last:K or every:K")),
    ({"engine.num_actors": 0}, message("engine.num_actors", "0", "a whole number, at least 1, or null")),
    ({"algorithm.server_learning_rate": 0}, message("algorithm.server_learning_rate", "0", "a number above 0")),
    (
        {"evaluate_every": None, "server.early_stopping.metric": "loss"},
        message("server.early_stopping.metric", "loss", "null, or evaluate_every=1"),
    ),
]


@pytest.fixture(scope="module")
def settings() -> dict:
    return compose([])


@pytest.mark.parametrize("changes, expected", VALUES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_value_is_refused(settings, changes, expected):
    changed = deepcopy(settings)
    for key, value in changes.items():
        *path, last = key.split(".")
        section = changed
        for name in path:
            section = section[name]
        assert last in section
        section[last] = value
    with pytest.raises(BadInput, match=f"^{expected}"):
        check(changed)
    assert not Path("outputs").exists()


def test_the_default_settings_are_allowed(settings, tmp_path):
    check(settings | {"run_dir": str(tmp_path / "run"), "registry_dir": str(tmp_path / "registry")})
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    "overrides, expected", CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_is_typed_is_refused(refused, overrides, expected):
    assert re.match(expected, refused("simulate", *overrides))


def test_every_rule_refuses_something():
    """Nothing passes every rule: each has a value that it does not hold for, of the type of its setting."""
    for rule in RULES:
        assert not all(rule.holds(value) for value in _candidates(rule.key)), rule.key


def _candidates(key: str) -> list:
    named = key.endswith((".name", ".task", ".missing", ".sends", ".weighting"))
    return ["no such word"] if named else [-1]


# A multirun is refused as a whole


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    "overrides, key",
    [
        (["seed=1,2", "dataset=synthetic,mnits"], "dataset"),
        (["client.learning_rate=0.1,-1"], "client.learning_rate"),
        (["seed=1,x"], "seed"),
        (["algorithm=fedavg,scaffold", "strategy=own,fedavg"], "algorithm"),
        (["cohort_size=5,500"], "cohort_size"),
    ],
)
def test_one_bad_job_stops_all_before_the_first(overrides, key):
    started = []
    with pytest.raises(BadInput) as caught:
        sweep(overrides, run=lambda settings: started.append(settings))
    assert caught.value.key == key
    assert started == [] and not list(Path("outputs").glob("multirun/*"))


def test_a_bad_multirun_has_the_same_exit_status(refused):
    assert refused("simulate", "-m", "seed=1,2", "dataset=mnits").startswith("dataset: got mnits")


# Data, models and folders, through the command line


def archive(path: Path, **arrays: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    whole = {
        "x": rng.integers(0, 255, (60, 8, 8), dtype=np.uint8),
        "y": np.arange(60) % 3,
        "client": np.arange(60) % 6,
    } | arrays
    np.savez(path, **whole)
    return f"dataset.path={path}"


RUN = ["simulate", "dataset=npz", "engine=inprocess", "num_rounds=1", "run_dir=run", "server.tensorboard=false"]


def test_a_missing_file(refused):
    assert re.match(
        message("dataset.path", str(Path.cwd() / "no.npz"), "the path of a .npz file that exists"),
        refused(*RUN, "dataset.path=no.npz"),
    )
    assert not Path("run").exists()


def test_a_truncated_file(refused):
    archive(Path("cut.npz"))
    content = Path("cut.npz").read_bytes()
    Path("cut.npz").write_bytes(content[: len(content) // 2])
    assert re.match(r"dataset\.path: got .*cut\.npz.*allowed: ", refused(*RUN, "dataset.path=cut.npz"))
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "arrays, named",
    [
        ({"y": np.zeros(7, np.int64)}, "y"),
        ({"client": np.zeros((60, 2), np.int64)}, "client"),
        ({"x_test": np.zeros((5, 3, 3), np.uint8), "y_test": np.zeros(5, np.int64)}, "x_test"),
        ({"x": np.array(["a"] * 60)}, "x"),
    ],
    ids=["y", "client", "x_test", "x"],
)
def test_an_array_of_the_wrong_shape_is_named(refused, arrays, named):
    said = refused(*RUN, archive(Path("data.npz"), **arrays))
    assert re.match(rf"dataset\.(path|client): got .*\b{named}\b.*allowed: ", said)
    assert not Path("run").exists()


def test_an_empty_partition_names_the_client(refused):
    # Two clients are to share the one example of class 2.
    y = np.minimum(np.arange(60) // 30, 1)
    y[59] = 2
    test = {"x_test": np.zeros((3, 8, 8), np.uint8), "y_test": np.arange(3)}
    skew = ["partition=label_skew", "partition.classes_per_client=1", "num_clients=6", "server.seeding=random"]
    said = refused(*RUN, *skew, archive(Path("data.npz"), y=y, **test))
    assert re.match(r"partition: got label_skew leaves client \d of 6 without examples, allowed: at least one", said)
    assert not Path("run").exists()


def test_more_clients_than_examples(refused):
    said = refused(*RUN, "num_clients=61", "partition=quantity_skew", archive(Path("data.npz")))
    assert re.match(r"num_clients: got 61, allowed: at most \d+ clients", said)


def test_a_cohort_larger_than_a_natural_population(refused):
    said = refused(*RUN, "partition=natural", "cohort_size=7", archive(Path("data.npz")))
    assert said == "cohort_size: got 7, allowed: 1 to num_clients=6"
    assert not Path("run").exists()


MODEL = """
from torch import nn

def wrong():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
"""


def test_a_model_that_does_not_fit_the_classes(refused, monkeypatch):
    Path("my_model_of_seven.py").write_text(MODEL)
    monkeypatch.syspath_prepend(Path.cwd())
    own = ["model=custom", "model._target_=my_model_of_seven.wrong"]
    said = refused(*RUN, "num_clients=3", *own, archive(Path("data.npz")))
    assert re.match(r"model: got .*\(N, 7\), allowed: \(N, 3\) for this data set's classification", said)
    assert not Path("run").exists()


def test_a_model_that_cannot_be_found(refused):
    said = refused(*RUN, "num_clients=3", "model=custom", "model._target_=no.such.Net", archive(Path("data.npz")))
    assert said.startswith("model._target_: got no.such.Net, allowed: ")


def test_a_folder_that_is_a_file(refused):
    Path("taken").write_text("")
    assert refused("simulate", "run_dir=taken/run").startswith(
        f"run_dir: got {Path.cwd()}/taken/run, allowed: a folder"
    )


def test_a_folder_that_holds_a_run(refused):
    Path("old").mkdir()
    Path("old/config.yaml").write_text("")
    said = refused("simulate", "run_dir=old")
    assert said.startswith("run_dir: got ") and said.endswith(f"fl resume {Path.cwd() / 'old'}")


# The other commands


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["resume", "nowhere"], "RUN_DIR: got nowhere, which is not there, allowed: the folder of a run"),
        (["resume", "."], "RUN_DIR: got ., which holds no config.yaml, allowed: the folder of a run"),
        (["export", "champion"], "--registry: got outputs/registry, allowed: a folder with versions in it"),
        (["data", "show", "mnits"], f"dataset: got mnits, allowed: {DATASETS}; the closest is mnist"),
        (["data", "show", "mnist", "--output", "x.pdf"], "--output: got x.pdf, allowed: a file name that ends in .png"),
        (["simulat"], "No such command 'simulat'. Did you mean 'simulate'? See: fl --help"),
        (["simulate", "--nothing"], "No such option"),
        (["resume"], "Missing argument 'RUN_DIR'. See: fl resume --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_commands_refuse_in_the_same_words(refused, arguments, expected):
    assert refused(*arguments).startswith(expected)
