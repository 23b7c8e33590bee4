"""Gradient-boosted trees (Chen, Guestrin 2016): XGBoost grows them, a torch module of plain tensors answers.

The parameters are one array, ``0``: the bytes of the booster as XGBoost's JSON, none before the first tree. That is
what Flower's FedXgbBagging and FedXgbCyclic exchange, and it grows from version to version. Growing trees needs the
package xgboost; answering, measuring and exporting do not.

    margin(x) = base + sum over trees of the leaf that x reaches: a number, or with more than two classes one a class

    two classes    logits (0, margin)     more    logits = margins     regression    the margin
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl.errors import BadInput, MissingExtra
from fl.models.arrays import GrowingModule, to_inputs, to_targets
from fl.models.requirements import require_numbers
from fl.parameters import Array, Parameters, mismatch
from fl.seeds import address
from fl.signature import Signature

BYTES = "0"
"""The name that Flower's tree strategies expect of the one array."""

MOST_BYTES = 2**26
"""A booster may not be larger: some hundred thousand trees."""


class TreeEnsemble(GrowingModule):
    """Answers as the booster in its array does; (N, *input_shape) -> (N, num_outputs), NaN for missing values."""

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    default_left: Tensor
    leaf: Tensor
    base: Tensor

    def __init__(self, signature: Signature, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.signature, self.options = signature, dict(options)
        self.depth = 0
        self.register_buffer(BYTES, torch.zeros(0, dtype=torch.uint8))
        self._take(_no_trees())

    def load_arrays(self, parameters: Mapping[str, Array]) -> None:
        """Answer as this booster from now on. Raises BadInput if it is none for these inputs and this task."""
        known = {BYTES: getattr(self, BYTES).numpy()}
        if mismatch(parameters, known) is None and np.array_equal(parameters[BYTES], known[BYTES]):
            return
        try:
            tables = _tables(parameters, self.signature)
        except ValueError as error:
            allowed = "the model that the parameters were made with"
            raise BadInput(key="model", got=str(error), allowed=allowed) from error
        self.register_buffer(BYTES, torch.from_numpy(np.array(parameters[BYTES])))
        self._take(tables)

    def why_not(self, parameters: Mapping[str, Array]) -> str | None:
        """What keeps ``parameters`` from being a booster for these inputs and this task."""
        return why_no_trees(parameters, self.signature)

    def forward(self, x: Tensor) -> Tensor:
        """Every example falls through every tree at once, a level a step."""
        flat = x.flatten(1).to(torch.float32)
        node = self.roots.expand(flat.shape[0], -1)
        for _ in range(self.depth):
            value = flat.gather(1, self.feature[node])
            left = (value < self.threshold[node]) | (value.isnan() & self.default_left[node])
            node = torch.where(left, self.left[node], self.right[node])
        dtype = x.dtype if x.is_floating_point() else flat.dtype  # added up in the inputs' own precision
        margins = self.leaf[node].to(dtype).sum(dim=1) + self.base.to(dtype)
        if margins.shape[1] < self.signature.num_outputs:
            margins = torch.cat([torch.zeros_like(margins), margins], dim=1)
        return margins

    def _take(self, tables: Mapping[str, Any]) -> None:
        self.depth = int(tables["depth"])
        base = self.signature.target_mean if self.signature.task == "regression" else 0.0
        tensors = {
            "roots": torch.as_tensor(tables["roots"], dtype=torch.int64).reshape(1, -1),
            "feature": torch.as_tensor(tables["feature"], dtype=torch.int64),
            "threshold": torch.as_tensor(tables["threshold"], dtype=torch.float32),
            "left": torch.as_tensor(tables["left"], dtype=torch.int64),
            "right": torch.as_tensor(tables["right"], dtype=torch.int64),
            "default_left": torch.as_tensor(tables["default_left"], dtype=torch.bool),
            "leaf": torch.as_tensor(tables["leaf"], dtype=torch.float32).reshape(-1, _leaf_size(self.signature)),
            "base": torch.tensor(base, dtype=torch.float32),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)


def build(
    signature: Signature,
    *,
    max_depth: int = 4,
    eta: float = 0.3,
    subsample: float = 1.0,
    colsample: float = 1.0,
    reg_lambda: float = 1.0,
    num_parallel_tree: int = 1,
    local_rounds: int = 1,
) -> TreeEnsemble:
    """An ensemble without trees.

    max_depth, eta, subsample, colsample, reg_lambda, num_parallel_tree   XGBoost's own; colsample is a tree's share of
    the features.   local_rounds   boosting rounds of a client in a round
    """
    require_numbers(signature, model="xgboost", missing=True)
    counts = {"max_depth": max_depth, "num_parallel_tree": num_parallel_tree, "local_rounds": local_rounds}
    for name, count in counts.items():
        if count < 1:
            raise BadInput(key=f"model.{name}", got=count, allowed="a whole number, at least 1")
    for name, share in (("eta", eta), ("subsample", subsample), ("colsample", colsample)):
        if not 0 < share <= 1:
            raise BadInput(key=f"model.{name}", got=share, allowed="above 0, at most 1")
    if not reg_lambda >= 0:
        raise BadInput(key="model.reg_lambda", got=reg_lambda, allowed="at least 0")
    if importlib.util.find_spec("xgboost") is None:
        raise MissingExtra(key="model=xgboost", package="xgboost", extra="trees")
    chosen = {"max_depth": max_depth, "eta": eta, "subsample": subsample, "colsample_bytree": colsample}
    chosen |= {"lambda": reg_lambda, "num_parallel_tree": num_parallel_tree, "local_rounds": local_rounds}
    return TreeEnsemble(signature, chosen)


def grow(
    module: TreeEnsemble,
    parameters: Mapping[str, Array],
    x: Array,
    y: Array,
    *,
    rounds: int,
    seed: int,
    round: int = 0,
    client: int = -1,
    eta_share: float = 1.0,
) -> Parameters:
    """``parameters`` and ``rounds`` of boosting more, on stored examples; the same bits for the same arguments.

    ``eta_share`` scales the step size: where many clients' trees are added to the same model, each takes its share.
    """
    import xgboost

    signature, options = module.signature, {k: v for k, v in module.options.items() if k != "local_rounds"}
    inputs = to_inputs(x, signature).flatten(1).numpy()
    data = xgboost.DMatrix(inputs, label=to_targets(y, signature).numpy(), missing=math.nan, nthread=1)
    options |= _objective(signature) | {
        "eta": options["eta"] * eta_share,
        "seed": address(seed, purpose="trees", round=round, client=client) % 2**31,
        "nthread": 1,
        "tree_method": "hist",
        "verbosity": 0,
    }
    before = bytearray(np.asarray(parameters[BYTES], dtype=np.uint8).tobytes())
    known = xgboost.Booster(options, model_file=before) if before else None
    booster = xgboost.train(options, data, num_boost_round=rounds, xgb_model=known, verbose_eval=False)
    return _arrays(booster)


def newest(parameters: Mapping[str, Array], *, rounds: int) -> Parameters:
    """The booster of the last ``rounds`` boosting rounds of ``parameters`` alone."""
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(np.asarray(parameters[BYTES]).tobytes()))
    return _arrays(booster[booster.num_boosted_rounds() - rounds : booster.num_boosted_rounds()])


def num_trees(parameters: Mapping[str, Array]) -> int:
    """Trees of a booster; 0 without one."""
    content = parameters[BYTES].tobytes()
    return len(json.loads(content)["learner"]["gradient_booster"]["model"]["trees"]) if content else 0


def why_no_trees(parameters: Mapping[str, Array], signature: Signature) -> str | None:
    """What keeps ``parameters`` from being a booster for ``signature``, in words; None if nothing does."""
    try:
        _tables(parameters, signature)
    except ValueError as error:
        return str(error)
    return None


def _leaf_size(signature: Signature) -> int:
    """Numbers a leaf holds: a tree answers for all classes at once, as Flower adds trees without saying for which."""
    return signature.num_outputs if signature.num_outputs > 2 else 1


def _objective(signature: Signature) -> dict[str, Any]:
    if signature.task == "regression":
        return {"objective": "reg:squarederror", "base_score": signature.target_mean}
    if signature.num_outputs > 2:
        classes = {"num_class": signature.num_outputs, "multi_strategy": "multi_output_tree"}
        return {"objective": "multi:softprob", "base_score": 0.0, **classes}
    return {"objective": "binary:logistic", "base_score": 0.5}


def _arrays(booster: Any) -> Parameters:
    return {BYTES: np.frombuffer(booster.save_raw("json"), dtype=np.uint8).copy()}


def _no_trees() -> dict[str, Any]:
    empty: dict[str, Any] = {name: [] for name in ("roots", "feature", "threshold", "left", "right", "default_left")}
    return {**empty, "leaf": [], "depth": 0}


def _tables(parameters: Mapping[str, Array], signature: Signature) -> dict[str, Any]:
    """The nodes of a booster's trees. Raises ValueError, whose text says why, if it is none for ``signature``."""
    if list(parameters) != [BYTES]:
        raise ValueError(f"arrays {sorted(parameters)}, expected the one array {BYTES!r}")
    content = parameters[BYTES]
    if content.dtype != np.uint8 or content.ndim != 1 or content.size > MOST_BYTES:
        raise ValueError(
            f"array {BYTES!r} is {content.dtype} of shape {content.shape}, expected at most {MOST_BYTES} bytes"
        )
    if not content.size:
        return _no_trees()
    try:
        learner = json.loads(content.tobytes())["learner"]
        model = learner["learner_model_param"]
        found = (learner["objective"]["name"], int(model["num_class"]), int(model["num_feature"]))
        wanted = _objective(signature)
        expected = (wanted["objective"], int(wanted.get("num_class", 0)), math.prod(signature.input_shape))
        tables = _nodes(learner["gradient_booster"]["model"], signature) if found == expected else {}
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"array {BYTES!r} holds no booster of XGBoost ({type(error).__name__}: {error})") from error
    if found != expected:
        raise ValueError(f"a booster of (objective, classes, features) {found}, expected {expected}")
    if not all(np.isfinite(tables[name]).all() for name in ("threshold", "leaf")):
        raise ValueError(f"array {BYTES!r} holds a tree with a NaN or an infinity")
    return tables


def _nodes(model: Any, signature: Signature) -> dict[str, Any]:
    """All trees' nodes in one table, a leaf being its own child. Raises ValueError for trees that none could follow."""
    size, num_features = _leaf_size(signature), math.prod(signature.input_shape)
    parts: dict[str, list[Array]] = {name: [] for name in ("feature", "threshold", "left", "right", "default_left")}
    leaves, roots, first, depth = [], [], 0, 0
    _check_counts(model)
    for tree in model["trees"]:
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        own = np.arange(len(left))
        leaf = left < 0
        below = leaf | ((np.minimum(left, right) > own) & (np.maximum(left, right) < len(own)))
        if not len(left) or len(left) != len(right) or not below.all():
            raise ValueError("a tree whose nodes do not hang together")
        feature = np.where(leaf, 0, tree["split_indices"])
        if any(tree["split_type"]) or feature.min() < 0 or feature.max() >= num_features:
            raise ValueError("a tree that asks for what the inputs have not")
        threshold = np.array(tree["split_conditions"], dtype=np.float32)
        parts["feature"].append(feature)
        parts["threshold"].append(threshold)
        parts["left"].append(first + np.where(leaf, own, left))
        parts["right"].append(first + np.where(leaf, own, right))
        parts["default_left"].append(np.array(tree["default_left"], dtype=bool).reshape(own.shape))
        leaves.append(_leaves(tree, leaf, right, threshold, size))
        roots.append(first)
        first += len(left)
        depth = max(depth, _depth(left, right))
    joined = {name: np.concatenate(some) if some else np.zeros(0) for name, some in parts.items()}
    return {**joined, "leaf": np.concatenate(leaves) if leaves else np.zeros((0, size)), "roots": roots, "depth": depth}


def _check_counts(model: Any) -> None:
    """Flower's bagging and XGBoost believe these numbers, and end the process where they are wrong."""
    counted, ends, found = model["gbtree_model_param"], model["iteration_indptr"], len(model["trees"])
    if int(counted["num_trees"]) != found or not 1 <= int(counted["num_parallel_tree"]) <= max(1, found):
        raise ValueError(f"{found} trees, and {counted} says otherwise")
    if ends[0] != 0 or ends[-1] != found or ends != sorted(ends):
        raise ValueError(f"{found} trees, in rounds that end at {ends}")
    if len(model["tree_info"]) != found or any(model["tree_info"]):
        raise ValueError("trees of other groups than the one")


def _leaves(tree: Any, leaf: Array, right: Array, threshold: Array, size: int) -> Array:
    """(nodes, size): what each leaf says, 0 elsewhere. XGBoost keeps a leaf's number, or its row among the vectors."""
    if max(1, int(tree["tree_param"]["size_leaf_vector"])) != size:
        raise ValueError(f"a tree whose leaves do not hold {size} numbers")
    if size == 1:
        return np.where(leaf, threshold, 0.0).reshape(-1, 1)
    vectors = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, size)
    if right[leaf].min() < 0:
        raise ValueError("a leaf without its numbers")
    return np.where(leaf.reshape(-1, 1), vectors[np.where(leaf, right, 0)], 0.0)


def _depth(left: Array, right: Array) -> int:
    """Levels below the root; children come after their parents in XGBoost's tables."""
    level = np.zeros(len(left), dtype=np.int64)
    for node in range(len(left)):
        if left[node] >= 0:
            level[[left[node], right[node]]] = level[node] + 1
    return int(level.max(initial=0))
