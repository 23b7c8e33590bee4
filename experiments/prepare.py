"""The data that settings ask for, loaded, partitioned and written: by a run, and by `fl data show`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.files import write_json

if TYPE_CHECKING:
    from fl.data.dataset import Dataset
    from fl.data.folds import Fold
    from fl.data.prepare import Prepared

PREPARED = "devices/prepared.json"
"""In a run's folder: there once its data are written, with what a resumed run wants to know of them."""

FRACTIONS = ("public", "held_out", "validation", "test")


def load_data(settings: Mapping[str, Any]) -> Dataset:
    """The data set of the section ``dataset``, in memory. Raises BadInput where the data cannot be used."""
    from fl.data.catalog import load

    own = {f"{part}_fraction" for part in FRACTIONS} | {"name", "max_server_test", "quarantine", "recipe"}
    options = {key: value for key, value in settings["dataset"].items() if key not in own}
    return load(settings["dataset"]["name"], **options, seed=int(settings["seed"]))


def prepare_data(
    settings: Mapping[str, Any],
    dataset: Dataset,
    *,
    centre: Path,
    devices: Path,
    recipe: str | None = None,
) -> Prepared:
    """Partition ``dataset`` as the settings say, and write the server's part and the devices'.

    ``recipe``: what was fitted to the same data of ``dataset.recipe``, where that is known; else it is fitted here.
    """
    from experiments.recipes import fit_prepared, recipe_of
    from fl.cohorts import unseen_clients
    from fl.data.prepare import prepare

    entries = recipe_of(settings, dataset)
    public, held_out = _server_fractions(settings)
    validation, test = (float(settings["dataset"][f"{part}_fraction"]) for part in ("validation", "test"))
    partition = dict(settings["partition"])
    quarantine = settings["dataset"].get("quarantine")
    prepared = prepare(
        dataset,
        partition=partition.pop("name"),
        partition_options=partition,
        num_clients=settings["num_clients"],
        seed=int(settings["seed"]),
        public_fraction=public,
        held_out_fraction=held_out,
        validation_fraction=validation,
        test_fraction=test,
        split=settings["dataset"].get("split", "ratio"),
        max_server_test=settings["dataset"].get("max_server_test"),
        quarantine=None if quarantine is None else Path(quarantine),
        fold=fold_of(settings),
        never_trained=partial(unseen_clients, settings.get("unseen_clients"), seed=int(settings["seed"])),
        centre_dir=centre,
        devices_dir=devices,
    )
    return fit_prepared(settings, entries, prepared, fitted=recipe) if entries else prepared


def dealing_of(settings: Mapping[str, Any], dataset: Dataset) -> str:
    """The hash of who holds what, by which a quarantine knows its data; see fl/data/quarantine.py."""
    from fl.data.quarantine import dealing

    partition = dict(settings["partition"])
    return dealing(
        dataset,
        partition=partition.pop("name"),
        partition_options=partition,
        num_clients=settings["num_clients"],
        seed=int(settings["seed"]),
        server_fractions=_server_fractions(settings),
        split=settings["dataset"].get("split", "ratio"),
    )


def _server_fractions(settings: Mapping[str, Any]) -> list[float]:
    """The public and the held-out share of the rows that the server takes."""
    public, held_out = (float(settings["dataset"][f"{part}_fraction"]) for part in ("public", "held_out"))
    return [public if settings["server"]["seeding"] == "pretrained" else 0.0, held_out]


def fold_of(settings: Mapping[str, Any]) -> Fold | None:
    """What the section ``folds`` leaves out. Raises BadInput for a fold that cannot be."""
    from fl.data.folds import Fold

    asked = settings.get("folds") or {"number": None}
    if asked["number"] is None:
        return None
    return Fold(int(asked["number"]), int(asked["index"]), str(asked["over"]))


def counted(settings: Mapping[str, Any], num_clients: int) -> dict[str, Any]:
    """The settings with the numbers of clients as they came out of the data."""
    from fl.cohorts import check_cohort_size, unseen_clients

    unseen = unseen_clients(settings.get("unseen_clients"), num_clients, seed=int(settings["seed"]))
    size = check_cohort_size(settings.get("cohort_size"), num_clients, unseen=len(unseen))
    return {**settings, "num_clients": num_clients, "cohort_size": size}


def note_prepared(run_dir: Path, *, num_clients: int, picture: Path) -> None:
    """Say that the data of a run are written, all of them."""
    write_json(run_dir / PREPARED, {"num_clients": num_clients, "picture": str(picture)}, site="prepared")
