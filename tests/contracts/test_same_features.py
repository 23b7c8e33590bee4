"""Every kind of step gives the same features offline, online and in the model's own preprocessing, to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from fl.data.features import FeatureStore, View
from fl.models.build import build_model
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.parameters import Array
from fl.signature import Signature
from fl.transforms import steps
from fl.transforms.recipe import Recipe
from fl.transforms.steps import STEPS, Step, step_name

INPUTS = ("a", "b", "seen", "kind")
A, B, SEEN = ("a",), ("b",), "seen"

CASES: Sequence[tuple[Step, ...]] = (
    (steps.Impute(("a", "b"), (0.1, 1 / 3), ("b",)),),
    (steps.Clip(A, (-1e3,), (1 / 3 * 1e4,)),),
    (steps.Clip(A, (-1e3,), (1 / 3 * 1e4,), flag=True),),
    (steps.Drop(B),),
    (steps.OneHot("kind", (0.0, 1.0, 2.5)),),
    (steps.Ordinal("kind", (2.5, 0.0)),),
    (steps.Scale(("a", "b"), (0.1, 1e-3), (1 / 3, 7e8)),),
    (steps.Discretise("a", (-0.1, 0.1, 7.3)),),
    (steps.Dates(SEEN, "seconds", steps.FIELDS),),
    (steps.Dates(SEEN, "days", steps.FIELDS),),
    *((steps.Curve(("a", "b"), curve),) for curve in steps.CURVES),
    *((steps.Aggregate(("a", "b", "kind"), by, "made"),) for by in steps.AGGREGATES),
    (steps.OfGroup("kind", (0.0, 2.5), (0.1, 1 / 3 * 1e9), -1 / 7, "of kind"),),
    # Rows that they would not train on get their features all the same.
    (steps.DropOutliers(A, (-1.0,), (1.0,)), steps.Scale(A, (0.1,), (0.3,))),
    (steps.DropMissing(("a", "b")), steps.Scale(A, (0.1,), (0.3,))),
    (steps.Deduplicate(), steps.Scale(A, (0.1,), (0.3,))),
)
NAMES = [
    " ".join([step_name(made[0]), *(str(v) for v in vars(made[0]).values() if isinstance(v, str))]) for made in CASES
]


ONE_BY_ONE = 20
numbers = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with FeatureStore() as store:
        yield store


def rows(dtype: str, n: int = 300) -> Array:
    """Usual and unusual values of each column: gaps, both zeros, repeats, the tiny, the huge and the infinite."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, 4)) * [10, 1e3, 3e8, 1]
    x[:, 1] *= 10.0 ** draw.integers(-30, 30, n)
    x[:, 3] = draw.choice([0, 1, 2.5, 4], n)
    x[draw.random(x.shape) < 0.1] = np.nan
    x[:7, 0] = [0.0, -0.0, np.inf, -np.inf, 1e-40, 3e38, -1.0]
    x[7:9] = x[9]
    return x.astype(dtype)


def test_every_kind_of_step_has_a_case() -> None:
    assert {step_name(step) for made in CASES for step in made} == set(STEPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("made", CASES, ids=NAMES)
def test_the_same_bits_offline_online_and_in_a_model(store: FeatureStore, made: tuple[Step, ...], dtype: str) -> None:
    recipe, x = Recipe(INPUTS, made, dtype), rows(dtype)
    key, time = np.arange(len(x)), np.ones(len(x))
    view = View(f"table_{next(numbers)}", recipe)
    store.write(view, key=key, time=time, columns=dict(zip(INPUTS, x.T, strict=True)))
    offline = store.history(view, key=key, time=time)
    looked_up = [store.lookup(view, int(k)) for k in key[:ONE_BY_ONE]]
    online = [recipe.apply_one(dict(zip(INPUTS, row.tolist(), strict=True))) for row in x[:ONE_BY_ONE]]
    signature = Signature("classification", (4,), dtype, 2, recipe=recipe.to_json())
    layer = build_model(target="fl.models.table_mlp.build", arguments={}, signature=signature, seed=0)[0]  # type: ignore[index]
    assert isinstance(layer, RecipePreprocessing)
    in_model = layer(torch.from_numpy(x)).numpy()
    assert len(offline) == len(x), "no row that is asked about is dropped"
    assert all(tuple(row) == recipe.features for row in (*looked_up, *online))
    same_bits(offline, recipe.apply(x))
    same_bits(offline, in_model)
    for found in (looked_up, online):
        same_bits(np.array([list(row.values()) for row in found]).astype(dtype), offline[:ONE_BY_ONE])


def same_bits(a: Array, b: Array) -> None:
    """NaN is NaN, whatever its own bits; everything else to the last one, the sign of 0 too."""
    assert a.dtype == b.dtype and a.shape == b.shape
    missing, whole = np.isnan(a), f"u{a.dtype.itemsize}"
    assert np.array_equal(missing, np.isnan(b))
    assert np.array_equal(a[~missing].view(whole), b[~missing].view(whole))
