"""One recipe, three places, the same bits: over a partition, one example at a time, and inside a model's exports."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl.errors import BadInput
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.recipe_preprocessing import RecipePreprocessing
from fl.packaging.export import export
from fl.signature import Signature
from fl.transforms import steps
from fl.transforms.recipe import Recipe

INPUTS = ("a", "b", "c", "t", "u", "k")
EVERYTHING = (
    steps.Aggregate(("a", "b", "c"), "sum", "sum"),
    steps.Aggregate(("a", "b", "c"), "mean", "mean"),
    steps.Aggregate(("a", "b", "c"), "min", "low"),
    steps.Aggregate(("a", "b", "c"), "max", "high"),
    steps.Deduplicate(),
    steps.Dates("t", "seconds", steps.FIELDS),
    steps.Dates("u", "days", steps.FIELDS),
    steps.OneHot("k", (0.0, 1.0, 2.5)),
    steps.Clip(("a",), (-1e3,), (1 / 3 * 1e4,), flag=True),
    steps.Clip(("a",), (-1e3,), (1 / 3 * 1e4,)),
    steps.Curve(("b",), "log"),
    steps.Curve(("high",), "log1p"),
    steps.Curve(("c",), "sqrt"),
    steps.Curve(("low",), "square"),
    steps.Discretise("sum", (-0.1, 0.1, 7.3)),
    steps.Ordinal("u weekday", (0.0, 3.0, 6.0)),
    steps.Impute(("a", "b"), (0.1, 1 / 3), ("b",)),
    steps.Scale(("a", "b", "c", "mean"), (0.1, 0.7, 1e-3, 1e9), (1 / 3, 0.1, 7.0, 1e-9)),
    steps.Drop(("t year",)),
)


def signature_of(recipe, dtype="float32"):
    return Signature("classification", (len(recipe.inputs),), dtype, 2, recipe=recipe.to_json())


def same_bits(a, b):
    """NaN is NaN, whatever its own bits; everything else to the last one, the sign of 0 too."""
    assert a.dtype == b.dtype and a.shape == b.shape
    missing = np.isnan(a)
    assert np.array_equal(missing, np.isnan(b))
    whole = np.uint32 if a.dtype == np.float32 else np.uint64
    assert np.array_equal(a[~missing].view(whole), b[~missing].view(whole))


def tables(dtype):
    usual = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, -0.0, 1.0, 2.5, 3.0])
    anything = st.floats(width=32 if dtype == np.float32 else 64, allow_nan=True, allow_infinity=True)
    return hnp.arrays(dtype, st.tuples(st.integers(1, 9), st.just(len(INPUTS))), elements=usual | anything)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_offline_online_and_in_a_model_to_the_bit(dtype):
    recipe = Recipe(INPUTS, EVERYTHING, dtype)
    layer = RecipePreprocessing(signature_of(recipe, dtype))

    @given(tables(np.dtype(dtype).type))
    @settings(max_examples=150, deadline=None)
    def check(x):
        offline = recipe.apply(x)
        online = [recipe.apply_one(dict(zip(INPUTS, row.tolist(), strict=True))) for row in x]
        assert all(tuple(row) == recipe.features for row in online)
        same_bits(np.array([list(row.values()) for row in online]).astype(dtype), offline)
        same_bits(layer(torch.from_numpy(x)).numpy(), offline)
        same_bits(layer(torch.from_numpy(x).expand(3, *x.shape)).numpy()[1], offline)  # clients stacked in front

    check()


def rows_of(n):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, len(INPUTS))) * [10, 1e3, 50, 1e8, 2e4, 1]
    x[:, 5] = generator.choice([0, 1, 2.5, 4], n)
    x[:, 1] = np.abs(x[:, 1]) * 10.0 ** generator.integers(-30, 30, n)
    x[generator.random(x.shape) < 0.1] = np.nan
    return x.astype(np.float32)


@pytest.mark.parametrize(
    "kind", [pytest.param("pt2", marks=pytest.mark.slow), pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_exports_give_the_same_bits(tmp_path, kind):
    recipe, x = Recipe(INPUTS, EVERYTHING), rows_of(2_000)
    layer, path = RecipePreprocessing(signature_of(recipe)), tmp_path / f"layer.{kind}"
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporters deprecate of themselves
        program = torch.export.export(layer, (torch.zeros(2, len(INPUTS)),), dynamic_shapes=({0: batch},))
        if kind == "pt2":
            torch.export.save(program, path)
            made = torch.export.load(path).module()(torch.from_numpy(x)).numpy()
        else:
            import onnxruntime

            torch.onnx.export(program, dynamo=True, verbose=False).save(path)
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (made,) = session.run(None, {session.get_inputs()[0].name: x})
    same_bits(made, recipe.apply(x))


SIMPLE = (steps.Impute(INPUTS, (0.5,) * 6, ("b",)), steps.Scale(INPUTS, (0.1,) * 6, (3.0,) * 6))


@pytest.mark.parametrize("name", ["table_mlp", "logistic"])
def test_table_models_hold_the_recipe_and_so_do_their_exports(tmp_path, name):
    recipe = Recipe(INPUTS, SIMPLE)
    signature = signature_of(recipe)
    module = build_model(target=f"fl.models.{name}.build", arguments={}, signature=signature, seed=1)
    x = rows_of(50)
    plain = torch.nn.Sequential(*list(module.children())[1:])
    with torch.no_grad():
        assert torch.equal(module(torch.from_numpy(x)), plain(torch.from_numpy(recipe.apply(x))))
    assert not any("recipe" in key for key in module.state_dict())
    manifest = {"version": "run:3", "sha256": "0" * 64}
    made = export(
        module, parameters=parameters_of(module), signature=signature, manifest=manifest,
        formats=["pt2", "onnx"], examples=x, output=tmp_path, name="model",
    )  # fmt: skip  # proves each file against the model
    assert len(made) == 2


def test_a_model_without_the_recipe_is_refused():
    with pytest.raises(BadInput, match=r"dataset.recipe: got .*softmax.* allowed: .*table_mlp"):
        build_model(
            target="fl.models.softmax.build", arguments={}, signature=signature_of(Recipe(INPUTS, SIMPLE)), seed=1
        )


def test_a_recipe_of_another_table_is_refused():
    signature = Signature("classification", (3,), "float32", 2, recipe=Recipe(INPUTS, SIMPLE).to_json())
    with pytest.raises(BadInput, match=r"dataset.recipe: got a recipe of 6 .* allowed: 3 columns"):
        RecipePreprocessing(signature)
