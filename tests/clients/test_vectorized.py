"""A stacked unit gives what its clients give one by one, and the same bits every time.

In float64 to twelve digits, whatever the sizes and options. In float32 to 1e-5 where no rounding decides on which side
of a ReLU's kink a number falls, which no tolerance could bound.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clients.training import Trained, TrainingOptions, train
from clients.vectorized import train_stacked, why_one_by_one
from fl.algorithms.algorithm import Correction
from fl.data.dataset import Examples
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.signature import Signature

IMAGES = Signature(
    task="classification", input_shape=(1, 6, 6), input_dtype="float32", num_outputs=4, input_scale=1 / 255
)
TABLE = Signature(
    task="regression",
    input_shape=(5,),
    input_dtype="float64",
    num_outputs=1,
    medians=(0.0,) * 5,
    indicators=(1, 3),
    feature_mean=(0.1,) * 5,
    feature_std=(2.0,) * 5,
    target_mean=3.0,
    target_std=2.0,
)
TOKENS = Signature(task="next_token", input_shape=(7,), input_dtype="int64", num_outputs=9)


class Normalised:
    """Models beyond the shipped ones: every layer that has a stacked form."""

    @staticmethod
    def build(signature: Signature) -> nn.Module:
        return nn.Sequential(
            nn.Sequential(nn.Flatten(), nn.Linear(36, 12, bias=False), nn.LayerNorm(12), nn.GELU()),
            nn.Dropout(0.2),
            nn.Linear(12, 8),
            nn.LayerNorm(8, elementwise_affine=False),
            nn.Tanh(),
            nn.Linear(8, signature.num_outputs),
        )


def convolutions(signature: Signature) -> nn.Module:
    """Two convolutions as the CNN has them, and what else images may go through."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2, bias=False),
        nn.Tanh(),
        nn.Dropout(0.1),
        nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(12, 8),
        nn.ReLU(),
        nn.Linear(8, signature.num_outputs),
    )


def embedding(signature: Signature) -> nn.Module:
    """Tokens to the next token, without memory."""
    return nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, signature.num_outputs))


MODELS: dict[str, tuple[Signature, Any]] = {
    "softmax": (IMAGES, lambda s: build_model(target="fl.models.softmax.build", arguments={}, signature=s, seed=1)),
    "mlp": (
        IMAGES,
        lambda s: build_model(
            target="fl.models.mlp.build", arguments={"hidden": [16, 8], "dropout": 0.3}, signature=s, seed=1
        ),
    ),
    "cnn": (
        IMAGES,
        lambda s: build_model(
            target="fl.models.cnn.build", arguments={"channels": [3, 5], "hidden": 16}, signature=s, seed=1
        ),
    ),
    "convolutions": (IMAGES, convolutions),
    "table": (TABLE, lambda s: build_model(target="fl.models.table_mlp.build", arguments={}, signature=s, seed=1)),
    "normalised": (IMAGES, Normalised.build),
    "embedding": (TOKENS, embedding),
}


def examples_of(signature: Signature, sizes: Sequence[int], rng: np.random.Generator) -> list[Examples]:
    """Random examples of so many clients, as a store would hold them."""
    match signature.task:
        case "classification":
            pixels = [rng.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8) for n in sizes]
            return [Examples(x, rng.integers(0, 4, len(x))) for x in pixels]
        case "next_token":
            return [Examples(rng.integers(0, 9, (n, 7)), rng.integers(0, 9, (n, 7))) for n in sizes]
        case _:
            tables = [np.where(rng.random((n, 5)) < 0.2, np.nan, rng.normal(size=(n, 5))) for n in sizes]
            return [Examples(x, rng.normal(size=len(x))) for x in tables]


def both_ways(
    name: str,
    sizes: Sequence[int],
    options: TrainingOptions,
    *,
    mu: float = 0.0,
    constant: bool = False,
    double: bool = False,
) -> tuple[list[Trained], list[Trained]]:
    """Stacked, and one by one."""
    signature, build = MODELS[name]
    module = build(signature)
    if double:
        module.double()
        signature = signature if signature is TOKENS else replace(signature, input_dtype="float64")
    assert why_one_by_one(module, options) is None
    rng = np.random.default_rng(len(sizes))
    start = parameters_of(module)
    examples = examples_of(signature, sizes, rng)
    constants = [
        {n: (rng.normal(size=v.shape) / 100).astype(v.dtype) for n, v in start.items()} if constant else {}
        for _ in sizes
    ]
    corrections = [Correction(proximal=mu, constant=c) for c in constants]
    clients = [3 * i + 1 for i in range(len(sizes))]
    stacked = train_stacked(
        module, start, examples, signature, options, corrections=corrections, seed=5, round=2, clients=clients
    )
    alone = [
        train(module, start, e, signature, options, correction=c, seed=5, round=2, client=client)
        for e, c, client in zip(examples, corrections, clients, strict=True)
    ]
    return stacked, alone


def agree(stacked: Sequence[Trained], alone: Sequence[Trained], *, to: float = 1e-5) -> None:
    for ours, reference in zip(stacked, alone, strict=True):
        assert ours.num_steps == reference.num_steps
        assert ours.loss.weight == reference.loss.weight
        assert ours.loss.total == pytest.approx(reference.loss.total, rel=to)
        for name, value in reference.end.items():
            assert ours.end[name].dtype == value.dtype
            scale = max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(ours.end[name], value, rtol=to, atol=to * scale, err_msg=name)


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(sorted(MODELS)),
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=6),
    batch_size=st.sampled_from([None, 1, 4, 10]),
    local=st.sampled_from([{"local_epochs": 1}, {"local_epochs": 3}, {"local_epochs": None, "local_steps": 7}]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    mu=st.sampled_from([0.0, 0.5]),
    constant=st.booleans(),
)
def test_stacked_equals_one_by_one(
    name: str,
    sizes: list[int],
    batch_size: int | None,
    local: dict[str, Any],
    momentum: float,
    weight_decay: float,
    mu: float,
    constant: bool,
) -> None:
    options = TrainingOptions(
        batch_size=batch_size, learning_rate=0.02, momentum=momentum, weight_decay=weight_decay, **local
    )
    agree(*both_ways(name, sizes, options, mu=mu, constant=constant, double=True), to=1e-12)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("momentum, mu, constant", [(0.0, 0.0, False), (0.9, 0.5, True)])
def test_stacked_equals_one_by_one_in_float32(name: str, momentum: float, mu: float, constant: bool) -> None:
    options = TrainingOptions(batch_size=4, learning_rate=0.02, momentum=momentum, weight_decay=0.01)
    agree(*both_ways(name, [9, 14, 3, 20], options, mu=mu, constant=constant))


@pytest.mark.parametrize("name", ["cnn", "embedding", "mlp", "normalised"])
def test_weights_that_are_large_go_another_way_to_the_same_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.stacked_layers.LARGE_BYTES", 0)
    agree(*both_ways(name, [9, 14, 3], TrainingOptions(batch_size=4, learning_rate=0.02), double=True), to=1e-12)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_client_does_not_depend_on_the_others_of_its_stack(name: str) -> None:
    signature, build = MODELS[name]
    module, options = build(signature), TrainingOptions(batch_size=4, learning_rate=0.05)
    start = parameters_of(module)
    examples = examples_of(signature, [9, 14, 3], np.random.default_rng(0))

    def ends(chosen: Sequence[int]) -> dict[int, dict[str, bytes]]:
        trained = train_stacked(
            module,
            start,
            [examples[i] for i in chosen],
            signature,
            options,
            corrections=[Correction()] * len(chosen),
            seed=1,
            round=1,
            clients=list(chosen),
        )
        return {i: {n: v.tobytes() for n, v in t.end.items()} for i, t in zip(chosen, trained, strict=True)}

    together = ends([0, 1, 2])
    assert together == ends([0, 1, 2])
    poisoned = examples[0].x.astype(np.float64) * np.nan if signature is TABLE else None
    if poisoned is not None:
        examples[0] = Examples(poisoned, np.full_like(examples[0].y, np.nan))
        again = ends([0, 1, 2])
        assert {i: again[i] for i in (1, 2)} == {i: together[i] for i in (1, 2)}


@pytest.mark.parametrize(
    "module, options, why",
    [
        (nn.Conv3d(1, 1, 3), {}, "no stacked form of Conv3d"),
        (nn.Conv2d(1, 1, 3, padding="same"), {}, "padding is no number of zeros"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), {}, "padding is no number of zeros"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)), {}, "a Flatten of other axes"),
        (nn.Linear(2, 2), {"optimizer": "adam"}, "the optimiser is adam"),
        (nn.Linear(2, 2), {"clip_norm": 1.0}, "clipping"),
        (nn.Linear(2, 2), {"momentum": 0.9, "nesterov": True}, "Nesterov"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), {}, "it tracks 1.num_batches_tracked"),
        (nn.Sequential(nn.Flatten()), {}, "it has no parameters"),
    ],
)
def test_what_cannot_be_stacked_says_why(module: nn.Module, options: dict[str, Any], why: str) -> None:
    assert why in str(why_one_by_one(module, TrainingOptions(**options)))


def test_a_tensor_that_two_layers_share_is_not_stacked() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert "share" in str(why_one_by_one(nn.Sequential(first, second), TrainingOptions()))


def test_frozen_parameters_are_not_stacked() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    assert "frozen" in str(why_one_by_one(module, TrainingOptions()))
