"""Loss and statistics against plain torch, and merged against pooled."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fl import metrics
from fl.metrics import Confusion, Mean
from fl.models import tasks
from fl.signature import Signature

DIGITS = Signature("classification", (4,), "float32", 5)
TEXT = Signature("next_token", (6,), "int64", 5)
PRICES = Signature("regression", (4,), "float32", 1, target_mean=1e4, target_std=30.0)


def example(signature: Signature, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if signature.task == "regression":
        targets = 1e4 + 30 * torch.randn(n, generator=generator)
        return (targets + 20 * torch.randn(n, generator=generator))[:, None], targets
    shape = (n, 6) if signature.task == "next_token" else (n,)
    outputs = 3 * torch.randn((*shape, 5), generator=generator)
    return outputs, torch.randint(0, 5, shape, generator=generator)


def test_classification_is_cross_entropy():
    outputs, targets = example(DIGITS, 50, 0)
    expected = F.cross_entropy(outputs, targets)
    torch.testing.assert_close(tasks.loss(DIGITS, outputs, targets), expected)
    torch.testing.assert_close(
        tasks.losses(DIGITS, outputs, targets), F.cross_entropy(outputs, targets, reduction="none")
    )
    found = tasks.statistics(DIGITS, outputs, targets)
    assert set(found) == {"loss", "accuracy", "confusion"}
    assert found["loss"].value == pytest.approx(expected.item(), rel=1e-6)
    right = (outputs.argmax(1) == targets).sum().item()
    assert found["accuracy"] == Mean(total=right, weight=50)
    assert isinstance(found["confusion"], Confusion)
    table = np.array(found["confusion"].counts)
    assert table.trace() == right
    assert table.sum(axis=1).tolist() == torch.bincount(targets, minlength=5).tolist()  # rows are the true classes


def test_many_classes_have_no_confusion_matrix():
    wide = Signature("classification", (4,), "float32", 101)
    assert set(tasks.statistics(wide, torch.randn(3, 101), torch.arange(3))) == {"loss", "accuracy"}


def test_next_token_counts_every_position():
    outputs, targets = example(TEXT, 7, 1)
    expected = F.cross_entropy(outputs.transpose(1, 2), targets)
    torch.testing.assert_close(tasks.loss(TEXT, outputs, targets), expected)
    assert tasks.losses(TEXT, outputs, targets).shape == (7, 6)
    found = tasks.statistics(TEXT, outputs, targets)
    assert found["accuracy"] == Mean(total=(outputs.argmax(2) == targets).sum().item(), weight=42)
    reported = tasks.derived(metrics.values(found))
    assert set(reported) == {"loss", "accuracy", "perplexity"}
    assert reported["perplexity"] == pytest.approx(math.exp(expected.item()), rel=1e-5)


@pytest.mark.parametrize("column", [True, False])
def test_regression_in_both_units(column):
    outputs, targets = example(PRICES, 60, 2)
    if not column:
        outputs = outputs[:, 0]
    flat = outputs.reshape(-1).double()
    mse = (flat - targets.double()).square().mean().item()
    assert tasks.loss(PRICES, outputs, targets).item() == pytest.approx(mse / 900, rel=1e-5)
    reported = tasks.derived(metrics.values(tasks.statistics(PRICES, outputs, targets)))
    variance = targets.double().var(correction=0).item()
    expected = {
        "loss": mse / 900,
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": (flat - targets.double()).abs().mean().item(),
        "r2": 1 - mse / variance,
    }
    assert reported == pytest.approx(expected, rel=1e-5)


def test_r2_is_absent_where_all_targets_are_equal():
    found = tasks.statistics(PRICES, torch.full((3, 1), 1e4), torch.full((3,), 1e4))
    assert set(tasks.derived(metrics.values(found))) == {"loss", "mse", "rmse", "mae"}


def test_a_diverged_perplexity_is_a_number():
    assert math.isfinite(tasks.derived({"loss": 1e6, "nats": 1e6})["perplexity"])


def test_the_loss_has_a_gradient_and_statistics_have_none():
    outputs = torch.zeros(2, 5, requires_grad=True)
    targets = torch.tensor([0, 1])
    tasks.loss(DIGITS, outputs, targets).backward()
    assert outputs.grad is not None
    assert outputs.grad[0].tolist() == pytest.approx([-0.4, 0.1, 0.1, 0.1, 0.1])
    tasks.statistics(DIGITS, outputs, targets)


@given(
    signature=st.sampled_from([DIGITS, TEXT, PRICES]),
    cuts=st.lists(st.integers(1, 39), max_size=6, unique=True).map(sorted),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_merged_equals_pooled(signature, cuts, seed):
    outputs, targets = example(signature, 40, seed)
    bounds = [0, *cuts, 40]
    parts = [tasks.statistics(signature, outputs[a:b], targets[a:b]) for a, b in itertools.pairwise(bounds)]
    merged, pooled = metrics.merge(parts), tasks.statistics(signature, outputs, targets)
    assert merged.keys() == pooled.keys()
    assert merged.get("confusion") == pooled.get("confusion")
    assert tasks.derived(metrics.values(merged)) == pytest.approx(tasks.derived(metrics.values(pooled)), rel=1e-9)
