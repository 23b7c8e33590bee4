"""Recipes are fitted by query rounds, on training parts alone, to what one pass over all training rows gives."""

import datetime

import numpy as np
import pytest

from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from experiments.compose import compose
from fl.data.recipes import FITS, fit_recipe, read_recipe
from fl.data.store import write_store
from fl.errors import BadInput
from fl.signature import Signature
from fl.transforms import steps
from fl.transforms.recipe import Recipe
from server.query import asker

NAMES = ("age", "cost", "kind", "seen")
PARTS = np.array([[40, 5, 5], [25, 5, 10], [60, 1, 1]])
DAY = (datetime.date(2024, 2, 29) - datetime.date(1970, 1, 1)).days


def table(seed=0):
    """Rows of three clients, one after the other, and the number of the part of each: 0 is training."""
    draw = np.random.default_rng(seed)
    n = int(PARTS.sum())
    x = np.stack([draw.normal(50, 9, n), draw.lognormal(3, 1, n), draw.integers(1, 5, n), DAY + np.arange(n)], axis=1)
    x[::7, 0] = np.nan
    part = np.concatenate([np.repeat([0, 1, 2], sizes) for sizes in PARTS])
    return x.astype(np.float32), draw.integers(0, 2, n), part


def asked(folder, x, y):
    """What puts queries to the devices that hold these rows."""
    signature = Signature("classification", (x.shape[1],), "float32", 2, feature_names=NAMES)
    write_store(folder / "p", x=x, y=y, parts=PARTS, signature=signature, name="t", fingerprint="0")
    settings = {**compose(["dataset=heart_disease", f"run_dir={folder / 'run'}"]), "num_clients": len(PARTS)}
    setting = open_setting(settings, partitions=folder / "p", states=folder / "s")
    return asker(UnitGrid(run_id="1", num_clients=len(PARTS), unit_size=2, executor=InProcess(setting)))


EVERYTHING = [
    {"deduplicate": None},
    {"outliers": {"columns": ["cost"], "by": "quantiles", "high": 0.95, "low": 0.0, "action": "drop"}},
    {"outliers": {"columns": ["age"], "by": "deviation", "width": 2, "action": "flag"}},
    {"outliers": {"columns": ["cost"]}},
    {"impute": {"columns": ["age"], "by": "mean", "indicator": True}},
    {"dates": {"columns": ["seen"], "fields": ["month", "weekday"]}},
    {"encode": {"columns": ["kind"]}},
    {"encode": {"columns": ["seen month"], "by": "ordinal", "categories": [2, 3]}},
    {"curve": {"columns": ["cost"], "by": "log1p"}},
    {"aggregate": {"columns": ["age", "cost"], "by": "max", "into": "most"}},
    {"aggregate": {"columns": ["age"], "over": "kind=1", "by": "mean", "into": "age of kind"}},
    {"discretise": {"columns": ["most"], "bins": 3}},
    {"drop": {"columns": ["seen weekday"]}},
    {"scale": {"columns": ["age"], "by": "min_max"}},
    {"drop_rows": {}},
    {"scale": {}},
    {"select": {"most": 99}},
]


@pytest.fixture(scope="module")
def rows():
    return table()


@pytest.fixture(scope="module")
def ask(tmp_path_factory, rows):
    return asked(tmp_path_factory.mktemp("table"), rows[0], rows[1])


def fit(ask, *written):
    return fit_recipe(read_recipe(list(written)), ask, inputs=NAMES)


def column(rows, name):
    """The known values of a column, over all training parts, float64."""
    x, _, part = rows
    values = x[part == 0, NAMES.index(name)].astype(np.float64)
    return values[~np.isnan(values)]


def lower(values, share):
    return np.quantile(values, share, method="inverted_cdf")


def test_every_step_that_can_be_written_is_fitted(ask):
    assert {name for entry in EVERYTHING for name in entry} == set(FITS)
    recipe = fit(ask, *EVERYTHING)
    assert recipe.features[:4] == ("age", "cost", "age outlying", "age missing")
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("by, pooled", [("median", lambda v: lower(v, 0.5)), ("mean", np.mean)])
def test_missing_values_are_filled_with_pooled_statistics(ask, rows, by, pooled):
    (step,) = fit(ask, {"impute": {"columns": ["age", "kind"], "by": by, "indicator": True}}).steps
    assert step.values == pytest.approx([pooled(column(rows, c)) for c in ("age", "kind")], rel=1e-12)
    assert step.indicators == ("age",)


def test_the_most_frequent_value_fills(ask, rows):
    values, counts = np.unique(column(rows, "kind"), return_counts=True)
    (step,) = fit(ask, {"impute": {"columns": ["kind"], "by": "most_frequent"}}).steps
    assert step.values == (values[counts.argmax()],)


def test_outliers_are_what_lies_far_out(ask, rows):
    (step,) = fit(ask, {"outliers": {"columns": ["cost"], "by": "iqr", "width": 2}}).steps
    q, r = (lower(column(rows, "cost"), share) for share in (0.25, 0.75))
    assert step == steps.Clip(("cost",), (q - 2 * (r - q),), (r + 2 * (r - q),))


@pytest.mark.parametrize("by", ["mean", "count"])
def test_a_group_has_what_its_training_rows_at_all_clients_come_to(ask, rows, by):
    x, _, part = rows
    written = {"columns": ["age"], "over": "kind", "by": by, "into": "of kind", "at_least": 1}
    (step,) = fit(ask, {"aggregate": written}).steps
    kind, age = (x[part == 0, NAMES.index(name)].astype(np.float64) for name in ("kind", "age"))
    known = ~np.isnan(age)
    expected = [age[known & (kind == group)] for group in (1, 2, 3, 4)]
    pooled = [len(ages) if by == "count" else ages.mean() for ages in expected]
    assert step.groups == (1, 2, 3, 4) and step.values == pytest.approx(pooled, rel=1e-12)
    assert step.other == pytest.approx(age[known].mean() if by == "mean" else 0, rel=1e-12)
    made = Recipe(NAMES, (step,)).apply(np.array([[50, 1, 2, 0], [50, 1, 9, 0], [50, 1, np.nan, 0]], np.float32))
    assert made[:, -1] == pytest.approx([pooled[1], step.other, step.other], rel=1e-6)


def test_a_group_that_a_client_has_too_seldom_is_not_told(ask, rows):
    x, _, part = rows
    written = {"columns": ["age"], "over": "kind", "by": "count", "into": "of kind", "at_least": 9}
    (step,) = fit(ask, {"aggregate": written}).steps
    client = np.repeat(np.arange(len(PARTS)), PARTS.sum(axis=1))
    held = (part == 0) & ~np.isnan(x[:, 0])
    counts = [[(held & (client == c) & (x[:, 2] == group)).sum() for c in range(len(PARTS))] for group in step.groups]
    assert step.values == tuple(float(sum(n for n in some if n >= 9)) for some in counts)


def test_categories_are_those_of_the_training_rows(ask):
    one_hot, ordinal = fit(
        ask,
        {"encode": {"columns": ["kind"]}},
        {"encode": {"columns": ["kind=1"], "by": "ordinal"}},
    ).steps
    assert one_hot == steps.OneHot("kind", (1.0, 2.0, 3.0, 4.0))
    assert ordinal == steps.Ordinal("kind=1", (0.0, 1.0))


def test_a_category_of_too_few_is_not_told(ask):
    with pytest.raises(BadInput, match=r"\[0\].encode.columns: got kind, of which no value was told"):
        fit(ask, {"encode": {"columns": ["kind"], "at_least": 1000}})


def test_scales_are_pooled(ask, rows):
    standard, least = fit(ask, {"scale": {"columns": ["cost"]}}, {"scale": {"columns": ["age"], "by": "min_max"}}).steps
    cost, age = column(rows, "cost"), column(rows, "age")
    assert [*standard.centre, *standard.spread] == pytest.approx([cost.mean(), cost.std()], rel=1e-12)
    assert (least.centre, least.spread) == ((age.min(),), (age.max() - age.min(),))


def test_bins_are_of_equal_share_or_width(ask, rows):
    cost = column(rows, "cost")
    made = fit(ask, {"discretise": {"columns": ["cost", "age"]}}, {"discretise": {"columns": ["seen"], "edges": [1]}})
    assert made.steps[0].edges == tuple(lower(cost, share) for share in (0.25, 0.5, 0.75))
    assert made.steps[2].edges == (1.0,)
    (uniform,) = fit(ask, {"discretise": {"columns": ["cost"], "by": "uniform", "bins": 2}}).steps
    assert uniform.edges == pytest.approx(((cost.min() + cost.max()) / 2,))


def test_a_step_is_fitted_on_what_the_steps_before_it_leave(ask, rows):
    x, _, part = rows
    made = fit(
        ask,
        {"outliers": {"columns": ["cost"], "by": "range", "low": 0, "high": 20, "action": "drop"}},
        {"curve": {"columns": ["cost"], "by": "log"}},
        {"scale": {"columns": ["cost"]}},
    )
    cost = x[part == 0, 1].astype(np.float64)
    assert made.steps[-1].centre[0] == pytest.approx(np.log(cost[cost <= 20]).mean(), rel=1e-12)


def test_only_training_parts_are_looked_at(tmp_path, ask, rows):
    """A tell-tale in validation and test parts changes no fitted number; in one training row it changes some."""
    x, y, part = rows
    planted = x.copy()
    planted[part > 0] = 1e6 + np.arange(4)
    planted[part == 2, 0] = np.nan
    original = fit(ask, *EVERYTHING)
    told = fit(asked(tmp_path / "a", planted, y), *EVERYTHING)
    assert told.to_json() == original.to_json()
    planted = x.copy()
    planted[np.flatnonzero(part == 0)[3]] = [77, 9, 9, DAY]
    assert fit(asked(tmp_path / "b", planted, y), *EVERYTHING).to_json() != original.to_json()


BAD = [
    ("scale", "dataset.recipe: got scale, allowed: a list of steps"),
    ([], "a list of steps"),
    ([{"scale": {}, "drop": {}}], r"dataset.recipe\[0\]: got .* allowed: one step"),
    ([{"scale": {}}, {"scael": {}}], r"dataset.recipe\[1\]: got scael, allowed: impute, outliers"),
    ([{"scale": {"bye": "x"}}], r"dataset.recipe\[0\].scale: got bye, allowed: columns, by"),
    ([{"scale": ["age"]}], r"dataset.recipe\[0\].scale: got \['age'\], allowed: options by name: columns, by"),
    ([{"drop": None}], r"dataset.recipe\[0\].drop: got no columns"),
    ([{"drop": {"columns": "age"}}], r"dataset.recipe\[0\].drop.columns: got age, allowed: a list of names"),
    ([{"discretise": {"columns": ["age"], "bins": "4"}}], r"\[0\].discretise.bins: got 4, allowed: a whole number"),
    ([{"impute": {"indicator": 1}}], r"dataset.recipe\[0\].impute.indicator: got 1, allowed: true or false"),
]


@pytest.mark.parametrize("written, message", BAD)
def test_what_is_no_recipe_is_refused_before_any_data_are_read(written, message):
    with pytest.raises(BadInput, match=message):
        read_recipe(written)


@pytest.mark.parametrize(
    "written, message",
    [
        ({"scale": {"columns": ["age", "height"]}}, r"\[0\].scale.columns\[1\]: got height, allowed: age, cost"),
        ({"scale": {"by": "robust"}}, r"\[0\].scale.by: got robust, allowed: standard, min_max"),
        ({"dates": {"columns": ["seen"], "fields": ["century"]}}, r"\[0\].dates.fields: got century"),
        ({"drop": {"columns": list(NAMES)}}, r"\[0\].drop.columns: got all columns"),
        ({"outliers": {"by": "range", "low": 1}}, r"\[0\].outliers.low: got"),
        ({"aggregate": {"columns": ["age"], "by": "sum", "into": "cost"}}, r"\[0\].aggregate.into: got cost"),
        ({"encode": {"columns": ["kind"], "categories": []}}, r"\[0\].encode.categories: got none"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(ask, written, message):
    with pytest.raises(BadInput, match=message):
        fit(ask, written)
