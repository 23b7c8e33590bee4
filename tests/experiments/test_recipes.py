"""dataset.recipe: fitted before round 0, kept with every version, and refused where it cannot be applied."""

import numpy as np
import pytest

from experiments.compose import compose
from experiments.prepare import load_data, prepare_data
from fl.data.centre import open_centre
from fl.data.store import open_store
from fl.errors import BadInput
from fl.models.build import build_model
from fl.transforms.recipe import Recipe

RECIPE = "dataset.recipe=[{impute: {indicator: true}},{curve: {columns: [chol], by: log1p}},{scale: {}}]"


def prepared(folder, *choices):
    settings = compose(["dataset=heart_disease", f"run_dir={folder / 'run'}", *choices])
    return prepare_data(settings, load_data(settings), centre=folder / "centre", devices=folder / "devices")


def test_a_recipe_is_fitted_and_in_both_signatures(tmp_path):
    names = prepared(tmp_path / "a").signature.feature_names
    made = prepared(tmp_path / "b", RECIPE)
    assert open_centre(made.centre_dir).signature == open_store(made.devices_dir).signature == made.signature
    recipe, store = Recipe.from_json(made.signature.recipe), open_store(made.devices_dir)
    assert recipe.inputs == names and not made.signature.medians
    train = recipe.values(np.concatenate([store.partition(c).train.x for c in range(4)]))
    assert np.isfinite(train).all()
    assert train.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert train.std(axis=0) == pytest.approx(1)
    module = build_model(target="fl.models.table_mlp.build", arguments={}, signature=made.signature, seed=0)
    assert module[0].num_outputs == len(recipe.features) > len(names)


def test_other_recipes_are_other_data(tmp_path):
    found = [
        prepared(tmp_path / str(i), *c).fingerprint
        for i, c in enumerate(([], ["dataset.recipe=[{impute: {}},{scale: {}}]"], []))
    ]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    "choices, message",
    [
        (["dataset.recipe=[{scael: {}}]"], r"dataset.recipe\[0\]: got scael"),
        (["dataset.recipe=[]"], "dataset.recipe: got .*, allowed: a list of steps"),
    ],
)
def test_what_cannot_be_applied_is_refused_before_anything_is_written(tmp_path, choices, message):
    with pytest.raises(BadInput, match=message):
        prepared(tmp_path, *choices)
    assert not (tmp_path / "centre").exists()


FILLED = "age,sex,cp,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal"


@pytest.mark.parametrize(
    "recipe, message",
    [
        ("[{scale: {}}]", r"missing among the 582 training rows \(trestbps in 39, chol in 129, .* and others\), allow"),
        (
            "[{impute: {}}, {curve: {columns: [oldpeak], by: log}}]",
            r"training rows \(oldpeak in \d+\), allowed: .*impute",
        ),
        ("[{outliers: {columns: [age], by: range, low: 200, high: 300, action: drop}}]", "drops all 582 training rows"),
    ],
)
def test_a_missing_value_is_not_trained_on(tmp_path, recipe, message):
    with pytest.raises(BadInput, match=f"dataset.recipe: got a recipe that .*{message}"):
        prepared(tmp_path, f"dataset.recipe={recipe}")


def test_a_row_whose_prediction_would_be_no_number_is_warned_of(tmp_path, capsys):
    recipe = f"[{{drop_rows: {{columns: [trestbps]}}}}, {{impute: {{columns: [{FILLED}]}}}}, {{scale: {{}}}}]"
    made = prepared(tmp_path, f"dataset.recipe={recipe}")
    told = open_centre(made.centre_dir).facts["recipe"]
    store = open_store(made.devices_dir)
    place = made.signature.feature_names.index("trestbps")
    lacking = sum(int(np.isnan(store.partition(c).test.x[:, place]).sum()) for c in range(4))
    assert told["missing"]["test"] == {"trestbps": lacking} and lacking and "train" not in told["missing"]
    assert f"leaves values missing in test parts (trestbps in {lacking})" in capsys.readouterr().err
    assert len(told["warnings"]) == 3
