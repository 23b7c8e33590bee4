"""`fl data features`: a feature store as it is typed. What is known of a key at a time, for training and for a request.

STORE               a DuckDB file: a table a view
STORE.views.json    what each view is: the recipe that makes features of its columns, and its windows over time
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.versions import REGISTRY, Folder, Json
from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.data.features import View
    from fl.data.windows import Window

app = typer.Typer(
    no_args_is_help=True, help="Features as they were known at a time: a store for training and requests."
)

Store = Annotated[Path, typer.Argument(metavar="STORE", help="The store's file (DuckDB).", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="VIEW", help="The view's name.", show_default=False)]
Key = Annotated[str, typer.Option("--key", metavar="COLUMN", help="The column of the key: whole numbers.")]
Time = Annotated[str, typer.Option("--time", metavar="COLUMN", help="The column of the time: numbers or dates.")]


@app.command()
def write(
    store: Store,
    view: Name,
    table: Annotated[Path, typer.Option("--table", metavar="FILE", help="The rows: .csv, .parquet or .jsonl.")],
    key: Key = "key",
    time: Time = "time",
    version: Annotated[
        str | None, typer.Option("--version", help="Make the features of this version's recipe; else columns stay.")
    ] = None,
    registry: Folder = REGISTRY,
    window: Annotated[
        list[str] | None,
        typer.Option(
            "--window",
            metavar="INTO=BY:COLUMN:SPAN[:GROUP]",
            help="A feature over the last SPAN of time (or all): count, sum, mean, deviation, min or max of COLUMN, "
            "in rows of the key, or of all keys that are equal in GROUP. Give it again for another.",
        ),
    ] = None,
) -> None:
    """Add rows to a view, which the first rows make: what became known of a key at a time."""
    from fl.data.feature_files import read_rows
    from fl.data.features import FeatureStore, View
    from fl.files import writable_folder
    from fl.transforms.recipe import Recipe

    known = _views(store)
    recipe, windows = _recipe_of(version, registry), _windows(window or [])
    made = known.get(view)
    if made is not None and recipe is not None and recipe != made.recipe:
        raise BadInput(key="--version", got=version, allowed=f"a new view: {view} is made by another recipe")
    if made is not None and windows and windows != made.windows:
        raise BadInput(key="--window", got=window, allowed=f"a new view, or nothing: {view} has other windows")
    if made is None and recipe is not None:
        made = View(view, recipe, windows)
    columns = None if made is None else made.columns
    keys, times, found = read_rows(table, key=key, time=time, columns=columns, option="--table")
    if made is None:
        inputs = (*found, *(one.into for one in windows))
        made = View(view, Recipe(inputs, (), "float64"), windows)
        if lacking := [name for name in made.columns if name not in found]:
            got = f"no column {lacking[0]!r} in {table}"
            raise BadInput(key="--window", got=got, allowed=f"one of {', '.join(found)}")
        if taken := [one.into for one in windows if one.into in found]:
            raise BadInput(key="--window", got=taken[0], allowed="a name that no column has")
    writable_folder(store.absolute().parent, key="STORE")
    with FeatureStore(store) as opened:
        opened.write(made, key=keys, time=times, columns=found)
    _keep(store, {**known, view: made})
    typer.echo(f"{len(keys)} rows of {view}: {', '.join(made.recipe.features)}")


@app.command()
def history(
    store: Store,
    view: Name,
    asked: Annotated[Path, typer.Option("--asked", metavar="FILE", help="Keys and times: .csv, .parquet or .jsonl.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The features: .csv or .parquet.")],
    key: Key = "key",
    time: Time = "time",
) -> None:
    """Write the features of each key as they were known at its time, row by row of what is asked: training data."""
    from fl.data.feature_files import WRITERS, read_rows, write_features
    from fl.data.features import FeatureStore
    from fl.files import writable_folder

    if output.suffix not in WRITERS:
        raise BadInput(key="--output", got=str(output), allowed=f"a file name that ends in {' or '.join(WRITERS)}")
    made = _view(store, view)
    keys, times, _ = read_rows(asked, key=key, time=time, columns=(), option="--asked")
    with FeatureStore(store) as opened:
        x = opened.history(made, key=keys, time=times)
    writable_folder(output.absolute().parent, key="--output")
    write_features(output, {key: keys, time: times, **dict(zip(made.recipe.features, x.T, strict=True))})
    typer.echo(f"{len(keys)} rows with {x.shape[1]} features: {output}")


@app.command()
def lookup(
    store: Store,
    view: Name,
    key: Annotated[int, typer.Argument(metavar="KEY", help="Whose features.", show_default=False)],
    time: Annotated[
        str | None, typer.Option("--time", help="As they were known then: a number or a date; the newest if not said.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell the features of one key: for a request."""
    from experiments.printing import print_table
    from fl.data.features import FeatureStore

    made = _view(store, view)
    with FeatureStore(store) as opened:
        found = opened.lookup(made, key, time=None if time is None else _moment(time))
    known = {name: None if value != value else value for name, value in found.items()}
    if as_json:
        typer.echo(json.dumps(known, indent=2))
        return
    print_table(("feature", ""), [(name, "missing" if v is None else f"{v:.10g}") for name, v in known.items()])


def _moment(text: str) -> float:
    """A number as it is, a date or an ISO time as days since 1970."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError as error:
        raise BadInput(key="--time", got=text, allowed="a number or a date such as 2026-01-31") from error
    return (when - datetime.combine(date(1970, 1, 1), datetime.min.time())).total_seconds() / 86_400


def _recipe_of(version: str | None, registry: Path) -> Any:
    if version is None:
        return None
    from fl.registry import Registry
    from fl.transforms.recipe import Recipe

    signature = Registry.existing(registry).version(version).manifest["signature"]
    if not signature.get("recipe"):
        raise BadInput(key="--version", got=version, allowed="a version that was trained with dataset.recipe")
    return Recipe.from_json(signature["recipe"])


def _windows(written: Sequence[str]) -> tuple[Window, ...]:
    from fl.data.windows import Window

    found = []
    for text in written:
        parts = re.fullmatch(r"([^=]+)=(\w+):([^:]+):([^:]+)(?::([^:]+))?", text)
        try:
            into, by, column, span, over = parts.groups() if parts else ("", "", "", "", None)
            found.append(Window(into, column, by, math.inf if span == "all" else float(span), over))
        except ValueError as error:
            allowed = "INTO=BY:COLUMN:SPAN[:GROUP], such as spent=sum:amount:30"
            raise BadInput(key="--window", got=text, allowed=allowed) from error
    return tuple(found)


def _view(store: Path, name: str) -> View:
    known = _views(store)
    if name not in known:
        allowed = ", ".join(known) or "a view that was written: fl data features write"
        raise BadInput(key="VIEW", got=f"{name}, of {store}", allowed=allowed)
    return known[name]


def _views(store: Path) -> Mapping[str, View]:
    from fl.data.features import View
    from fl.data.windows import Window
    from fl.files import read_json
    from fl.transforms.recipe import Recipe

    file = _views_file(store)
    written = read_json(file) if file.is_file() else {"views": {}}
    windows = {name: _read_windows(Window, made) for name, made in written.get("windows", {}).items()}
    views = written["views"].items()
    return {name: View(name, Recipe.from_json(text), windows.get(name, ())) for name, text in views}


def _read_windows(kind: type[Window], written: Sequence[Mapping[str, Any]]) -> tuple[Window, ...]:
    return tuple(kind(**{**one, "span": math.inf if one["span"] is None else one["span"]}) for one in written)


def _keep(store: Path, views: Mapping[str, View]) -> None:
    """Beside the store: a span without end is null."""
    from fl.files import write_json

    ends = {
        name: [asdict(one) | {"span": one.span if one.span < math.inf else None} for one in view.windows]
        for name, view in views.items()
    }
    recipes = {name: view.recipe.to_json() for name, view in views.items()}
    write_json(_views_file(store), {"views": recipes, "windows": ends}, site="report")


def _views_file(store: Path) -> Path:
    return store.absolute().with_name(f"{store.name}.views.json")
