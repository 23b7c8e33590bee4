"""The key ``dataset.recipe``: fitted by query rounds before round 0, kept in the signature that every version has."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl.errors import BadInput
from fl.files import read_json, write_json

if TYPE_CHECKING:
    from fl.data.dataset import Dataset
    from fl.data.prepare import Prepared
    from fl.data.written_steps import Entry
    from fl.signature import Signature
    from fl.transforms.recipe import Recipe

_KEY = "dataset.recipe"

MOST_NAMED = 5
"""Columns that a message names."""


def recipe_of(settings: Mapping[str, Any], dataset: Dataset) -> Sequence[Entry]:
    """The steps that the settings ask for, or none. Raises BadInput before anything is written."""
    from fl.data.recipes import read_recipe

    written = settings["dataset"].get("recipe")
    if written is None:
        return []
    entries = read_recipe(written)
    if not dataset.is_table or dataset.x.dtype.kind != "f":
        raise BadInput(key=_KEY, got=f"a recipe for {dataset.name}", allowed="a recipe for a table of numbers")
    return entries


def fit_prepared(
    settings: Mapping[str, Any], entries: Sequence[Entry], prepared: Prepared, *, fitted: str | None = None
) -> Prepared:
    """Ask the clients, whose partitions are written, and write the recipe into both signatures.

    What it does to the rows goes into the centre's facts, as ``recipe``. Raises BadInput where training would see a
    missing value, or no row; where only a prediction would, that is said on standard error. ``fitted``: the recipe as
    text, where the same ``entries`` were fitted to the same data before, and what is to be said was.
    """
    from experiments.asking import ask_here
    from fl.cohorts import unseen_clients
    from fl.data.folds import LEFT_OUT
    from fl.data.recipe_effects import recipe_effects
    from fl.data.recipes import fit_recipe
    from fl.transforms.recipe import Recipe

    centre, partitions, clients = prepared.centre_dir, prepared.devices_dir, prepared.num_clients
    plain = replace(prepared.signature, medians=(), indicators=(), feature_mean=(), feature_std=())
    ask = ask_here(partitions, signature=plain, num_clients=clients, seed=int(settings["seed"]))
    if fitted is None:
        seen = ask_here(
            partitions,
            signature=plain,
            num_clients=clients,
            seed=int(settings["seed"]),
            but=unseen_clients(settings.get("unseen_clients"), clients, seed=int(settings["seed"])),
        )
        recipe = fit_recipe(entries, seen, inputs=plain.input_names, dtype=plain.input_dtype)
    else:
        recipe = Recipe.from_json(fitted)
    effects = recipe_effects(ask, recipe)
    signature = replace(plain, recipe=recipe.to_json())
    effects["missing"] |= _missing_at_the_centre(centre, signature, recipe)
    warnings = _warnings(effects)
    fingerprint = hashlib.sha256(f"{prepared.fingerprint} {signature.recipe}".encode()).hexdigest()
    facts = {**prepared.facts, "recipe": effects | {"warnings": warnings}}
    unseen = partitions.with_name(LEFT_OUT) / "store.json"
    for path, site, more in (
        (partitions / "store.json", "partitions.about", {}),
        *([(unseen, "partitions.about", {})] if unseen.is_file() else []),
        (centre / "centre.json", "centre.about", {"facts": facts}),
    ):
        about = read_json(path)
        write_json(path, about | {"signature": signature.to_dict(), "fingerprint": fingerprint} | more, site=site)
    for line in warnings if fitted is None else ():
        print(f"warning: {line}", file=sys.stderr)
    return replace(prepared, signature=signature, fingerprint=fingerprint, facts=facts)


def _missing_at_the_centre(folder: Path, signature: Signature, recipe: Recipe) -> dict[str, dict[str, int]]:
    """By part of the server's own, the features that have no value somewhere; of the public part, where it is kept."""
    from fl.data.centre import open_centre
    from fl.data.training_part import kept

    centre = open_centre(folder)
    found: dict[str, dict[str, int]] = {}
    for part, examples in (("public", kept(centre.public, signature)), ("server_test", centre.test)):
        counts = np.isnan(recipe.values(examples.x)).sum(axis=0)
        lacking = {name: int(n) for name, n in zip(recipe.features, counts, strict=True) if n}
        found |= {part: lacking} if lacking else {}
    return found


def _warnings(effects: Mapping[str, Any]) -> list[str]:
    """What is said about the recipe; BadInput where there is nothing to train on, or a missing value is trained on."""
    rows, left, missing = effects["training_rows"], effects["trained_on"], effects["missing"]
    if not left:
        allowed = "steps that leave rows to train on"
        raise BadInput(key=_KEY, got=f"a recipe that drops all {rows} training rows", allowed=allowed)
    for part, among in (("train", f"the {left} training rows"), ("public", "the public rows")):
        if part in missing:
            got = f"a recipe that leaves values missing among {among} ({_listed(missing[part])})"
            raise BadInput(key=_KEY, got=got, allowed="steps that leave none: impute, drop_rows, or drop the column")
    where = {"validation": "validation parts", "test": "test parts", "server_test": "the server's test set"}
    return [
        f"{_KEY} leaves values missing in {where[part]} ({_listed(lacking)}): no row is dropped there, and the answer "
        "to such a row is no number; impute fills them"
        for part, lacking in missing.items()
    ]


def _listed(lacking: Mapping[str, int]) -> str:
    some = [f"{name} in {n}" for name, n in list(lacking.items())[:MOST_NAMED]]
    return ", ".join(some) + (" and others" if len(lacking) > MOST_NAMED else "")
