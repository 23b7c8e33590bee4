"""`fl data`: which data sets there are, and what one looks like once it is dealt to clients."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import completion
from experiments.versions import Json

app = typer.Typer(no_args_is_help=True, help="Describe data sets and draw their partition over clients.")

PICTURES = Path("outputs/data")


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the data sets that dataset=NAME takes."""
    from experiments.printing import print_table
    from fl.data.catalog import known

    found = known()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(("data set", "what it is"), found.items())


@app.command()
def show(
    overrides: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET | GROUP=CHOICE | KEY=VALUE...",
            autocompletion=completion.complete,
            help="A data set by name, and what `fl simulate` takes: partition=dirichlet num_clients=20 ...",
            show_default=False,
        ),
    ],
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PNG", help="The picture's file; outputs/data/... if not said.")
    ] = None,
) -> None:
    """Describe a data set and draw its partition: who has how many examples of what."""
    from experiments.printing import print_table

    facts = describe(overrides, output=output)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = {key: value for key, value in facts.items() if value not in (None, [], {})}
    print_table(("", ""), [(key.replace("_", " "), _text(value)) for key, value in shown.items()])


def describe(overrides: list[str], *, output: Path | None = None) -> dict[str, Any]:
    """What is known of a data set and its partition, as plain values; ``picture`` is the path of the drawing.

    Nothing is kept but the picture. Raises BadInput as `fl simulate` does.
    """
    from experiments.compose import compose
    from experiments.prepare import load_data, prepare_data
    from fl.data.centre import open_centre
    from fl.data.describe import describe as describe_centre
    from fl.data.describe import describe_dataset
    from fl.errors import BadInput
    from fl.files import writable_folder

    settings = compose([text if "=" in text or text.startswith("~") else f"dataset={text}" for text in overrides])
    name = f"{settings['dataset']['name']}-{settings['partition']['name']}.png"
    picture = (output or PICTURES / name).absolute()
    if picture.suffix != ".png":
        raise BadInput(key="--output", got=str(output), allowed="a file name that ends in .png")
    dataset = load_data(settings)
    with tempfile.TemporaryDirectory(prefix="meadow-data-") as folder:
        prepared = prepare_data(settings, dataset, centre=Path(folder, "centre"), devices=Path(folder, "devices"))
        facts = describe_dataset(dataset) | describe_centre(open_centre(prepared.centre_dir))
        shutil.copyfile(prepared.picture, writable_folder(picture.parent, key="--output") / picture.name)
    return facts | {"picture": str(picture)}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    return f"{value:,.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
