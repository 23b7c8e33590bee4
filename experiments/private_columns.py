"""Settings -> private partitions on a grid, and the function that asks them: what `fl data` and stages go through."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.data.analytics import Ask
    from fl.data.centre import Centre


@dataclass(frozen=True)
class Columns:
    """Private columns that can be asked, and what the centre knows of them. ``names``: the label's is the last."""

    ask: Ask
    names: tuple[str, ...]
    centre: Centre


@contextmanager
def dealt(settings: Mapping[str, Any]) -> Iterator[Columns]:
    """The data of ``settings`` dealt to clients, who hold them until the end of the block; nothing is kept."""
    from experiments.prepare import load_data, prepare_data

    with tempfile.TemporaryDirectory(prefix="meadow-data-") as folder:
        centre, devices = Path(folder, "centre"), Path(folder, "devices")
        dataset = load_data(settings)
        if not dataset.is_table:
            raise BadInput(key="dataset", got=dataset.name, allowed="a table: its examples are rows of numbers")
        prepare_data(settings, dataset, centre=centre, devices=devices)
        with asked(settings, centre=centre, partitions=devices, states=Path(folder, "states")) as columns:
            yield columns


@contextmanager
def asked(settings: Mapping[str, Any], *, centre: Path, partitions: Path, states: Path) -> Iterator[Columns]:
    """Clients whose partitions lie in ``partitions`` already. engine=auto asks them in this process."""
    from clients.setting import open_setting
    from experiments.engine import Engine, available_cores, open_grid
    from fl.data.centre import open_centre
    from server.query import asker

    logging.getLogger("flwr").setLevel(logging.ERROR)
    known = open_centre(centre)
    values = {**settings, "num_clients": known.num_clients, "cohort_size": known.num_clients}
    setting = open_setting(values, partitions=partitions, states=states, signature=known.signature)
    name = "inprocess" if settings["engine"]["name"] == "auto" else settings["engine"]["name"]
    actors = 0 if name == "inprocess" else int(settings["engine"].get("num_actors") or available_cores())
    engine = Engine(name, "asked for", actors)
    label = settings["dataset"].get("label") or "label"
    inputs = known.signature.feature_names or tuple(f"x{c}" for c in range(known.signature.input_shape[0]))
    with open_grid(engine, setting, values, run_id="0", partitions=partitions, states=states, quarantined={}) as grid:
        yield Columns(asker(grid), (*inputs, label), known)


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
