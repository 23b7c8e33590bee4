"""A recipe as people write it, and how it is fitted: by query rounds over the clients' training parts alone.

A recipe is a list of steps, each with what it takes (``columns`` none: all that there are at that point):

    - drop:        {columns: [id]}
    - deduplicate: {}
    - drop_rows:   {columns: [age]}                                       those that miss one of these
    - impute:      {columns: [age], by: median, indicator: true}          median mean most_frequent constant (value)
    - outliers:    {columns: [age], by: iqr, width: 1.5, action: clip}    iqr deviation quantiles range; clip flag drop
    - encode:      {columns: [cp], by: one_hot, most: 32, at_least: 5}    one_hot ordinal; or categories: [1, 2]
    - scale:       {columns: [age], by: standard}                         standard min_max
    - discretise:  {columns: [age], by: quantiles, bins: 4}               quantiles uniform; or edges: [40, 60]
    - dates:       {columns: [seen], unit: days, fields: [year, month]}   days or seconds since 1970
    - curve:       {columns: [cost], by: log1p}                           log log1p sqrt square
    - aggregate:   {columns: [a, b], by: mean, into: ab}                  sum mean min max, of each example
                   {columns: [a], over: cp, by: mean, into: a_of_cp}      mean count, of all rows with the same cp
    - select:      {most: 8, by: mutual_information, bins: 8}             mutual_information correlation, with the label

Of categories, groups and most frequent values a client tells those alone that it has ``at_least`` times. What is in no
group that was told has the mean of all, and the count 0.

A step is fitted on what the steps before it make of the training rows that they keep. Rows are dropped from training
parts alone: a row that is measured, or asked about when the model is used, is never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fl.data import analytics
from fl.data.analytics import Ask
from fl.data.relevance import BY, relevance
from fl.data.written_steps import Entry, read_steps
from fl.errors import BadInput
from fl.messages import Query
from fl.moments import Moments
from fl.transforms import steps
from fl.transforms.recipe import Recipe
from fl.transforms.steps import CURVES, FIELDS, Step

PART = "train"

OVER_GROUPS = ("mean", "count")
"""What a group's rows can come to; a least or largest value would be some one person's."""

AT_LEAST = 5
"""How often a client must have a value to tell it: one that it has less often might be one person's."""


@dataclass(frozen=True)
class Fitting:
    """What a step is fitted with: ``ask`` about columns ``names``, as they are before it; ``key`` is the step's own."""

    ask: Ask
    names: tuple[str, ...]
    key: str

    def chosen(self, columns: Sequence[str] | None) -> tuple[str, ...]:
        """``columns``, or all of them."""
        if columns is None:
            return self.names
        return tuple(self.among(f"columns[{i}]", name, self.names) for i, name in enumerate(columns))

    def among(self, option: str, got: str, allowed: Iterable[str]) -> str:
        """``got``, or BadInput by the option's key."""
        if got not in allowed:
            raise BadInput(key=f"{self.key}.{option}", got=got, allowed=", ".join(allowed))
        return got

    def numbers(self, columns: Iterable[str]) -> list[int]:
        """Where the columns are."""
        return [self.names.index(name) for name in columns]

    def moments(self, columns: Sequence[str]) -> list[Moments]:
        """Of each of the columns."""
        return list(analytics.moments(self.ask, self.numbers(columns), part=PART).values())

    def quantiles(self, columns: Sequence[str], shares: Sequence[float]) -> list[list[float]]:
        """Of each of the columns; 0 where nobody knows a value."""
        found = analytics.quantiles(self.ask, self.numbers(columns), shares, part=PART)
        return [[value if value == value else 0.0 for value in values] for values in found.values()]

    def frequent(self, columns: Sequence[str], *, most: int, at_least: int) -> list[list[float]]:
        """The frequent values of each of the columns, most frequent first; BadInput where none was told."""
        hitters = analytics.heavy_hitters(self.ask, self.numbers(columns), capacity=most, at_least=at_least, part=PART)
        for name, found in zip(columns, hitters.values(), strict=True):
            if not found.values:
                got = f"{name}, of which no value was told"
                allowed = f"one with a value that some client has {at_least} times (at_least)"
                raise BadInput(key=f"{self.key}.columns", got=got, allowed=allowed)
        return [[value for value, _ in found.top] for found in hitters.values()]


def _impute(
    f: Fitting,
    *,
    columns: Sequence[str] | None = None,
    by: str = "median",
    value: float = 0.0,
    at_least: int = AT_LEAST,
    indicator: bool = False,
) -> Sequence[Step]:
    f.among("by", by, ("median", "mean", "most_frequent", "constant"))
    chosen = f.chosen(columns)
    if by == "median":
        values = [found[0] for found in f.quantiles(chosen, [0.5])]
    elif by == "mean":
        values = [found.mean for found in f.moments(chosen)]
    elif by == "most_frequent":
        values = [found[0] for found in f.frequent(chosen, most=256, at_least=at_least)]
    else:
        values = [float(value)] * len(chosen)
    gaps = f.moments(chosen) if indicator else []
    flagged = [name for name, found in zip(chosen, gaps, strict=bool(gaps)) if found.missing]
    return [steps.Impute(chosen, tuple(values), tuple(flagged))]


def _outliers(
    f: Fitting,
    *,
    columns: Sequence[str] | None = None,
    by: str = "iqr",
    width: float | None = None,
    low: float | None = None,
    high: float | None = None,
    action: str = "clip",
) -> Sequence[Step]:
    f.among("by", by, ("iqr", "deviation", "quantiles", "range"))
    f.among("action", action, ("clip", "flag", "drop"))
    chosen = f.chosen(columns)
    if by == "iqr":
        reach = 1.5 if width is None else float(width)
        bounds = [(q - reach * (r - q), r + reach * (r - q)) for q, r in f.quantiles(chosen, [0.25, 0.75])]
    elif by == "deviation":
        reach = 3.0 if width is None else float(width)
        bounds = [
            (m.mean - reach * m.deviation, m.mean + reach * m.deviation) if m.count else (0.0, 0.0)
            for m in f.moments(chosen)
        ]
    elif by == "quantiles":
        shares = [0.01 if low is None else float(low), 0.99 if high is None else float(high)]
        bounds = [(q, r) for q, r in f.quantiles(chosen, shares)]
    else:
        if low is None or high is None:
            raise BadInput(key=f"{f.key}.low", got=[low, high], allowed="low and high, for by: range")
        bounds = [(float(low), float(high))] * len(chosen)
    lows, highs = tuple(a for a, _ in bounds), tuple(b for _, b in bounds)
    if action == "drop":
        return [steps.DropOutliers(chosen, lows, highs)]
    return [steps.Clip(chosen, lows, highs, flag=action == "flag")]


def _drop(f: Fitting, *, columns: Sequence[str]) -> Sequence[Step]:
    chosen = f.chosen(columns)
    if set(chosen) == set(f.names):
        raise BadInput(key=f"{f.key}.columns", got="all columns", allowed="some, so that a feature is left")
    return [steps.Drop(chosen)]


def _drop_rows(f: Fitting, *, columns: Sequence[str] | None = None) -> Sequence[Step]:
    return [steps.DropMissing(f.chosen(columns))]


def _deduplicate(f: Fitting) -> Sequence[Step]:
    return [steps.Deduplicate()]


def _encode(
    f: Fitting,
    *,
    columns: Sequence[str],
    by: str = "one_hot",
    categories: Sequence[float] | None = None,
    most: int = 32,
    at_least: int = AT_LEAST,
) -> Sequence[Step]:
    kind: Callable[[str, tuple[float, ...]], Step]
    kind = steps.OneHot if f.among("by", by, ("one_hot", "ordinal")) == "one_hot" else steps.Ordinal
    chosen = f.chosen(columns)
    if categories is not None:
        if not categories:
            raise BadInput(key=f"{f.key}.categories", got="none", allowed="one or more")
        return [kind(name, tuple(float(c) for c in categories)) for name in chosen]
    found = f.frequent(chosen, most=most, at_least=at_least)
    return [kind(name, tuple(sorted(values))) for name, values in zip(chosen, found, strict=True)]


def _scale(f: Fitting, *, columns: Sequence[str] | None = None, by: str = "standard") -> Sequence[Step]:
    f.among("by", by, ("standard", "min_max"))
    chosen = f.chosen(columns)
    found = f.moments(chosen)
    if by == "min_max":
        return [steps.Scale(chosen, tuple(m.low for m in found), tuple(m.high - m.low or 1.0 for m in found))]
    # Below what rounding alone makes of a constant column, there is nothing to divide by.
    spread = (m.deviation if m.count and m.deviation > 1e-7 * abs(m.mean) else 1.0 for m in found)
    return [steps.Scale(chosen, tuple(m.mean for m in found), tuple(spread))]


def _discretise(
    f: Fitting,
    *,
    columns: Sequence[str],
    by: str = "quantiles",
    bins: int = 4,
    edges: Sequence[float] | None = None,
) -> Sequence[Step]:
    f.among("by", by, ("quantiles", "uniform"))
    chosen = f.chosen(columns)
    if edges is not None:
        found = [[float(e) for e in edges]] * len(chosen)
    elif bins < 2:
        raise BadInput(key=f"{f.key}.bins", got=bins, allowed="2 or more")
    elif by == "quantiles":
        found = f.quantiles(chosen, [i / bins for i in range(1, bins)])
    else:
        found = [[m.low + (m.high - m.low) * i / bins for i in range(1, bins)] for m in f.moments(chosen)]
    return [steps.Discretise(name, tuple(sorted(set(e)))) for name, e in zip(chosen, found, strict=True)]


def _dates(
    f: Fitting, *, columns: Sequence[str], unit: str = "days", fields: Sequence[str] = FIELDS[:4]
) -> Sequence[Step]:
    f.among("unit", unit, ("days", "seconds"))
    chosen = [f.among("fields", field, FIELDS) for field in fields]
    return [steps.Dates(name, unit, tuple(chosen)) for name in f.chosen(columns)]


def _curve(f: Fitting, *, columns: Sequence[str], by: str) -> Sequence[Step]:
    return [steps.Curve(f.chosen(columns), f.among("by", by, CURVES))]


def _aggregate(
    f: Fitting,
    *,
    columns: Sequence[str],
    by: str,
    into: str,
    over: str | None = None,
    most: int = 32,
    at_least: int = AT_LEAST,
) -> Sequence[Step]:
    f.among("by", by, steps.AGGREGATES if over is None else OVER_GROUPS)
    if not columns or (over is not None and len(columns) > 1):
        allowed = "one or more" if over is None else "one, with over"
        raise BadInput(key=f"{f.key}.columns", got=list(columns) or "none", allowed=allowed)
    if into in f.names:
        raise BadInput(key=f"{f.key}.into", got=into, allowed="a name that no column has")
    chosen = f.chosen(columns)
    if over is None:
        return [steps.Aggregate(chosen, by, into)]
    groups = sorted(f.frequent([f.among("over", over, f.names)], most=most, at_least=at_least)[0])
    value, member = f.numbers([*chosen, over])
    found = analytics.grouped(f.ask, value, member, groups, at_least=at_least, part=PART)
    everywhere = f.moments(chosen)[0] if by == "mean" else None
    other = everywhere.mean if everywhere and everywhere.count else 0.0
    told = [float(count) if by == "count" else mean if count else other for count, mean in found]
    return [steps.OfGroup(over, tuple(groups), tuple(told), other, into)]


def _select(
    f: Fitting, *, most: int, columns: Sequence[str] | None = None, by: str = "mutual_information", bins: int = 8
) -> Sequence[Step]:
    """Of ``columns``, drop all but the ``most`` that tell most of the label; of equals the first stay."""
    f.among("by", by, BY)
    for option, value, least in (("most", most, 1), ("bins", bins, 2)):
        if value < least:
            raise BadInput(key=f"{f.key}.{option}", got=value, allowed=f"{least} or more")
    chosen = f.chosen(columns)
    try:
        found = relevance(f.ask, f.numbers(chosen), label=len(f.names), by=by, bins=bins, part=PART)
    except BadInput as error:
        raise BadInput(key=f"{f.key}.{error.key}", got=error.got, allowed=error.allowed) from error
    ranked = sorted(chosen, key=lambda name: -found[f.names.index(name)])
    gone = tuple(name for name in chosen if name in ranked[most:])
    return [steps.Drop(gone)] if gone else []


FITS: Mapping[str, Callable[..., Sequence[Step]]] = {
    "impute": _impute,
    "outliers": _outliers,
    "drop": _drop,
    "drop_rows": _drop_rows,
    "deduplicate": _deduplicate,
    "encode": _encode,
    "scale": _scale,
    "discretise": _discretise,
    "dates": _dates,
    "curve": _curve,
    "aggregate": _aggregate,
    "select": _select,
}


def read_recipe(written: object, *, key: str = "dataset.recipe") -> list[Entry]:
    """The steps of a recipe as YAML gives them, checked as far as can be without data."""
    return read_steps(written, FITS, key=key, example="- scale: {by: standard}")


def fit_recipe(
    entries: Sequence[Entry], ask: Ask, *, inputs: Sequence[str], dtype: str = "float32", key: str = "dataset.recipe"
) -> Recipe:
    """Fit ``entries`` (of ``read_recipe``) in order. ``inputs``: names of the table's columns, in order.

    ``ask`` puts queries to all clients (server/query.py). Nothing but merged statistics of training parts is used.
    """
    recipe = Recipe(tuple(inputs), (), dtype)
    for i, (name, options) in enumerate(entries):
        fitting = Fitting(about_features(ask, recipe), recipe.features, f"{key}[{i}].{name}")
        made = FITS[name](fitting, **options)
        recipe = replace(recipe, steps=(*recipe.steps, *made))
    return recipe


def about_features(ask: Ask, recipe: Recipe) -> Ask:
    """A function that asks about the features that ``recipe`` makes, in place of the table's columns."""
    text = recipe.to_json()

    def ask_about(query: Query) -> analytics.Answers:
        return ask(replace(query, recipe=text))

    return ask_about
