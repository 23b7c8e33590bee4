"""`fl report`: the model card of a version, and the report of its experiment, from its manifest and its evidence.

DIR/model-card.md, .html   what whoever meets the model should know (fl/evaluation/card.py)
DIR/report.md, .html       the card, the plots, the settings and the lineage
DIR/plots/                 the plots, as report.md shows them; the HTML has them inside
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl.evaluation.card import Card
    from fl.registry import Registry, Version

REPORTS = Path("outputs/reports")
SITE = "report"


def report(name: str, *, registry: Path, output: Path | None, as_json: bool) -> None:
    """Write the four files for the version called ``name``, and print where."""
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    files = write_report(store, version, output or REPORTS / version.name.replace(":", "-"))
    if as_json:
        print(json.dumps({"version": version.name, "files": [str(path) for path in files]}, indent=2))
    else:
        print("\n".join(str(path) for path in files))


def write_report(store: Registry, version: Version, folder: Path) -> list[Path]:
    """The files, each written whole. BadInput for a version without a model, or a folder that cannot be written."""
    from fl.evaluation import card as cards
    from fl.evaluation.plots import plots
    from fl.files import writable_folder, write_bytes

    made = card_of(store, version)
    rounds = [
        {"round": one.round, "metrics": one.metrics, "chosen": one.hash == version.hash}
        for one in store.versions(version.run_id)
    ]
    pictures = plots(store.evidence(version).get("evaluate", {}), rounds)
    writable_folder(folder / "plots", key="--output")
    texts = {
        "model-card.md": cards.markdown(made),
        "model-card.html": cards.html(made),
        "report.md": _markdown(made, pictures, version),
        "report.html": _html(made, pictures, version),
    }
    texts |= {f"plots/{_file(title)}": svg for title, svg in pictures.items()}
    for file, text in texts.items():
        write_bytes(folder / file, text.encode(), site=SITE)
    return [folder / file for file in texts if not file.startswith("plots/")]


def card_of(store: Registry, version: Version) -> Card:
    """The card of a version with all that its registry knows."""
    from fl.errors import BadInput
    from fl.evaluation.card import card
    from fl.signature import Signature

    manifest = version.manifest
    if not manifest.get("signature") or not manifest["model"].get("target"):
        raise BadInput(key="version", got=version.name, allowed="a version of `fl simulate`: its model is known")
    lineage = [one.name for one in store.lineage(version)]
    identity = {
        "version": version.name,
        "hash": version.hash,
        "created": manifest["created"],
        "aliases": sorted(alias for alias, one in store.aliases().items() if one.hash == version.hash),
        "parent": manifest["parent_name"],
        "comes from": f"{lineage[-1]}, {len(lineage) - 1} versions before" if len(lineage) > 1 else None,
        "code": manifest.get("code"),
    }
    return card(
        manifest,
        Signature.from_dict(manifest["signature"]),
        store.evidence(version),
        identity=identity,
        config=manifest["config"],
    )


def _markdown(made: Card, pictures: Mapping[str, str], version: Version) -> str:
    from fl.evaluation.card import markdown

    shown = [f"![{title}](plots/{_file(title)})\n" for title in pictures]
    settings = ["## Settings", "", "```text", *_settings(version), "```", ""]
    return "\n".join([markdown(made), "## Plots", "", *(shown or ["*none: nothing was measured*\n"]), *settings])


def _html(made: Card, pictures: Mapping[str, str], version: Version) -> str:
    from fl.evaluation.card import body, page

    drawn = (
        "".join(f"<h3>{escape(title)}</h3>{svg}" for title, svg in pictures.items()) or "<i>nothing was measured</i>"
    )
    settings = escape("\n".join(_settings(version)))
    content = f"{body(made)}<h2>Plots</h2>{drawn}<h2>Settings</h2><pre>{settings}</pre>"
    return page(f"{made.title}: {version.name}", content)


def _settings(version: Version) -> Sequence[str]:
    from experiments.choices import flat

    return [f"{key}={'null' if value is None else value}" for key, value in flat(version.manifest["config"]).items()]


def _file(title: str) -> str:
    return f"{title.replace(' ', '-')}.svg"
