"""Settings -> private partitions on a grid, and the function that asks them: what `fl data` and stages go through."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.asking import UNIT, ask_here
from fl.errors import BadInput

if TYPE_CHECKING:
    from clients.grid import UnitGrid
    from fl.data.analytics import Ask
    from fl.data.centre import Centre
    from fl.data.dataset import Dataset
    from fl.data.validate import Violation
    from fl.signature import Signature


@dataclass(frozen=True)
class Columns:
    """Private columns that can be asked, and what the centre knows of them. ``names``: the label's is the last.

    clients        the number of each client among all that there are, where some are quarantined
    client_names   a name each, of natural clients; else empty
    dealing        see fl/data/quarantine.py
    """

    ask: Ask
    names: tuple[str, ...]
    centre: Centre
    clients: tuple[int, ...]
    client_names: tuple[str, ...] = ()
    dealing: str = ""


@contextmanager
def dealt(settings: Mapping[str, Any], dataset: Dataset | None = None) -> Iterator[Columns]:
    """The data of ``settings`` dealt to clients, who hold them until the end of the block; nothing is kept.

    ``dataset``: the data, where somebody has them already.
    """
    from experiments.prepare import load_data, prepare_data

    with tempfile.TemporaryDirectory(prefix="meadow-data-") as folder:
        centre, devices = Path(folder, "centre"), Path(folder, "devices")
        dataset = dataset or load_data(settings)
        if not dataset.is_table:
            raise BadInput(key="dataset", got=dataset.name, allowed="a table: its examples are rows of numbers")
        prepared = prepare_data(settings, dataset, centre=centre, devices=devices)
        gone = set(prepared.facts.get("quarantined_clients", ()))
        left = tuple(c for c in range(prepared.num_clients + len(gone)) if c not in gone)
        named = settings["partition"]["name"] == "natural" and dataset.client_names
        with asked(settings, centre=centre, partitions=devices, states=Path(folder, "states")) as columns:
            names = tuple(dataset.client_names[c] for c in left) if named else ()
            yield replace(columns, clients=left, client_names=names, dealing=prepared.dealing)


@contextmanager
def asked(settings: Mapping[str, Any], *, centre: Path, partitions: Path, states: Path) -> Iterator[Columns]:
    """Clients whose partitions lie in ``partitions`` already. No engine, or auto: they answer in this process."""
    from fl.data.centre import open_centre

    logging.getLogger("flwr").setLevel(logging.ERROR)
    known = open_centre(centre)
    label = settings["dataset"].get("label") or "label"
    names = (*known.signature.input_names, label)
    clients = tuple(range(known.num_clients))
    signature = known.signature
    if settings.get("engine", {"name": "auto"})["name"] in ("auto", "inprocess"):
        ask = ask_here(partitions, signature=signature, num_clients=known.num_clients, seed=settings["seed"])
        yield Columns(ask, names, known, clients)
        return
    from server.query import asker

    engine = {**settings["engine"], "unit_size": settings["engine"].get("unit_size") or UNIT}
    settings = {**settings, "engine": engine}
    with everybody(
        settings, num_clients=known.num_clients, signature=signature, partitions=partitions, states=states
    ) as grid:
        yield Columns(asker(grid), names, known, clients)


@contextmanager
def everybody(
    settings: Mapping[str, Any], *, num_clients: int, signature: Signature, partitions: Path, states: Path
) -> Iterator[UnitGrid]:
    """A grid of all clients, for rounds in which nobody trains. engine=auto asks them in this process."""
    from clients.setting import open_setting
    from experiments.engine import Engine, available_cores, open_grid

    logging.getLogger("flwr").setLevel(logging.ERROR)
    values = {**settings, "num_clients": num_clients, "cohort_size": num_clients}
    setting = open_setting(values, partitions=partitions, states=states, signature=signature)
    name = "inprocess" if settings["engine"]["name"] == "auto" else settings["engine"]["name"]
    actors = 0 if name == "inprocess" else int(settings["engine"].get("num_actors") or available_cores())
    engine = Engine(name, "asked for", actors)
    with open_grid(engine, setting, values, run_id="0", partitions=partitions, states=states, quarantined={}) as grid:
        yield grid


def profile_columns(
    columns: Columns, *, part: str = "all", at_least: int = 5, epsilon: float | None = None
) -> dict[str, Any]:
    """The profile of private columns as plain JSON values; see fl/data/profile.py."""
    from fl.data.profile import profile

    signature = columns.centre.signature
    return profile(
        columns.ask,
        names=columns.names,
        task=signature.task,
        class_names=signature.class_names,
        float32=signature.input_dtype == "float32" and signature.task == "classification",
        part=part,
        at_least=at_least,
        epsilon=epsilon,
        bounds=None if epsilon is None else public_bounds(columns),
    )


def validate_columns(columns: Columns, rules: Mapping[str, Any]) -> list[Violation]:
    """What of private columns breaks ``rules``, by the clients' own numbers; see fl/data/validate.py."""
    from fl.data.validate import validate

    signature = columns.centre.signature
    classes = signature.num_outputs if signature.task == "classification" else None
    return validate(columns.ask, rules=rules, names=columns.names, num_classes=classes, clients=columns.clients)


def public_bounds(columns: Columns) -> dict[int, tuple[float, float]]:
    """Low and high of each column, from the server's public part: what may be known without spending any epsilon.

    Raises BadInput where there is no public part, or it does not know a column.
    """
    import numpy as np

    public = columns.centre.public
    table = np.concatenate([public.x.astype(np.float64), public.y[:, None].astype(np.float64)], axis=1)
    bounds = {}
    for c, name in enumerate(columns.names):
        known = table[np.isfinite(table[:, c]), c]
        if not len(known):
            allowed = f"public examples that know column {name}: server=pretrained, dataset.public_fraction above 0"
            raise BadInput(key="--epsilon", got=f"bounds from {len(public)} public examples", allowed=allowed)
        bounds[c] = (float(known.min()), float(known.max()))
    return bounds
