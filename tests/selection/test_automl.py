"""`fl automl`: data and a budget in; every trial a version, one page, and an honest word on the default model out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import run
from experiments.compose import AUTOML, compose
from experiments.selection.automl import automl
from experiments.selection.candidates import DEFAULT, TRIVIAL, candidates
from fl.errors import BadInput
from fl.registry import Registry
from fl.signature import Signature

TABLE = Signature("classification", (6,), "float32", 2)
PRICES = Signature("regression", (6,), "float32", 1)
IMAGES = Signature("classification", (1, 28, 28), "float32", 10)
TEXT = Signature("next_token", (80,), "int64", 80)
QUICK = ("engine=inprocess", "server.tensorboard=false", "evaluate_clients_every=null", "evaluate_every=null")


@pytest.mark.parametrize(
    "signature, dataset, expected",
    [
        (TABLE, "heart_disease", {"linear", "network", "trees"}),
        (PRICES, "heart_disease", {"linear", "network"}),
        (IMAGES, "mnist", {"linear", "network", "convolutional network", "trees"}),
        (TEXT, "shakespeare", {"lstm", "transformer"}),
    ],
)
def test_candidates_suit_the_data_and_the_trivial_one_is_always_among_them(signature, dataset, expected):
    found = candidates(signature, learning_rate=0.1)
    names = [one.name for one in found]
    assert names[:2] == [DEFAULT, TRIVIAL] and expected <= set(names)
    for one in found:  # each composes with the data set's own settings
        assert compose([f"dataset={dataset}", *one.overrides])["num_rounds"]


@pytest.mark.parametrize(
    "words, key",
    [
        (["model=softmax"], "overrides"),
        (["num_rounds=3"], "overrides"),
        (["budget.rounds=5"], "budget.rounds"),
        (["budget.minute=5"], "budget.minute"),
    ],
)
def test_what_it_chooses_itself_and_budgets_that_are_too_small_are_refused(tmp_path, words, key):
    with pytest.raises(BadInput) as error:
        automl(["dataset=heart_disease", f"run_dir={tmp_path / 'never'}", *words])
    assert error.value.key == key and not (tmp_path / "never").exists()


def test_the_default_budget_is_said():
    assert compose([], name=AUTOML)["budget"] == {"minutes": 10.0, "rounds": 240, "at_once": 1}


@pytest.mark.slow
def test_it_finds_a_model_and_every_trial_is_a_version(tmp_path, monkeypatch, capsys):
    """On data whose classes are no linear function of the inputs, so that the default may or may not be beaten."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(2)
    x = draw.normal(size=(900, 6)).astype(np.float32)
    np.savez("d.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(np.int64), client=draw.integers(0, 4, 900))
    words = ["dataset=npz", "dataset.path=d.npz", "partition=natural", "dataset.held_out_fraction=0.2"]
    command = ["automl", *words, *QUICK, "budget.rounds=40", "run_dir=found", "--json"]
    assert run(command) == 0
    report = json.loads(capsys.readouterr().out)
    registry = Registry(tmp_path / "outputs" / "registry")
    assert sum(one["rounds"] for one in report["trials"]) + report["budget"]["rounds_left"] == 40
    by_name = {one["name"]: one for one in report["trials"]}
    assert by_name[TRIVIAL]["value"] == pytest.approx(np.log(2), abs=0.05)
    for one in report["trials"]:
        version = registry.version(one["version"])
        lineage = registry.lineage(version)
        assert version.round == one["rounds"] and lineage[-1].round == 0 and len(lineage) == one["rounds"] + 1
        assert registry.evidence(version)["trial"]["value"] == one["value"]
    # The winner has the lowest loss of those that ran all their rounds; the default is one of them.
    last = max(one["rounds"] for one in report["trials"])
    whole = [one for one in report["trials"] if one["rounds"] == last and not one["name"].startswith("bag")]
    assert by_name[DEFAULT] in whole
    assert by_name[report["winner"]]["value"] == min(one["value"] for one in whole)
    assert report["verdict"][0].startswith((f"{report['winner']} beats", f"{report['winner']} does not", "The default"))
    assert report["version"] == by_name[report["winner"]]["version"]
    page = Path(report["page"]).read_text()
    assert page.startswith("<!doctype html>") and "<script" not in page and "aria-label=disagreement" in page
    assert all(one["name"] in page for one in report["trials"])
    assert {path.suffix for path in Path("found").iterdir() if path.is_file()} == {".html", ".json"}
    assert registry.aliases() == {}  # whoever reads the page decides
    # The same command goes on: nothing is left to do, and it says the same.
    runs = len(registry.runs())
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert len(registry.runs()) == runs
    assert {key: again[key] for key in ("trials", "winner", "verdict")} == {
        key: report[key] for key in ("trials", "winner", "verdict")
    }


@pytest.mark.slow
def test_a_budget_of_minutes_ends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["dataset=heart_disease", *QUICK, "budget.rounds=60", "run_dir=found"]
    with pytest.raises(BadInput, match="the budget was spent"):
        automl([*words, "budget.minutes=0.000001"])


@pytest.mark.slow
def test_trials_at_once_are_those_of_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["dataset=heart_disease", "dataset.held_out_fraction=0.2", *QUICK, "budget.rounds=30"]
    one = automl([*words, "run_dir=one"])
    two = automl([*words, "run_dir=two", "budget.at_once=2"])

    def told(report):
        return [{key: value for key, value in trial.items() if key != "version"} for trial in report["trials"]]

    assert told(two) == told(one)
    assert {key: two[key] for key in ("winner", "verdict", "budget")} == {
        key: one[key] for key in ("winner", "verdict", "budget")
    }
