"""The key ``dataset.recipe``: fitted by query rounds before round 0, kept in the signature that every version has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput
from fl.files import read_json, write_json

if TYPE_CHECKING:
    from fl.data.dataset import Dataset
    from fl.data.prepare import Prepared
    from fl.data.recipes import Entry

_KEY = "dataset.recipe"


def recipe_of(settings: Mapping[str, Any], dataset: Dataset) -> Sequence[Entry]:
    """The steps that the settings ask for, or none. Raises BadInput before anything is written."""
    from fl.data.recipes import read_recipe

    written = settings["dataset"].get("recipe")
    if written is None:
        return []
    entries = read_recipe(written)
    if not dataset.is_table or dataset.x.dtype.kind != "f":
        raise BadInput(key=_KEY, got=f"a recipe for {dataset.name}", allowed="a recipe for a table of numbers")
    for i, (name, options) in enumerate(entries):
        if name in ("deduplicate", "drop_rows") or options.get("action") == "drop":
            allowed = "steps that keep every row: training does not leave rows out"
            raise BadInput(key=f"{_KEY}[{i}]", got=name, allowed=allowed)
    return entries


def fit_prepared(settings: Mapping[str, Any], entries: Sequence[Entry], prepared: Prepared) -> Prepared:
    """Ask the clients, whose partitions are written, and write the recipe into both signatures."""
    from clients.grid import UnitGrid
    from clients.inprocess import InProcess
    from clients.setting import open_setting
    from fl.data.recipes import fit_recipe
    from server.query import asker

    centre, partitions, clients = prepared.centre_dir, prepared.devices_dir, prepared.num_clients
    plain = replace(prepared.signature, medians=(), indicators=(), feature_mean=(), feature_std=())
    with TemporaryDirectory(prefix="meadow-recipe-") as states:
        values = {**settings, "num_clients": clients}
        setting = open_setting(values, partitions=partitions, states=Path(states), signature=plain)
        # In this process, which wrote the partitions, whatever engine trains.
        grid = UnitGrid(run_id="0", num_clients=clients, unit_size=64, executor=InProcess(setting))
        recipe = fit_recipe(entries, asker(grid), inputs=plain.input_names, dtype=plain.input_dtype).to_json()
    signature = replace(plain, recipe=recipe)
    fingerprint = hashlib.sha256(f"{prepared.fingerprint} {recipe}".encode()).hexdigest()
    for path, site in ((partitions / "store.json", "partitions.about"), (centre / "centre.json", "centre.about")):
        about = read_json(path)
        write_json(path, about | {"signature": signature.to_dict(), "fingerprint": fingerprint}, site=site)
    return replace(prepared, signature=signature, fingerprint=fingerprint)
