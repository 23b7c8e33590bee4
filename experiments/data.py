"""`fl data`: which data sets there are, what one looks like once it is dealt to clients, and what its columns hold."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import completion, features
from experiments.versions import REGISTRY, Folder, Json

app = typer.Typer(no_args_is_help=True, help="Describe data sets and draw their partition over clients.")

app.add_typer(features.app, name="features")

PICTURES = Path("outputs/data")


@app.command("list")
def list_command(registry: Folder = REGISTRY, as_json: Json = False) -> None:
    """List the data sets that dataset=NAME takes, and those that versions of the registry were made from."""
    from experiments import recorded_data
    from experiments.printing import print_table
    from fl.data.catalog import known

    found = known() | recorded_data.lines(registry)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(("data set", "what it is"), found.items())


Overrides = Annotated[
    list[str],
    typer.Argument(
        metavar="DATASET | GROUP=CHOICE | KEY=VALUE...",
        autocompletion=completion.complete,
        help="A data set by name, and what `fl simulate` takes: partition=dirichlet num_clients=20 ...",
        show_default=False,
    ),
]


Kept = Annotated[
    Path | None,
    typer.Option("--registry", metavar="DIR", help="Keep what is found there, for `fl data show NAME@VERSION`."),
]


@app.command()
def show(
    overrides: Overrides,
    registry: Folder = REGISTRY,
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PNG", help="The picture's file; outputs/data/... if not said.")
    ] = None,
) -> None:
    """Describe a data set and draw its partition: who has how many examples of what.

    NAME@VERSION shows what the registry has recorded of it: sources and their hashes, schema, owner, licence, lineage,
    its profile, and the rules that it was held against.
    """
    from experiments.printing import print_table

    if len(overrides) == 1 and "@" in overrides[0] and "=" not in overrides[0]:
        from experiments import recorded_data

        facts = recorded_data.facts(overrides[0], registry)
    else:
        facts = describe(overrides, output=output)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    evidence = facts.pop("evidence", {})
    shown = {key: value for key, value in facts.items() if value not in (None, [], {})}
    print_table(("", ""), [(key.replace("_", " "), _text(value)) for key, value in shown.items()])
    if evidence:
        _show_evidence(evidence)


@app.command()
def profile(
    overrides: Overrides,
    part: Annotated[str, typer.Option("--part", help="Of each client: all, train, validation or test.")] = "all",
    at_least: Annotated[
        int, typer.Option("--at-least", help="How often a client must have a value to tell it as a frequent one.")
    ] = 5,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Differential privacy by example: histograms with noise, no more.")
    ] = None,
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="HTML", help="The report's file; outputs/data/... if not said.")
    ] = None,
    registry: Kept = None,
) -> None:
    """Profile the columns of a table over private partitions: merged statistics only. Writes an HTML report."""
    found = make_profile(
        _composed(overrides), part=part, at_least=at_least, epsilon=epsilon, output=output, registry=registry
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _show_profile(found["columns"])
    typer.echo(found["report"])


def make_profile(
    settings: Mapping[str, Any],
    *,
    part: str = "all",
    at_least: int = 5,
    epsilon: float | None = None,
    output: Path | None = None,
    registry: Path | None = None,
) -> dict[str, Any]:
    """The profile of the data of ``settings``, as plain values; ``report`` is the path of the page that was written.

    ``registry``: where it is kept besides, as evidence of the data set.
    """
    from experiments import recorded_data
    from experiments.prepare import load_data
    from experiments.private_columns import dealt, profile_columns
    from fl.data.report import write_report
    from fl.errors import BadInput
    from fl.files import writable_folder

    name = settings["dataset"]["name"]
    page = (output or PICTURES / f"{name}-profile.html").absolute()
    if page.suffix != ".html":
        raise BadInput(key="--output", got=str(output), allowed="a file name that ends in .html")
    if registry is not None:
        writable_folder(registry.absolute(), key="--registry")
    dataset = load_data(settings)
    with dealt(settings, dataset) as columns:
        found = profile_columns(columns, part=part, at_least=at_least, epsilon=epsilon)
        facts = {"clients": columns.centre.num_clients, "part": part, "partition": settings["partition"]["name"]}
    writable_folder(page.parent, key="--output")
    write_report(found, page, title=f"{name}: profile of private columns", facts=facts)
    if registry is not None:
        data = recorded_data.about(settings, dataset)
        recorded_data.record(registry, data, {recorded_data.PROFILE: {**facts, **found}})
    return {"name": name, **facts, **found, "report": str(page)}


@app.command()
def validate(
    overrides: Overrides,
    rules: Annotated[Path, typer.Option("--rules", metavar="YAML", help="The rules' file.", show_default=False)],
    infer: Annotated[bool, typer.Option("--infer", help="Write rules that these data keep into the file.")] = False,
    quarantine: Annotated[
        Path | None, typer.Option("--quarantine", metavar="JSON", help="Write the clients that broke a rule here.")
    ] = None,
    as_json: Json = False,
    registry: Kept = None,
) -> None:
    """Hold private partitions against rules: every violation, by client and column. Exit status 1 if there is one.

    A run leaves quarantined clients out with dataset.quarantine=JSON.
    """
    from experiments.validation import infer_rules, show_violations, validate_data

    settings = _composed(overrides)
    if infer:
        typer.echo(infer_rules(settings, rules=rules))
        return
    found = validate_data(settings, rules=rules, quarantine=quarantine, registry=registry)
    show_violations(found, as_json=as_json)
    raise typer.Exit(1 if found["violations"] else 0)


def _composed(overrides: list[str]) -> dict[str, Any]:
    from experiments.compose import compose

    return compose([text if "=" in text or text.startswith("~") else f"dataset={text}" for text in overrides])


def describe(overrides: list[str], *, output: Path | None = None) -> dict[str, Any]:
    """What is known of a data set and its partition, as plain values; ``picture`` is the path of the drawing.

    Nothing is kept but the picture. Raises BadInput as `fl simulate` does.
    """
    from experiments.lifecycle.inputs import data_sources
    from experiments.prepare import load_data, prepare_data
    from fl.data.centre import open_centre
    from fl.data.describe import describe as describe_centre
    from fl.data.describe import describe_dataset
    from fl.data.intake import schema
    from fl.errors import BadInput
    from fl.files import writable_folder

    settings = _composed(overrides)
    name = f"{settings['dataset']['name']}-{settings['partition']['name']}.png"
    picture = (output or PICTURES / name).absolute()
    if picture.suffix != ".png":
        raise BadInput(key="--output", got=str(output), allowed="a file name that ends in .png")
    dataset = load_data(settings)
    with tempfile.TemporaryDirectory(prefix="meadow-data-") as folder:
        prepared = prepare_data(settings, dataset, centre=Path(folder, "centre"), devices=Path(folder, "devices"))
        facts = {"sources": data_sources(settings), "schema": schema(dataset)} | describe_dataset(dataset)
        facts |= describe_centre(open_centre(prepared.centre_dir))
        shutil.copyfile(prepared.picture, writable_folder(picture.parent, key="--output") / picture.name)
    return facts | {"picture": str(picture)}


def _text(value: Any) -> str:
    if isinstance(value, dict) and "dtype" in value:  # a column of a schema
        return f"{value['name']} {value['dtype']}" + (f" ({value['missing']} missing)" if value["missing"] else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    return f"{value:,.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _show_evidence(evidence: Mapping[str, Mapping[str, Any]]) -> None:
    """The profile as a table, the rules as the YAML that they are written in, and who broke them."""
    from experiments.recorded_data import PROFILE, RULES
    from experiments.validation import rules_text, violation_rows

    if PROFILE in evidence:
        _show_profile(evidence[PROFILE]["columns"])
    if RULES in evidence:
        typer.echo(f"\nrules\n{rules_text(evidence[RULES]['rules']).decode().rstrip()}")
        broken = evidence[RULES]["violations"]
        typer.echo(f"\n{'nobody breaks a rule' if not broken else 'broken rules'}")
        if broken:
            from experiments.printing import print_table

            print_table(*violation_rows(broken))


def _show_profile(columns: Sequence[Mapping[str, Any]]) -> None:
    """A row a column."""
    from experiments.printing import print_table

    told = ("type", "count", "missing", "min", "median", "max", "mean", "deviation", "distinct")
    rows = [
        (column["name"], *("" if column.get(fact) is None else _short(column[fact]) for fact in told))
        for column in columns
    ]
    print_table(("column", *told), rows)


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
