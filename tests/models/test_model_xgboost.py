"""Boosted trees: the module answers as XGBoost does, growing is the same everywhere, and only boosters are taken."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging

from fl.errors import BadInput, MissingExtra
from fl.models.arrays import load_parameters, parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.models.xgboost import BYTES, TreeEnsemble, grow, newest, why_no_trees
from fl.packaging.export import export
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


@pytest.mark.parametrize("task", sorted(TASKS))
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
        np.testing.assert_allclose(ours.get("leaf_weights", []), theirs.get("leaf_weights", []), rtol=1e-6)


def test_the_same_arguments_grow_the_same_bits_and_another_client_others() -> None:
    signature = TASKS["two classes"]
    module, (x, y) = module_of(signature, subsample=0.5), table(signature)
    start = parameters_of(module)
    one, again, other = (grow(module, start, x, y, rounds=2, seed=1, round=3, client=c)[BYTES] for c in (5, 5, 6))
    assert one.tobytes() == again.tobytes() != other.tobytes()


def altered(change: Any, task: str = "two classes") -> Parameters:
    module, (x, y) = module_of(TASKS[task]), table(TASKS[task])
    content = json.loads(grow(module, parameters_of(module), x, y, rounds=1, seed=1)[BYTES].tobytes())
    change(content["learner"])
    return {BYTES: np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)}


def gbtree(learner: Any) -> Any:
    return learner["gradient_booster"]["model"]


def first_tree(learner: Any) -> Any:
    return gbtree(learner)["trees"][0]


NO_TREES: dict[str, tuple[Any, str]] = {
    "another name": ({"w": np.zeros(3, np.uint8)}, "expected the one array '0'"),
    "another dtype": ({BYTES: np.zeros(3, np.float32)}, "is float32 of shape"),
    "another shape": ({BYTES: np.zeros((3, 1), np.uint8)}, "uint8 of shape"),
    "noise": ({BYTES: np.arange(9, dtype=np.uint8)}, "holds no booster"),
    "other json": ({BYTES: np.frombuffer(b'{"learner": 1}', np.uint8)}, "holds no booster"),
    "features": (lambda learner: learner["learner_model_param"].update(num_feature="9"), "a booster of"),
    "objective": (lambda learner: learner["objective"].update(name="reg:squarederror"), "a booster of"),
    "a loop": (lambda learner: first_tree(learner)["left_children"].__setitem__(0, 0), "do not hang together"),
    "a feature": (lambda learner: first_tree(learner)["split_indices"].__setitem__(0, 5), "the inputs have not"),
    "categories": (lambda learner: first_tree(learner)["split_type"].__setitem__(0, 1), "the inputs have not"),
    "no node": (lambda learner: first_tree(learner).update(left_children=[], right_children=[]), "hang together"),
    "more trees": (lambda learner: gbtree(learner)["gbtree_model_param"].update(num_trees="2"), "says otherwise"),
    "in parallel": (
        lambda learner: gbtree(learner)["gbtree_model_param"].update(num_parallel_tree="9"),
        "says otherwise",
    ),
    "rounds": (lambda learner: gbtree(learner).update(iteration_indptr=[0, 7]), "in rounds that end at"),
    "a group": (lambda learner: gbtree(learner).update(tree_info=[1]), "other groups"),
    "vectors": (lambda learner: first_tree(learner)["tree_param"].update(size_leaf_vector="3"), "do not hold 1"),
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
    "change, reason",
    [
        (lambda tree: tree["leaf_weights"].__setitem__(0, math.inf), "a NaN or an infinity"),
        (lambda tree: tree["leaf_weights"].pop(), "holds no booster"),
        (lambda tree: tree["right_children"].__setitem__(-1, 999), "holds no booster"),
        (lambda tree: tree["right_children"].__setitem__(-1, -1), "a leaf without its numbers"),
    ],
)
def test_leaves_of_several_classes_are_checked(change: Any, reason: str) -> None:
    parameters = altered(lambda learner: change(first_tree(learner)), task="four classes")
    assert reason in str(why_no_trees(parameters, TASKS["four classes"]))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xgboost" else find_spec(name))
    with pytest.raises(MissingExtra, match=r"model=xgboost.*trees"):
        module_of(TASKS["two classes"])


QUICK = {("four classes", "onnx"), ("two classes", "pt2")}
EXPORTS = [
    pytest.param(task, kind, marks=() if kind == "safetensors" or (task, kind) in QUICK else pytest.mark.slow)
    for task in sorted(TASKS)
    for kind in ("safetensors", "pt2", "onnx")
]


@pytest.mark.parametrize("task, kind", EXPORTS)
def test_grown_trees_are_exported_as_they_answer(task: str, kind: str, tmp_path: Path) -> None:
    """Each file is read by its own reader: gaps fall to the side that XGBoost would send them to there too."""
    signature = TASKS[task]
    module, (x, y) = module_of(signature, num_parallel_tree=2), table(signature)
    parameters = grow(module, parameters_of(module), x, y, rounds=3, seed=1)
    manifest = {"version": "run:3", "sha256": "0" * 64}
    (made,) = export(
        module,
        signature=signature,
        parameters=parameters,
        examples=x,
        formats=[kind],
        output=tmp_path,
        name="trees",
        manifest=manifest,
    )
    assert made.path.is_file() and made.largest_difference < 1e-5


@pytest.mark.parametrize(
    "option, value",
    [("max_depth", 0), ("eta", 0.0), ("subsample", 1.5), ("colsample", 0), ("reg_lambda", -1), ("local_rounds", 0)],
)
def test_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(BadInput, match=rf"model\.{option}: got {value}"):
        module_of(TASKS["two classes"], **{option: value})
