"""The errors of several models: who misses what, the few that err differently, and what an ensemble makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.cli import run
from experiments.selection.page import page
from experiments.selection.shortlist import analyse, compare
from fl.errors import BadInput
from fl.evaluation.answers import Answers
from fl.evaluation.ensembles import stack, vote
from fl.evaluation.shortlist import disagreement, misses, shortlist
from fl.signature import Signature

CLASSES = Signature("classification", (2,), "float32", 3)
NUMBERS = Signature("regression", (2,), "float32", 1, target_mean=1.0, target_std=2.0)
N = 600


def truth(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, N)


def model(seed: int, wrong: float, *, sure: float = 2.0) -> Answers:
    """Misses a share of the examples, each model others."""
    draw, y = np.random.default_rng(seed), truth()
    said = np.where(draw.random(N) < wrong, (y + draw.integers(1, 3, N)) % 3, y)
    return Answers(CLASSES, sure * np.eye(3)[said] + 0.01 * draw.normal(size=(N, 3)), y)


def test_disagreement_is_the_share_that_exactly_one_of_two_misses():
    found = [model(1, 0.2), model(2, 0.3), model(3, 0.4)]
    table = disagreement([misses(answers) for answers in found])
    for i, one in enumerate(found):
        for j, other in enumerate(found):
            expected = np.mean((one.predicted == one.y) != (other.predicted == other.y))
            assert table[i, j] == pytest.approx(expected)


def test_a_number_is_missed_where_it_is_further_off_than_the_mean():
    answers = Answers(NUMBERS, np.array([1.5, 9.0]), np.array([2.0, 2.0]))
    assert misses(answers).tolist() == [False, True]


def test_the_shortlist_begins_with_the_best_and_leaves_out_who_errs_like_it():
    best = model(1, 0.2)
    twin = Answers(CLASSES, best.outputs.copy(), best.y)
    twin.outputs[:5] = -twin.outputs[:5]  # no more than a hundredth of the examples
    found = {"bad": model(9, 0.9), "best": best, "twin": twin, "other": model(2, 0.25), "third": model(3, 0.3)}
    chosen = shortlist(found)
    assert chosen[0] == "best" and set(chosen[1:3]) == {"other", "third"}
    assert "twin" not in chosen and "bad" not in chosen
    assert len(shortlist({str(i): model(i, 0.2 + 0.01 * i) for i in range(9)})) <= 5
    assert len(shortlist({"one": best, "twin": best})) == 2  # there are no others


def test_a_vote_is_the_mean_of_the_probabilities():
    members = [model(1, 0.2), model(2, 0.3)]
    expected = (members[0].probabilities + members[1].probabilities) / 2
    assert np.allclose(vote(members).probabilities, expected)
    numbers = [Answers(NUMBERS, np.array([1.0, 3.0]), np.zeros(2)), Answers(NUMBERS, np.array([3.0, 4.0]), np.zeros(2))]
    assert vote(numbers).predicted.tolist() == [2.0, 3.5]


def test_stacking_is_scikit_learns_model_of_the_members_answers():
    members = [model(1, 0.2), model(2, 0.3)]
    first, second = np.arange(300), np.arange(300, N)
    stacked = stack([m.only(first) for m in members], [m.only(second) for m in members])
    columns = np.concatenate([np.log(m.probabilities) for m in members], axis=1)
    theirs = LogisticRegression(C=0.1, max_iter=2000).fit(columns[first], truth()[first])
    assert np.allclose(stacked.probabilities, theirs.predict_proba(columns[second]), atol=1e-6)


def test_an_ensemble_beats_its_best_member_or_says_that_it_does_not():
    apart = analyse({f"m{i}": model(i, 0.3) for i in range(5)}, seed=1)
    voted = apart["ensembles"][0]
    assert voted["beats"] and voted["verdict"].startswith("beats its best member") and voted["p"] < 0.01
    assert voted["accuracy"] > voted["best_value"] + 0.05
    same = model(1, 0.3)
    alike = analyse({"a": same, "b": same, "c": same}, seed=1, bags={"bag": ["a", "b"]})
    for one in alike["ensembles"][:2]:
        assert not one["beats"] and one["verdict"].startswith("does not beat its best member")
    assert alike["ensembles"][1]["kind"] == "bagging"


def test_nothing_is_told_on_the_half_that_chose():
    found = {f"m{i}": model(i, 0.3) for i in range(3)}
    report = analyse(found, seed=4)
    assert report["examples"] == {"chosen_on": N // 2, "told_on": N // 2}
    other = analyse(found, seed=5)
    assert other["models"] != report["models"]  # another half
    assert analyse(found, seed=4) == report
    assert sum(report["missed_by"]) == N // 2
    hardest = report["hardest"][0]
    for name, answers in found.items():
        assert (answers.predicted[hardest["example"]] != hardest["target"]) == (name in hardest["missed_by"])


def test_the_page_has_the_matrix_and_every_figure():
    report = analyse({f"m{i}": model(i, 0.3) for i in range(4)}, seed=1)
    text = page(report, title="A <b> title")
    assert "A &lt;b&gt; title" in text and "<script" not in text and "http" not in text
    drawn = re.search(r"<svg[^>]*aria-label=disagreement>(.*?)</svg>", text, re.S)
    assert drawn is not None and drawn[1].count("<rect") == 16
    for one in report["ensembles"]:
        assert one["verdict"] in text.replace("&#x27;", "'")


def test_versions_of_other_test_examples_are_not_compared():
    other = Answers(CLASSES, model(1, 0.3).outputs, truth(seed=7))
    with pytest.raises(BadInput, match="test examples of a"):
        analyse({"a": model(1, 0.3), "b": other}, seed=1)
    with pytest.raises(BadInput, match="two versions or more"):
        analyse({"a": model(1, 0.3)}, seed=1)


@pytest.mark.slow
def test_federated_trees_stand_beside_networks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ("dataset=heart_disease", "num_rounds=4", "engine=inprocess", "server.tensorboard=false")
    quick += ("dataset.held_out_fraction=0.2", "evaluate_clients_every=null")
    assert run(["simulate", *quick, "model=logistic", "run_dir=linear"]) == 0
    assert run(["simulate", *quick, "run_dir=network"]) == 0
    assert run(["simulate", *quick, "strategy=fedxgbbagging", "run_dir=trees"]) == 0
    assert run(["cv", *quick, "--folds", "2", "--over", "bootstrap", "run_dir=bag"]) == 0
    names = ["linear:best", "network:best", "trees:best", "bag-0:latest", "bag-1:latest"]
    capsys.readouterr()
    report = compare(names, registry=Path("outputs/registry"), seed=1, output=Path("page.html"))
    assert {one["model"] for one in report["models"]} >= {"fl.models.xgboost.build", "fl.models.logistic.build"}
    assert [one["kind"] for one in report["ensembles"]] == ["vote", "bagging", "stacking"]
    assert "aria-label=disagreement" in Path("page.html").read_text()
    assert run(["shortlist", *names[:3], "--json"]) == 0
