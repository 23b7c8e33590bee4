"""Pruning takes what matters least, and nothing else: units without effect go without any effect."""

import numpy as np
import pytest
import torch

from fl.errors import BadInput
from fl.models.arrays import load_parameters, parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.packaging.pruning import by_magnitude, remove_units
from fl.signature import Signature

DIGITS = Signature("classification", (1, 12, 12), "float32", 5, input_scale=1 / 255)
TEXT = Signature("next_token", (6,), "int64", 11)
TABLE = Signature("classification", (3,), "float32", 2, medians=(1.0, 2.0, 3.0), indicators=(1,))
MODELS = {
    "mlp": (DIGITS, {"hidden": [10, 6], "dropout": 0.1}),
    "table_mlp": (TABLE, {"hidden": [8]}),
    "cnn": (DIGITS, {"channels": [4, 6], "hidden": 8}),
    "lstm": (TEXT, {"embedding": 4, "hidden": 8, "layers": 2}),
}
SMALLER = {
    "mlp": {"hidden": [5, 3], "dropout": 0.1},
    "table_mlp": {"hidden": [4]},
    "cnn": {"channels": [2, 3], "hidden": 4},
    "lstm": {"embedding": 4, "hidden": 4, "layers": 2},
}
WIDTHS = {"mlp": [10, 6], "table_mlp": [8], "cnn": [4, 6, 8], "lstm": [8, 8]}


def built(name: str, arguments: dict | None = None):
    signature, own = MODELS[name]
    return build_model(
        target=f"fl.models.{name}.build", arguments=own if arguments is None else arguments, signature=signature, seed=3
    )


def test_the_smallest_of_all_weights_become_zero_and_biases_stay():
    parameters = parameters_of(built("mlp"))
    pruned = by_magnitude(parameters, 0.7, of=list(parameters))
    matrices = [name for name in parameters if parameters[name].ndim > 1]
    before = np.concatenate([parameters[name].ravel() for name in matrices])
    after = np.concatenate([pruned[name].ravel() for name in matrices])
    assert (after == 0).sum() == int(0.7 * len(before))
    assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()
    assert np.array_equal(after[after != 0], before[after != 0])
    assert all(np.array_equal(pruned[name], parameters[name]) for name in parameters if name not in matrices)
    shares = [float((pruned[name] == 0).mean()) for name in matrices]
    assert max(shares) - min(shares) > 0.05  # of the whole model, not of each layer


def test_arrays_that_are_not_trained_stay():
    parameters = parameters_of(built("mlp"))
    first = next(iter(parameters))
    assert np.array_equal(
        by_magnitude(parameters, 0.9, of=[n for n in parameters if n != first])[first], parameters[first]
    )


def silence(name: str, module) -> None:
    """Take the effect of every other unit of each hidden layer away: nobody uses what it says."""
    state = module.state_dict()
    with torch.no_grad():
        if name == "lstm":
            for gone in (state["1.weight_hh_l0"], state["1.weight_hh_l1"], state["1.weight_ih_l1"], state["2.weight"]):
                gone[:, ::2] = 0
            return
        weights = [value for value in state.values() if value.dim() > 1]
        for width, used in zip(WIDTHS[name], weights[1:], strict=True):
            used.view(len(used), width, -1)[:, ::2] = 0


@pytest.mark.parametrize("name", MODELS)
def test_units_without_effect_are_the_ones_that_go(name):
    signature, arguments = MODELS[name]
    module = built(name)
    silence(name, module)
    smaller, parameters = remove_units(
        module, parameters_of(module), target=f"fl.models.{name}.build", arguments=arguments, fraction=0.5
    )
    assert smaller == SMALLER[name]
    left = built(name, smaller)
    load_parameters(left, parameters)
    random = np.random.default_rng(0)
    x = random.integers(0, 11, (20, *signature.input_shape)).astype(signature.input_dtype)
    if name == "table_mlp":
        x[random.random(x.shape) < 0.3] = np.nan
    assert np.allclose(predict(left, x, signature), predict(module, x, signature), atol=1e-5)


def test_scaling_a_unit_in_and_out_changes_nothing():
    module = built("mlp")
    given = {"target": "fl.models.mlp.build", "arguments": MODELS["mlp"][1], "fraction": 0.5}
    _, before = remove_units(module, parameters_of(module), **given)
    scaled = parameters_of(module)
    scaled["1.weight"][3] *= 100
    scaled["1.bias"][3] *= 100
    scaled["4.weight"][:, 3] /= 100
    _, after = remove_units(module, scaled, **given)
    one, other = (built("mlp", SMALLER["mlp"]) for _ in range(2))
    load_parameters(one, before)
    load_parameters(other, after)
    x = np.random.default_rng(1).integers(0, 255, (5, 1, 12, 12)).astype(np.float32)
    assert np.allclose(predict(one, x, DIGITS), predict(other, x, DIGITS), atol=1e-4)


def test_at_least_one_unit_stays():
    module = built("table_mlp")
    arguments, _ = remove_units(
        module, parameters_of(module), target="fl.models.table_mlp.build", arguments={"hidden": [8]}, fraction=0.99
    )
    assert arguments == {"hidden": [1]}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_is_none(fraction):
    module = built("mlp")
    with pytest.raises(BadInput, match=r"--prune: got .*, allowed: a share between 0 and 1"):
        by_magnitude(parameters_of(module), fraction, of=["1.weight"])
    with pytest.raises(BadInput, match=r"--prune-units: got .*, allowed: a share between 0 and 1"):
        remove_units(module, parameters_of(module), target="fl.models.mlp.build", arguments={}, fraction=fraction)


def test_a_model_without_hidden_units_is_refused_by_name():
    module = build_model(target="fl.models.softmax.build", arguments={}, signature=DIGITS, seed=1)
    with pytest.raises(
        BadInput, match=r"--prune-units: got fl.models.softmax.build, allowed: a model with hidden layers"
    ):
        remove_units(module, parameters_of(module), target="fl.models.softmax.build", arguments={}, fraction=0.5)
