"""A version measured by all clients on a part of their own examples: merged statistics come back, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput

if TYPE_CHECKING:
    from fl.registry import Version


@dataclass(frozen=True)
class Figures:
    """``metrics`` over ``examples`` of ``clients``, every example counting once."""

    metrics: dict[str, float]
    examples: int
    clients: int


def measure(run_dir: Path, version: Version, *, part: str, unseen: bool = False) -> Figures:
    """``version`` on the ``part`` ("validation" or "test") of every client of the run in ``run_dir`` that has one.

    unseen   ask the clients that the run left out (folds.over=clients), not those that took part

    Raises BadInput where no client has such a part.
    """
    from experiments.config_file import read_config
    from experiments.private_columns import everybody
    from fl import wire
    from fl.data.folds import LEFT_OUT
    from fl.data.store import open_store
    from fl.metrics import merge, values
    from fl.models.tasks import derived
    from fl.registry import Registry
    from server.guard import ask_for_reports
    from server.strategy import evaluate_messages

    config = read_config(run_dir)
    partitions = run_dir / "devices" / (LEFT_OUT if unseen else "partitions")
    store = open_store(partitions)
    parameters = wire.array_record(Registry(config["registry_dir"]).parameters(version))
    content = wire.evaluate_content(parameters, round=version.round, personal=False, part=part)
    with (
        TemporaryDirectory(prefix="meadow-measure-") as states,
        everybody(
            config,
            num_clients=store.num_clients,
            signature=store.signature,
            partitions=partitions,
            states=Path(states),
        ) as grid,
    ):
        nodes = list(grid.get_node_ids())
        reports = ask_for_reports(grid, evaluate_messages(nodes, content), round=version.round)
    if not reports:
        allowed = "above 0: no client has examples to compare models on"
        raise BadInput(key=f"dataset.{part}_fraction", got=_fraction(config, part), allowed=allowed)
    merged = merge(report.statistics for report in reports)
    return Figures(derived(values(merged)), sum(report.num_examples for report in reports), len(reports))


def _fraction(config: dict[str, Any], part: str) -> Any:
    return config["dataset"][f"{part}_fraction"]
