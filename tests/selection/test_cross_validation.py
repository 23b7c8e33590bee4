"""`fl cv`: the figures of scikit-learn where the setting is the same, and a folder that can be gone on with."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate as theirs

from experiments.cli import run
from experiments.selection.cross_validation import cross_validate
from fl.data.folds import LEFT_OUT
from fl.data.store import open_store
from fl.errors import BadInput
from fl.registry import Registry

QUICK = ("engine=inprocess", "server.tensorboard=false", "evaluate_clients_every=null", "evaluate_every=null")
# Every client takes one step on all of its examples a round: gradient descent on the pooled ones.
DESCENT = ("client.batch_size=null", "client.local_epochs=null", "client.local_steps=1", "client.learning_rate=4")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(4)
    x = draw.normal(size=(150, 3)).astype(np.float32)
    chance = 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.5])))
    y = (draw.random(150) < chance).astype(np.int64)
    client = np.repeat([0, 1, 2], [20, 60, 70])
    np.savez(tmp_path / "d.npz", x=x, y=y, client=client, x_test=x[:9], y_test=y[:9])
    return tmp_path


def asked(*more: str) -> list[str]:
    data = ["dataset=npz", "dataset.path=d.npz", "partition=natural", "model=logistic", "server=random"]
    return [*data, "client.schedule.name=constant", *DESCENT, *QUICK, *more]


@pytest.mark.parametrize("over", ["examples", pytest.param("clients", marks=pytest.mark.slow)])
def test_the_figures_are_those_of_scikit_learn_on_the_pooled_data(folder, over):
    found = cross_validate(asked("num_rounds=40", "run_dir=cv"), folds=3, over=over)
    pooled = np.load(folder / "d.npz")
    place = {tuple(row): i for i, row in enumerate(pooled["x"].tolist())}

    def rows(store, part):
        opened = open_store(store)
        parts = [getattr(opened.partition(c), part) for c in range(opened.num_clients)]
        return [place[tuple(row)] for one in parts for row in one.x.tolist()]

    folds = [folder / "cv" / str(i) / "devices" for i in range(3)]
    left = "partitions" if over == "examples" else LEFT_OUT
    splits = [(rows(f / "partitions", "train"), rows(f / left, "test")) for f in folds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # how no penalty is spelled changes
        scores = theirs(
            LogisticRegression(C=1e9, tol=1e-8),
            pooled["x"],
            pooled["y"],
            cv=splits,
            scoring=["accuracy", "neg_log_loss"],
        )
    ours = {name: [fold["metrics"][name] for fold in found["folds"]] for name in ("accuracy", "loss")}
    assert ours["accuracy"] == pytest.approx(scores["test_accuracy"].tolist())
    assert ours["loss"] == pytest.approx((-scores["test_neg_log_loss"]).tolist(), abs=2e-4)
    assert found["mean"]["accuracy"] == pytest.approx(scores["test_accuracy"].mean())
    assert found["deviation"]["accuracy"] == pytest.approx(scores["test_accuracy"].std(ddof=1))
    assert sum(fold["examples"] for fold in found["folds"]) == 150


def test_each_fold_is_a_run_with_versions_and_the_folder_can_be_gone_on_with(folder, capsys):
    command = ["cv", *asked("num_rounds=2", "run_dir=cv"), "--folds", "2", "--json"]
    assert run(command) == 0
    first = json.loads(capsys.readouterr().out)
    registry = Registry(folder / "outputs" / "registry")
    for fold in first["folds"]:
        evidence = registry.evidence(fold["version"])["fold"]
        assert evidence["metrics"] == fold["metrics"] and evidence["number"] == 2
        assert registry.version(fold["version"]).round == 2
    # A model that saw only a part of the data does not become champion by itself.
    assert registry.aliases() == {}
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(registry.runs()) == 2
    with pytest.raises(BadInput, match="run_dir"):
        cross_validate(asked("num_rounds=3", "run_dir=cv"), folds=2, over="examples")


def test_the_central_mode_takes_public_examples_or_refuses(folder):
    public = ("dataset.public_fraction=0.3", "server=pretrained", "run_dir=central")
    found = cross_validate(asked(*public), folds=3, over="public")
    assert sum(fold["examples"] for fold in found["folds"]) == 45
    assert all(fold["clients"] == 0 and fold["version"].endswith(":0") for fold in found["folds"])
    assert found["mean"]["accuracy"] > 0.6
    with pytest.raises(BadInput, match="pretrained"):
        cross_validate(asked("run_dir=none"), folds=3, over="public")
    with pytest.raises(BadInput, match="public"):
        cross_validate(asked(*public[:2], "dataset.public_fraction=0.01", "run_dir=few"), folds=3, over="public")
    assert not (folder / "none").exists()


@pytest.mark.slow
def test_folds_at_once_have_the_figures_of_folds_one_by_one_and_a_fold_that_fails_is_named(folder):
    one = cross_validate(asked("num_rounds=2", "run_dir=one"), folds=3, over="examples")
    two = cross_validate(asked("num_rounds=2", "run_dir=two"), folds=3, over="examples", at_once=2)
    for report in (one, two):
        for fold in report["folds"]:
            fold.pop("version")
    assert {key: two[key] for key in ("folds", "mean")} == {key: one[key] for key in ("folds", "mean")}
    cross_validate(asked("num_rounds=1", "run_dir=other"), folds=2, over="examples", at_once=2)
    with pytest.raises(BadInput, match=r"fold 0, run_dir: got .*the settings that the run in it was started with"):
        cross_validate(asked("num_rounds=2", "run_dir=other"), folds=2, over="examples", at_once=2)
