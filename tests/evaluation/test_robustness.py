"""Robustness and explanation on models whose answers can be worked out."""

import numpy as np
import pytest
import torch
from torch import nn

from fl.evaluation.explanation import explanation, permutation_importance
from fl.evaluation.robustness import against_gradient, deviation, robustness, take_away
from fl.models.table_mlp import build
from fl.signature import Signature

TABLE = Signature("classification", (3,), "float32", 2, feature_names=("a", "b", "c"))


def linear(*weights: float) -> nn.Module:
    """Logits (0, w x): answers 1 where w x is above 0."""
    module = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], weights]))
    return module


def data(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)


def values(told: list, kind: str) -> list[float]:
    (one,) = [one for one in told if one["kind"] == kind]
    return [one["unchanged"], *(step["value"] for step in one["values"])]


def test_every_change_costs_more_the_stronger_it_is_and_the_adversary_most():
    x, y = data()
    told = robustness(linear(2.0, 1.0, 0.0), x, y, TABLE, seed=1)
    assert [one["kind"] for one in told] == ["noise", "shift", "missing", "adversarial"]
    for kind in ("noise", "missing", "adversarial"):
        by_strength = values(told, kind)
        assert by_strength[0] == 1.0 and by_strength == sorted(by_strength, reverse=True) and by_strength[-1] < 0.95
    assert values(told, "adversarial")[2] < values(told, "noise")[1]  # both a tenth of a deviation
    assert robustness(linear(2.0, 1.0, 0.0), x, y, TABLE, seed=1) == told


def test_the_adversary_goes_up_the_loss_by_the_whole_step():
    x, y = data()
    inputs = torch.from_numpy(x)
    moved = against_gradient(linear(2.0, 1.0, 0.0), inputs, y, TABLE, torch.tensor(0.1)) - inputs
    towards = np.where(y == 1, -0.1, 0.1)
    assert moved[:, 0].numpy() == pytest.approx(towards, abs=1e-6)
    assert moved[:, 1].numpy() == pytest.approx(towards, abs=1e-6) and not moved[:, 2].any()


def test_what_is_missing_is_nan_to_a_model_that_takes_it_and_the_mean_to_another():
    signature = Signature("classification", (2,), "float32", 2, medians=(0.0, 0.0), indicators=(0,))
    inputs = torch.randn(200, 2)
    gone = take_away(build(signature, hidden=[4]), inputs, 0.3, seed=1)
    assert 0.2 < gone.isnan().float().mean() < 0.4
    plain = take_away(nn.Linear(2, 2), inputs, 0.3, seed=1)
    assert torch.equal(plain[gone.isnan()], inputs.mean(dim=0).expand(200, 2)[gone.isnan()])
    with_holes = torch.tensor([[1.0, torch.nan], [3.0, 4.0]])
    assert deviation(with_holes).tolist() == [1.0, 0.0]


def test_tokens_say_what_cannot_be_measured():
    tokens = Signature("next_token", (5,), "int64", 7)
    x = np.random.default_rng(0).integers(0, 7, (20, 5))
    told = robustness(nn.Sequential(nn.Embedding(7, 7)), x, x, tokens, seed=1)
    assert "values" in told[0] and all("tokens" in one["absent"] for one in told[1:])
    assert "tokens" in explanation(nn.Embedding(7, 7), x, x, tokens, seed=1)["absent"]


def test_importance_is_of_what_the_model_looks_at():
    x, y = data()
    ranked = permutation_importance(linear(2.0, 1.0, 0.0), torch.from_numpy(x), y, TABLE, seed=1)
    assert [one["input"] for one in ranked] == ["a", "b", "c"]
    assert ranked[0]["importance"] > ranked[1]["importance"] > 0.05 and ranked[2]["importance"] == 0
    again = permutation_importance(linear(2.0, 1.0, 0.0), torch.from_numpy(x), y, TABLE, seed=1)
    assert again == ranked


def test_importance_is_scikit_learn_s():
    inspection = pytest.importorskip("sklearn.inspection")
    module = linear(2.0, 1.0, 0.3)

    class Model:
        def fit(self, x, y): ...

        def score(self, x, y):
            with torch.no_grad():
                return float((module(torch.from_numpy(x)).argmax(dim=1).numpy() == y).mean())

    x, y = data(2000)
    theirs = inspection.permutation_importance(Model(), x, y, n_repeats=20, random_state=0).importances_mean
    mine = permutation_importance(module, torch.from_numpy(x), y, TABLE, seed=1, repeats=20)
    found = {one["input"]: one["importance"] for one in mine}
    assert [found[name] for name in "abc"] == pytest.approx(theirs, abs=0.01)


def test_integrated_gradients_of_a_line_are_its_weights_times_the_distance():
    pytest.importorskip("captum", reason="extra explain is not installed")
    x, _ = data(60)
    signature = Signature("regression", (3,), "float32", 1, feature_names=("a", "b", "c"))
    module = nn.Linear(3, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, -1.0, 0.0]]))
    found = explanation(module, x, x[:, 0].copy(), signature, seed=1)
    sizes = {one["input"]: one["size"] for one in found["integrated_gradients"]["each"]}
    apart = np.abs(x - x.mean(axis=0)).mean(axis=0)
    assert [sizes[name] for name in "abc"] == pytest.approx([3 * apart[0], apart[1], 0], rel=1e-4)


def test_a_picture_is_explained_by_its_squares():
    signature = Signature("classification", (1, 8, 8), "float32", 2)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].weight[1, 0] = 1.0  # the pixel in the first corner alone
    x = np.random.default_rng(0).normal(size=(200, 1, 8, 8)).astype(np.float32)
    found = explanation(module, x, (x[:, 0, 0, 0] > 0).astype(np.int64), signature, seed=1)
    assert len(found["permutation"]) == 16 and found["permutation"][0]["input"] == "rows 0 to 1, columns 0 to 1"
    assert found["permutation"][1]["importance"] == 0 < found["permutation"][0]["importance"]
