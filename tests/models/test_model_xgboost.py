"""Boosted trees: the module answers as XGBoost does, growing is the same everywhere, and only boosters are taken."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import xgboost
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging

from fl.errors import BadInput
from fl.models.arrays import load_parameters, parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.models.xgboost import BYTES, TreeEnsemble, grow, newest, why_no_trees
from fl.parameters import Parameters
from fl.signature import Signature

TASKS = {
    "two classes": Signature("classification", (5,), "float32", 2),
    "four classes": Signature("classification", (5,), "float32", 4),
    "a number": Signature("regression", (5,), "float64", 1, target_mean=3.0, target_std=2.0),
}


def module_of(signature: Signature, **options: Any) -> TreeEnsemble:
    module = build_model(target="fl.models.xgboost.build", arguments=options, signature=signature, seed=1)
    assert isinstance(module, TreeEnsemble)
    return module


def table(signature: Signature, count: int = 200) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(3)
    x = random.normal(size=(count, 5)).astype(signature.input_dtype)
    y = x[:, 0] + x[:, 1] * x[:, 2]
    x[random.random(x.shape) < 0.2] = np.nan
    if signature.task == "regression":
        return x, y + 3.0
    return x, np.digitize(y, np.quantile(y, np.arange(1, signature.num_outputs) / signature.num_outputs))


def booster_of(parameters: Parameters) -> xgboost.Booster:
    return xgboost.Booster(model_file=bytearray(parameters[BYTES].tobytes()))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_module_answers_as_xgboost_does(task: str) -> None:
    signature = TASKS[task]
    module, (x, y) = module_of(signature, max_depth=5, num_parallel_tree=2, subsample=0.8), table(signature)
    parameters = grow(module, parameters_of(module), x, y, rounds=7, seed=1)
    load_parameters(module, parameters)
    ours = predict(module, x, signature)
    margins = booster_of(parameters).predict(
        xgboost.DMatrix(x.astype(np.float32), missing=math.nan), output_margin=True
    )
    if signature.num_outputs == 2:
        margins = np.stack([np.zeros_like(margins), margins], axis=1)
    np.testing.assert_allclose(ours, margins.reshape(ours.shape), rtol=1e-5, atol=1e-5)
    assert ours.std() > 0.1, "trees that say the same of everybody prove nothing"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_without_trees_every_example_gets_the_base(task: str) -> None:
    signature = TASKS[task]
    outputs = module_of(signature)(torch.full((3, 5), math.nan, dtype=getattr(torch, signature.input_dtype)))
    base = signature.target_mean if signature.task == "regression" else 0.0
    assert torch.equal(outputs, torch.full_like(outputs, base))


@pytest.mark.parametrize("task", ["two classes", "a number"])
def test_one_client_with_all_the_data_bags_what_xgboost_boosts(task: str) -> None:
    """Flower's bagging of one client, round after round, is plain boosting: the same trees."""
    signature = TASKS[task]
    module, (x, y) = module_of(signature), table(signature)
    globally = parameters_of(module)
    for _ in range(4):
        added = newest(grow(module, globally, x, y, rounds=1, seed=1), rounds=1)
        joined = aggregate_bagging(globally[BYTES].tobytes(), added[BYTES].tobytes())
        globally = {BYTES: np.frombuffer(joined, dtype=np.uint8)}
    at_once = grow(module, parameters_of(module), x, y, rounds=4, seed=1)
    trees = [
        json.loads(p[BYTES].tobytes())["learner"]["gradient_booster"]["model"]["trees"] for p in (globally, at_once)
    ]
    assert len(trees[0]) == 4
    for ours, theirs in zip(*trees, strict=True):
        assert ours["split_indices"] == theirs["split_indices"]
        np.testing.assert_allclose(ours["split_conditions"], theirs["split_conditions"], rtol=1e-6)


def test_the_same_arguments_grow_the_same_bits_and_another_client_others() -> None:
    signature = TASKS["two classes"]
    module, (x, y) = module_of(signature, subsample=0.5), table(signature)
    start = parameters_of(module)
    one, again, other = (grow(module, start, x, y, rounds=2, seed=1, round=3, client=c)[BYTES] for c in (5, 5, 6))
    assert one.tobytes() == again.tobytes() != other.tobytes()


def altered(change: Any) -> Parameters:
    module, (x, y) = module_of(TASKS["two classes"]), table(TASKS["two classes"])
    content = json.loads(grow(module, parameters_of(module), x, y, rounds=1, seed=1)[BYTES].tobytes())
    change(content["learner"])
    return {BYTES: np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)}


def first_tree(learner: Any) -> Any:
    return learner["gradient_booster"]["model"]["trees"][0]


NO_TREES: dict[str, tuple[Any, str]] = {
    "another name": ({"w": np.zeros(3, np.uint8)}, "expected the one array '0'"),
    "another dtype": ({BYTES: np.zeros(3, np.float32)}, "is float32 of shape"),
    "another shape": ({BYTES: np.zeros((3, 1), np.uint8)}, "uint8 of shape"),
    "noise": ({BYTES: np.arange(9, dtype=np.uint8)}, "holds no booster"),
    "other json": ({BYTES: np.frombuffer(b'{"learner": 1}', np.uint8)}, "holds no booster"),
    "features": (lambda learner: learner["learner_model_param"].update(num_feature="9"), "a booster of"),
    "objective": (lambda learner: learner["objective"].update(name="reg:squarederror"), "a booster of"),
    "a loop": (lambda learner: first_tree(learner)["left_children"].__setitem__(0, 0), "do not hang together"),
    "a leaf of nan": (lambda learner: first_tree(learner)["split_conditions"].__setitem__(-1, math.nan), "a NaN"),
}


@pytest.mark.parametrize("what", sorted(NO_TREES))
def test_what_is_no_booster_for_this_task_is_refused(what: str) -> None:
    case, reason = NO_TREES[what]
    parameters = altered(case) if callable(case) else case
    assert reason in str(why_no_trees(parameters, TASKS["two classes"]))
    module = module_of(TASKS["two classes"])
    with pytest.raises(BadInput, match=r"^model: got"):
        load_parameters(module, parameters)


@pytest.mark.parametrize(
    "option, value",
    [("max_depth", 0), ("eta", 0.0), ("subsample", 1.5), ("colsample", 0), ("reg_lambda", -1), ("local_rounds", 0)],
)
def test_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(BadInput, match=rf"model\.{option}: got {value}"):
        module_of(TASKS["two classes"], **{option: value})
