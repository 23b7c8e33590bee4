"""The feature store: what a row sees is what was known at its time, and a request sees the same bits."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.features import FeatureStore, View
from fl.data.windows import AGGREGATES, Window
from fl.errors import BadInput
from fl.transforms import steps
from fl.transforms.recipe import Recipe

PLAIN = View("visits", Recipe(("a", "b")))
FILLED = (steps.Impute(("a",), (7.0,), ("a",)), steps.Curve(("b",), "log1p"), steps.Scale(("b",), (0.1,), (0.3,)))
FITTED = View("visits", Recipe(("a", "b"), FILLED))

times = st.integers(0, 12).map(lambda n: n / 2)
known = st.lists(st.tuples(st.integers(0, 3), times), min_size=1, max_size=25)


numbers = itertools.count()


@pytest.fixture(scope="module")
def opened():
    with FeatureStore() as store:
        yield store


def fresh(view):
    """The same view of a table of its own."""
    return replace(view, name=f"{view.name}_{next(numbers)}")


def fill(store, view, rows, seed=0):
    """Rows of (key, time), whose column a is their time and b a number of their own."""
    key, time = (np.array(c) for c in zip(*rows, strict=True))
    b = np.random.default_rng(seed).uniform(0, 99, len(rows))
    store.write(view, key=key.astype(np.int64), time=time.astype(float), columns={"a": time.astype(float), "b": b})
    return key, time, b


@given(rows=known, asked=known)
@settings(max_examples=80, deadline=None)
def test_no_row_of_a_point_in_time_join_sees_its_future(opened, rows, asked):
    view = fresh(PLAIN)
    key, time, b = fill(opened, view, rows)
    ask_key, ask_time = (np.array(c) for c in zip(*asked, strict=True))
    found = opened.history(view, key=ask_key, time=ask_time)
    for k, t, (seen, own) in zip(ask_key, ask_time, found, strict=True):
        before = np.flatnonzero((key == k) & (time <= t))
        if not len(before):
            assert np.isnan([seen, own]).all()
            continue
        assert seen <= t  # a is when the row became known
        assert seen == time[before].max()
        assert own == b[before[time[before] == seen][-1]].astype(np.float32)  # of equal times the last written


@given(rows=known, asked=known)
@settings(max_examples=25, deadline=None)
def test_offline_and_online_are_one_definition_to_the_bit(opened, rows, asked):
    view = fresh(FITTED)
    fill(opened, view, rows)
    ask_key, ask_time = (np.array(c) for c in zip(*asked, strict=True))
    offline = opened.history(view, key=ask_key, time=ask_time)
    online = [opened.lookup(view, int(k), time=t) for k, t in zip(ask_key, ask_time, strict=True)]
    assert all(tuple(row) == ("a", "b", "a missing") for row in online)
    made = np.array([list(row.values()) for row in online], np.float32)
    assert np.array_equal(made, offline, equal_nan=True) and np.array_equal(np.signbit(made), np.signbit(offline))


def test_what_is_written_later_changes_no_earlier_answer():
    with FeatureStore() as store:
        fill(store, PLAIN, [(1, 1.0), (1, 2.0), (2, 1.0)])
        asked = {"key": np.array([1, 1, 2]), "time": np.array([1.5, 2.5, 9.0])}
        before = store.history(PLAIN, **asked)
        fill(store, PLAIN, [(1, 3.0), (2, 9.5)], seed=1)
        assert np.array_equal(store.history(PLAIN, **asked), before)
        assert store.lookup(PLAIN, 1)["a"] == 3.0
        assert store.lookup(PLAIN, 1, time=2.9)["a"] == 2.0


def test_a_file_keeps_what_was_written(tmp_path):
    with FeatureStore(tmp_path / "features.duckdb") as store:
        fill(store, PLAIN, [(1, 1.0)])
        fill(store, PLAIN, [(1, 1.0)], seed=5)  # replaces it
    with FeatureStore(tmp_path / "features.duckdb") as store:
        expected = np.float32(np.random.default_rng(5).uniform(0, 99))
        assert store.lookup(PLAIN, 1) == {"a": 1.0, "b": float(expected)}


def test_missing_values_stay_missing_until_the_recipe_fills_them():
    with FeatureStore() as store:
        store.write(FITTED, key=np.array([1]), time=np.array([1.0]), columns={"a": np.array([np.nan]), "b": np.ones(1)})
        assert store.lookup(FITTED, 1)["a missing"] == store.lookup(FITTED, 99)["a missing"] == 1.0
        assert store.history(FITTED, key=np.array([1]), time=np.array([1.0]))[0, 0] == 7.0


OWN = tuple(Window(f"own {by}", "a", by, span) for by in AGGREGATES for span in (2.0,))
EVER = (Window("ever", "a", "sum"),)
SHOP = tuple(Window(f"shop {by}", "a", by, 3.0, over="b") for by in AGGREGATES)
WINDOWED = View("spent", Recipe(("a", *(w.into for w in (*OWN, *EVER, *SHOP))), (), "float64"), (*OWN, *EVER, *SHOP))
spending = st.lists(
    st.tuples(st.integers(0, 3), times, st.sampled_from([0.1, 0.2, 1e16, -1e16, 3.7, -0.0, np.nan]), st.integers(0, 1)),
    min_size=1,
    max_size=25,
)


def spend(store, view, rows):
    key, time, a, b = (np.array(c) for c in zip(*rows, strict=True))
    store.write(view, key=key, time=time.astype(float), columns={"a": a, "b": b.astype(float)})
    return {(k, t): (x, shop) for k, t, x, shop in rows}  # of one key and time the last written


def pooled(by, values):
    """What exact fractions give, rounded once a step."""
    values = [Fraction(v) for v in values if np.isfinite(v)]
    if by in ("count", "sum"):
        return float(len(values) if by == "count" else sum(values))
    if not values:
        return np.nan
    mean = float(sum(values)) / len(values)
    squares = [Fraction((float(v) - mean) ** 2) for v in values]
    deviation = math.sqrt(float(sum(squares)) / len(values))
    return {"mean": mean, "deviation": deviation, "min": float(min(values)), "max": float(max(values))}[by]


@given(rows=spending, asked=known)
@settings(max_examples=40, deadline=None)
def test_windows_and_groups_hold_what_happened_within_their_time_and_nothing_later(opened, rows, asked):
    view = fresh(WINDOWED)
    table = spend(opened, view, rows)
    ask_key, ask_time = (np.array(c) for c in zip(*asked, strict=True))
    found = opened.history(view, key=ask_key, time=ask_time)
    for k, t, (newest, *made) in zip(ask_key, ask_time, found, strict=True):
        mine = {at: row for (other, at), row in table.items() if other == k and at <= t}
        a, shop = mine[max(mine)] if mine else (np.nan, None)
        assert np.array_equal(newest, a, equal_nan=True)
        for window, value in zip(view.windows, made, strict=True):
            same = [
                row[0]
                for (other, at), row in table.items()
                if t - window.span < at <= t and (other == k if window.over is None else row[1] == shop)
            ]
            assert np.array_equal(value, pooled(window.by, same), equal_nan=True), window


@given(rows=spending, asked=known, order=st.randoms())
@settings(max_examples=8, deadline=None)
def test_windows_have_the_same_bits_offline_and_online_in_whatever_order_rows_came(opened, rows, asked, order):
    first, second = fresh(WINDOWED), fresh(WINDOWED)
    table = spend(opened, first, rows)
    shuffled = [(*pair, *row) for pair, row in table.items()]
    order.shuffle(shuffled)
    for some in filter(None, (shuffled[:9], shuffled[9:])):
        spend(opened, second, some)
    ask_key, ask_time = (np.array(c) for c in zip(*asked, strict=True))
    offline = opened.history(first, key=ask_key, time=ask_time)
    online = [opened.lookup(second, int(k), time=t) for k, t in zip(ask_key, ask_time, strict=True)]
    made = np.array([list(row.values()) for row in online])
    assert np.array_equal(made, offline, equal_nan=True) and np.array_equal(np.signbit(made), np.signbit(offline))


def test_without_a_time_a_request_is_as_of_the_newest_row_and_large_keys_stay_apart():
    view = View("spent", Recipe(("week",), (), "float64"), (Window("week", "a", "sum", 7.0),))
    large = 2**53
    with FeatureStore() as store:
        columns = {"a": np.array([1.0, 2.0, 4.0, 8.0])}
        store.write(
            view, key=np.array([large, large, large, large + 1]), time=np.array([0.0, 5.0, 9.0, 9.0]), columns=columns
        )
        assert store.lookup(view, large) == {"week": 6.0}
        assert store.lookup(view, large + 1) == {"week": 8.0}
        assert store.lookup(view, large, time=20.0) == store.lookup(view, 5) == {"week": 0.0}


@pytest.mark.parametrize(
    "window, message",
    [
        ({"by": "median"}, "window w: got median, allowed: count, sum"),
        ({"span": 0.0}, "window w: got a span of 0, allowed: a number above 0"),
        ({"into": "v"}, "view.windows: got v, allowed: an input of the recipe: w"),
        ({"column": "w"}, "view.windows: got w, allowed: columns of the table"),
        ({"over": "time"}, "view.windows: got time, allowed: columns of the table"),
    ],
)
def test_a_window_is_of_a_column_over_a_time(window, message):
    with pytest.raises(BadInput, match=message):
        View("spent", Recipe(("w",)), (Window(**({"into": "w", "column": "a", "by": "sum"} | window)),))


ONE = {"key": np.array([1]), "time": np.array([1.0]), "columns": {"a": np.ones(1), "b": np.ones(1)}}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"columns": {"a": np.ones(1)}}, "features.columns: got a, allowed: a, b"),
        ({"time": np.ones(2)}, "features.columns: got 2 values, allowed: 1"),
        ({"time": np.array([np.nan])}, "features.time: got a missing time"),
        ({"time": np.array([np.inf])}, "features.time: got a missing time"),
        ({"key": np.array(["x"])}, "features.key: got keys of <U1, allowed: whole numbers"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused_whole(changes, message):
    with FeatureStore() as store:
        with pytest.raises(BadInput, match=message):
            store.write(PLAIN, **(ONE | changes))
        with pytest.raises(BadInput, match=r"view.name: got visits, allowed: a view that was written"):
            store.lookup(PLAIN, 1)


def test_a_view_is_of_the_columns_that_its_table_has():
    with FeatureStore() as store:
        fill(store, PLAIN, [(1, 1.0)])
        with pytest.raises(BadInput, match=r"view.recipe: got columns a, allowed: a, b, as visits has"):
            store.lookup(View("visits", Recipe(("a",))), 1)


def test_a_view_may_have_any_name_that_is_a_word():
    view = View("order", Recipe(("select", "a")))
    with FeatureStore() as store:
        store.write(view, key=np.array([1]), time=np.ones(1), columns={"select": np.ones(1), "a": np.zeros(1)})
        assert store.history(view, key=np.array([1]), time=np.ones(1)).tolist() == [[1.0, 0.0]]
        assert store.lookup(view, 1) == {"select": 1.0, "a": 0.0}


@pytest.mark.parametrize("name, inputs", [("a; DROP", ("a",)), ("visits", ("Time",))])
def test_a_view_has_names_that_a_table_can_have(name, inputs):
    with pytest.raises(BadInput, match="view"):
        View(name, Recipe(inputs))
