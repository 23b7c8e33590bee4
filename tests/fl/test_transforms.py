"""Steps of a recipe: what each computes, and which rows are kept. What they are fitted with: tests/data."""

import datetime
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.errors import BadInput
from fl.transforms import steps
from fl.transforms.arithmetic import NUMPY, log, sqrt
from fl.transforms.recipe import Recipe

NAN = math.nan


def run(step, **columns):
    """What a step makes of columns, by name, NaN as None."""
    x = np.array(list(columns.values()), np.float64).T
    recipe = Recipe(tuple(columns), (step,), "float64")
    made = recipe.apply(x).T.tolist()
    return {n: [None if v != v else v for v in c] for n, c in zip(recipe.features, made, strict=True)}


CASES = [
    (steps.Impute(("a",), (7.0,), ("a",)), {"a": [1, NAN]}, {"a": [1, 7], "a missing": [0, 1]}),
    (steps.Impute(("a",), (7.0,)), {"a": [math.inf, NAN], "b": [NAN, 2]}, {"a": [7, 7], "b": [None, 2]}),
    (steps.Clip(("a",), (0.0,), (5.0,)), {"a": [-1, 3, 9, NAN]}, {"a": [0, 3, 5, None]}),
    (
        steps.Clip(("a",), (0.0,), (5.0,), flag=True),
        {"a": [-1, 3, 9, NAN]},
        {"a": [-1, 3, 9, None], "a outlying": [1, 0, 1, 0]},
    ),
    (steps.Drop(("a",)), {"a": [1], "b": [2]}, {"b": [2]}),
    (steps.OneHot("a", (1.0, 2.5)), {"a": [1, 2.5, 3, NAN]}, {"a=1": [1, 0, 0, 0], "a=2.5": [0, 1, 0, 0]}),
    (steps.Ordinal("a", (5.0, 1.0)), {"a": [1, 5, 3, NAN]}, {"a": [1, 0, -1, -1]}),
    (steps.Scale(("a",), (1.0,), (2.0,)), {"a": [1, 5, NAN]}, {"a": [0, 2, None]}),
    (steps.Discretise("a", (1.0, 2.0)), {"a": [0, 1, 1.5, 2, NAN]}, {"a": [0, 1, 1, 2, None]}),
    (steps.Curve(("a",), "square"), {"a": [-3, 1e200]}, {"a": [9, None]}),
    (steps.Curve(("a",), "sqrt"), {"a": [4, -4, 0]}, {"a": [2, None, 0]}),
    (steps.Curve(("a",), "log"), {"a": [1, 0, -1]}, {"a": [0, None, None]}),
    (steps.Curve(("a",), "log1p"), {"a": [0, -1]}, {"a": [0, None]}),
    (
        steps.Aggregate(("a", "b"), "mean", "m"),
        {"a": [1, NAN, NAN], "b": [3, 4, NAN]},
        {"a": [1, None, None], "b": [3, 4, None], "m": [2, 4, None]},
    ),
]


@pytest.mark.parametrize("step, given_, expected", CASES, ids=lambda v: type(v).__name__)
def test_what_a_step_makes(step, given_, expected):
    assert run(step, **given_) == expected


@pytest.mark.parametrize("by, expected", [("sum", [5, 2]), ("min", [1, 2]), ("max", [4, 2])])
def test_aggregates_are_of_the_known_values(by, expected):
    assert run(steps.Aggregate(("a", "b"), by, "m"), a=[1, NAN], b=[4, 2])["m"] == expected


@given(st.datetimes(timezones=st.just(datetime.UTC)))
@settings(max_examples=300, deadline=None)
def test_dates_are_those_of_the_calendar(moment):
    second = moment.replace(microsecond=0)
    since = second - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    seconds = since.days * 86400 + since.seconds
    made = run(steps.Dates("t", "seconds", steps.FIELDS), t=[seconds])
    expected = [second.year, second.month, second.day, second.weekday(), second.hour]
    assert [made[f"t {field}"][0] for field in steps.FIELDS] == expected
    assert run(steps.Dates("t", "days", ("month",)), t=[since.days])["t month"] == [second.month]


def test_a_missing_date_has_no_fields():
    assert run(steps.Dates("t", "days", ("year",)), t=[NAN]) == {"t year": [None]}


@given(st.floats(min_value=5e-324, max_value=1.7e308))
@settings(max_examples=500, deadline=None)
def test_the_logarithm_is_right_to_the_last_places(x):
    assert log(np.array([x]), NUMPY)[0] == pytest.approx(math.log(x), rel=4e-16, abs=1e-300)


@given(st.floats(min_value=5e-324, max_value=1.7e308))
@settings(max_examples=500, deadline=None)
def test_the_square_root_is_right_to_the_last_place(x):
    assert abs(sqrt(np.array([x]), NUMPY)[0] - math.sqrt(x)) <= math.ulp(math.sqrt(x))


ROWS = np.array([[1, 10], [1, 10], [2, NAN], [2, NAN], [99, 1], [1, 10]], np.float64)
LABEL = np.array([0, 0, 1, 1, 0, 1])


@pytest.mark.parametrize(
    "made, expected",
    [
        ((steps.Deduplicate(),), [0, 2, 4, 5]),  # the last has another label
        ((steps.DropMissing(("b",)),), [0, 1, 4, 5]),
        ((steps.DropOutliers(("a",), (0.0,), (50.0,)),), [0, 1, 2, 3, 5]),
        ((steps.DropOutliers(("a",), (0.0,), (50.0,)), steps.Deduplicate()), [0, 2, 5]),
        ((steps.Scale(("a",), (0.0,), (100.0,)), steps.DropOutliers(("a",), (0.0,), (0.5,))), [0, 1, 2, 3, 5]),
        ((), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_rows_that_are_trained_on(made, expected):
    recipe = Recipe(("a", "b"), made)
    assert recipe.kept(ROWS, LABEL).tolist() == expected
    assert len(recipe.apply(ROWS)) == len(ROWS)  # features are made of every row that is asked about


def test_one_example_by_name():
    recipe = Recipe(("a", "b"), (steps.Impute(("a",), (7.0,)), steps.Drop(("b",))))
    assert recipe.apply_one({"a": None}) == recipe.apply_one({}) == {"a": 7.0}
    with pytest.raises(BadInput, match="features: got c, allowed: a, b"):
        recipe.apply_one({"c": 1.0})


def test_a_recipe_survives_being_written():
    made = (*(case[0] for case in CASES), steps.Dates("a", "days", ("year",)), steps.Deduplicate())
    recipe = Recipe(("a", "b"), (*made, steps.Scale(("b",), (0.1,), (1 / 3,))))
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"inputs": [], "dtype": "float32", "steps": [{}]})])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(BadInput, match="recipe"):
        Recipe.from_json(text)
