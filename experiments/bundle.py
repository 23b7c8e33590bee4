"""`fl package`, and `fl bundle` to look into a bundle and check it; both verify every file of it first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.versions import REGISTRY, Json, Name
from experiments.versions import Folder as Registry

app = typer.Typer(
    no_args_is_help=True, help="Bundles that `fl package` makes: look into them, verify and deliver them."
)

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.", show_default=False)]
PublicKey = Annotated[
    Path | None, typer.Option("--public-key", metavar="FILE", help="The bundle has to be signed by this key (PEM).")
]


def package(
    version: Name,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option("--format", help="Those of fl export, several with commas; the parameters are always there.")
    ] = "pt2",
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the bundle goes.")] = Path("bundles"),
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Sign with this Ed25519 private key (PEM).")
    ] = None,
    override: Annotated[
        str | None, typer.Option("--override", metavar="REASON", help="Why a version goes out that was not accepted.")
    ] = None,
    registry: Registry = REGISTRY,
    as_json: Json = False,
) -> None:
    """Write an accepted version as a bundle: the model, what it takes and gives, a card, checksums, a signature."""
    from experiments.export import warn
    from experiments.package import package as write
    from experiments.package import show as print_it

    made = write(version, formats=format.split(","), output=output, registry=registry, key=key, override=override)
    warn(made.manifest["formats"])
    print_it(made, as_json=as_json)


@app.command()
def show(bundle: Folder, public_key: PublicKey = None, as_json: Json = False) -> None:
    """Show what a bundle holds: the model, what goes in and comes out, its formats, and who signed."""
    from experiments.package import show as print_it
    from fl.bundle import open_bundle

    print_it(open_bundle(bundle, public_key=public_key), as_json=as_json)


@app.command()
def verify(bundle: Folder, public_key: PublicKey = None, as_json: Json = False) -> None:
    """Check every file of a bundle, and its signature; exit status 1 if anything is wrong."""
    from fl.bundle import open_bundle

    found = open_bundle(bundle, public_key=public_key)
    if as_json:
        print(json.dumps({"id": found.id, "signed_by": found.signed_by, "trusted": found.trusted}, indent=2))
    else:
        signed = f"signed by {found.signed_by}" if found.signed_by else "not signed"
        print(f"{bundle}: nothing is wrong, {signed}")


@app.command()
def image(
    bundle: Folder,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="A new folder.")] = Path("image"),
    public_key: PublicKey = None,
) -> None:
    """Write a folder to build an image of `fl serve` from, and Kubernetes manifests to run it by."""
    from fl.bundle import open_bundle
    from fl.packaging.image import write

    print(write(open_bundle(bundle, public_key=public_key), output))


@app.command()
def serverless(
    bundle: Folder,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The zip.")] = Path("function.zip"),
    public_key: PublicKey = None,
) -> None:
    """Write a zip with one function that answers, for a platform that runs functions; its name is printed first."""
    from fl.bundle import open_bundle
    from fl.packaging.serverless import HANDLER, write

    made = write(open_bundle(bundle, public_key=public_key), output)
    print(f"{HANDLER}: {made.packed_bytes / 1e6:.1f} MB, unzipped {made.bytes / 1e6:.0f} MB")
    print(made.path)
