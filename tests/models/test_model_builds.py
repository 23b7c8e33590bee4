"""Every model of the project: its size, its shapes, its dtype, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fl.errors import BadInput
from fl.models import cnn, constant, logistic, lstm, mlp, softmax, table_mlp, transformer
from fl.models.build import build_model
from fl.models.table_preprocessing import TablePreprocessing
from fl.signature import Signature

MNIST = Signature("classification", (1, 28, 28), "float32", 10, input_scale=1 / 255)
TEXT = Signature("next_token", (80,), "int64", 80)
TABLE = Signature(
    "classification",
    (3,),
    "float32",
    2,
    medians=(1.0, 2.0, 3.0),
    indicators=(0, 2),
    feature_mean=(1.0, 0.0, 5.0),
    feature_std=(2.0, 1.0, 4.0),
)
PRICES = Signature("regression", (3,), "float32", 1, target_mean=1000.0, target_std=10.0)


def with_dtype(signature: Signature, dtype: str) -> Signature:
    return Signature.from_dict(signature.to_dict() | {"input_dtype": dtype})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "build,signature,parameters",
    [
        (softmax.build, MNIST, 7_850),
        (constant.build, MNIST, 10),
        (mlp.build, MNIST, 199_210),
        (cnn.build, MNIST, 1_663_370),
        (lstm.build, TEXT, 819_920),
        (transformer.build, TEXT, 80 * 128 + 80 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128 + 128 * 80 + 80),
        (logistic.build, TABLE, 2 * (3 + 2) + 2),
        (table_mlp.build, TABLE, 32 * 5 + 32 + 32 * 32 + 32 + 32 * 2 + 2),
    ],
)
def test_number_of_parameters(build, signature, parameters):
    assert count(build(signature)) == parameters


@pytest.mark.parametrize(
    "name,signature,shape",
    [
        ("softmax", MNIST, (5, 10)),
        ("constant", MNIST, (5, 10)),
        ("constant", PRICES, (5, 1)),
        ("constant", TEXT, (5, 80, 80)),
        ("mlp", MNIST, (5, 10)),
        ("mlp", PRICES, (5, 1)),
        ("cnn", MNIST, (5, 10)),
        ("cnn", Signature("classification", (3, 33, 18), "float32", 7), (5, 7)),
        ("cnn", Signature("regression", (1, 4, 4), "float32", 1), (5, 1)),
        ("lstm", TEXT, (5, 80, 80)),
        ("transformer", TEXT, (5, 80, 80)),
        ("logistic", TABLE, (5, 2)),
        ("logistic", PRICES, (5, 1)),
        ("table_mlp", TABLE, (5, 2)),
        ("table_mlp", PRICES, (5, 1)),
    ],
)
def test_shapes_and_both_precisions(name, signature, shape):
    target = f"fl.models.{name}.build"
    tokens = signature.input_dtype == "int64"
    for dtype in ["int64"] if tokens else ["float32", "float64"]:
        module = build_model(target=target, arguments={}, signature=with_dtype(signature, dtype), seed=0)
        outputs = module(torch.ones((5, *signature.input_shape), dtype=getattr(torch, dtype)))
        expected = torch.float32 if tokens else getattr(torch, dtype)
        assert outputs.shape == shape
        assert outputs.dtype == expected
        assert {p.dtype for p in module.parameters()} == {expected}


def test_options_change_the_model():
    assert [type(m) for m in mlp.build(MNIST, hidden=(5,), dropout=0.5)] == [
        nn.Flatten,
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
    ]
    assert count(mlp.build(MNIST, hidden=[])) == count(softmax.build(MNIST))
    assert count(cnn.build(MNIST, channels=[2, 3], hidden=4)) == 52 + 153 + (3 * 49 * 4 + 4) + 50
    assert count(lstm.build(TEXT, hidden=16, layers=1, embedding=4)) == 320 + 4 * 16 * (4 + 16) + 128 + 16 * 80 + 80


@pytest.mark.parametrize("build", [lstm.build, transformer.build])
def test_a_position_sees_only_what_came_before(build):
    torch.manual_seed(0)
    module = build(TEXT).eval()
    tokens = torch.randint(0, 80, (2, 80))
    changed = tokens.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 80
    before, after = module(tokens), module(changed)
    assert torch.allclose(before[:, :40], after[:, :40], atol=1e-6)
    assert not torch.allclose(before[:, 40:], after[:, 40:], atol=1e-3)


def test_the_transformer_knows_the_order_of_its_tokens():
    torch.manual_seed(0)
    module = transformer.build(TEXT, layers=1).eval()  # with two, the causal mask alone would tell
    one, other = torch.zeros(1, 80, dtype=torch.int64), torch.zeros(1, 80, dtype=torch.int64)
    one[0, 0], other[0, 1] = 5, 5  # the same tokens, in another order
    assert not torch.allclose(module(one)[:, -1], module(other)[:, -1], atol=1e-6)


@pytest.mark.parametrize("build", [lstm.build, transformer.build])
def test_sequence_models_learn(build):
    torch.manual_seed(0)
    small = Signature("next_token", (12,), "int64", 5)
    module = build(small, **({"width": 16} if build is transformer.build else {"hidden": 16}))
    tokens = (torch.arange(13) + torch.arange(5)[:, None]) % 5  # counts up, so the next token is certain
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * math.log(5)


def test_preprocessing_is_exact_on_missing_values():
    x = torch.tensor([[math.nan, 4.0, 9.0], [3.0, math.nan, math.nan], [1.0, 0.0, 5.0]])
    expected = [
        [0.0, 4.0, 1.0, 1.0, 0.0],  # (1 - 1) / 2, 4, (9 - 5) / 4, missing, there
        [1.0, 2.0, -0.5, 0.0, 1.0],  # (3 - 1) / 2, the median, (3 - 5) / 4, there, missing
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
    layer = TablePreprocessing(TABLE)
    assert layer.num_outputs == 5
    assert layer(x).tolist() == expected
    assert layer(x.expand(2, 3, 3)).tolist() == [expected, expected]  # clients stacked in front


def test_preprocessing_keeps_the_digits_of_float64():
    signature = with_dtype(
        Signature("classification", (1,), "float32", 2, feature_mean=(0.1,), feature_std=(0.3,)), "float64"
    )
    x = np.array([[0.7]])
    assert TablePreprocessing(signature)(torch.from_numpy(x)).numpy() == (x - 0.1) / 0.3


def test_preprocessing_without_statistics_changes_nothing():
    plain = Signature("classification", (2,), "float32", 2)
    x = torch.tensor([[1.5, math.nan]])
    assert torch.equal(TablePreprocessing(plain)(x).isnan(), x.isnan())
    assert TablePreprocessing(plain)(x)[0, 0] == 1.5


def test_a_column_that_never_varies_is_only_centred():
    constant = Signature("classification", (1,), "float32", 2, feature_mean=(7.0,), feature_std=(0.0,))
    assert TablePreprocessing(constant)(torch.tensor([[7.0], [9.0]])).tolist() == [[0.0], [2.0]]


def test_statistics_of_the_data_are_no_trained_parameters():
    for module in (table_mlp.build(TABLE), logistic.build(PRICES)):
        assert all(name.endswith(("weight", "bias")) for name in module.state_dict())


def test_a_regression_answers_in_the_unit_of_its_target():
    module = logistic.build(PRICES)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert module(torch.ones(2, 3)).tolist() == [[1000.0], [1000.0]]
    nn.init.ones_(module[1].bias)
    assert module(torch.ones(1, 3)).tolist() == [[1010.0]]


@pytest.mark.parametrize(
    "build,signature,options,message",
    [
        (cnn.build, TABLE, {}, r"model: got cnn for inputs of shape \(3,\), allowed: inputs of shape \(channels"),
        (cnn.build, Signature("classification", (1, 3, 9), "float32", 2), {}, "both sides at least 4"),
        (mlp.build, TEXT, {}, "model: got mlp for tokens, allowed: lstm or transformer"),
        (
            mlp.build,
            TABLE,
            {},
            "model: got mlp for a table with missing values, allowed: logistic, table_mlp or xgboost",
        ),
        (softmax.build, TEXT, {}, "model: got softmax for tokens"),
        (logistic.build, MNIST, {}, r"model: got logistic for float32 inputs of shape \(1, 28, 28\), allowed: a table"),
        (table_mlp.build, TEXT, {}, "model: got table_mlp for int64 inputs"),
        (lstm.build, MNIST, {}, "model: got lstm for classification of float32 .* allowed: sequences of tokens"),
        (transformer.build, TABLE, {}, "model: got transformer for classification"),
        (mlp.build, MNIST, {"hidden": [0]}, "model.hidden: got 0, allowed: whole numbers above 0"),
        (mlp.build, MNIST, {"hidden": 200}, "model.hidden: got 200, allowed: a list"),
        (mlp.build, MNIST, {"dropout": 1.0}, "model.dropout: got 1.0, allowed: a number from 0"),
        (cnn.build, MNIST, {"channels": [8]}, r"model.channels: got \[8\], allowed: two whole numbers"),
        (cnn.build, MNIST, {"hidden": 2.5}, "model.hidden: got 2.5, allowed: whole numbers above 0"),
        (lstm.build, TEXT, {"layers": 0}, "model.layers: got 0"),
        (transformer.build, TEXT, {"heads": 3}, "model.heads: got 3, allowed: a divisor of model.width, 128"),
        (
            logistic.build,
            Signature("classification", (3,), "float32", 2, medians=(1.0,)),
            {},
            r"dataset: got medians of the columns: \[1.0\], allowed: 3 finite numbers, one a column",
        ),
        (
            logistic.build,
            Signature("classification", (2,), "float32", 2, indicators=(2,)),
            {},
            "dataset: got an indicator for column 2, allowed: 0 to 1",
        ),
    ],
)
def test_what_a_model_refuses(build, signature, options, message):
    with pytest.raises(BadInput, match=message):
        build(signature, **options)
