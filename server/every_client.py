"""Every client asked about a version: the global model, its own made from it, and what it reaches without the others.

Three requests to each client, all answered with merged statistics of its own test part:

    global     the version as it is
    personal   the version after the device's own training (``client.personal_epochs``), kept or not
    local      another start, such as version 0, after training on the client's own training part alone
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from fl import wire
from fl.cohorts import uniform
from fl.messages import OwnTraining
from fl.metrics import values
from fl.models.tasks import derived
from fl.parameters import Parameters
from server.guard import ask_for_reports
from server.personal import MOST_COMPARED
from server.strategy import evaluate_messages

MODELS = ("global", "personal", "local")


def measure_every_client(
    grid: Grid,
    *,
    parameters: Parameters,
    start: Parameters,
    personal: OwnTraining,
    local: OwnTraining,
    unseen: Collection[int],
    round: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row a client, by client: ``client``, ``seen``, ``num_examples`` (of its test part), and metrics a model.

    parameters     the version of ``round``;  start  what local training starts from
    unseen         clients that were held out of training

    Clients that cannot tell, having no test example, have no row. Of a population above 10,000 so many are drawn by the
    seed.
    """
    asked = ((parameters, None), (parameters, personal), (start, local))
    return _rows(grid, dict(zip(MODELS, asked, strict=True)), unseen=unseen, round=round, seed=seed)


def measure_version(grid: Grid, parameters: Parameters, *, round: int, seed: int) -> list[dict[str, Any]]:
    """The same rows with the model ``global`` alone."""
    return _rows(grid, {MODELS[0]: (parameters, None)}, unseen=(), round=round, seed=seed)


def _rows(
    grid: Grid,
    asked: Mapping[str, tuple[Parameters, OwnTraining | None]],
    *,
    unseen: Collection[int],
    round: int,
    seed: int,
) -> list[dict[str, Any]]:
    nodes: Sequence[int] = sorted(grid.get_node_ids())
    if len(nodes) > MOST_COMPARED:
        nodes = uniform(round, nodes, MOST_COMPARED, seed)
    rows: dict[int, dict[str, Any]] = {}
    for model, (sent, own) in asked.items():
        content = wire.evaluate_content(wire.array_record(sent), round=round, personal=False, own=own)
        for report in ask_for_reports(grid, evaluate_messages(nodes, content), round=round):
            client = report.client
            row = rows.setdefault(
                client, {"client": client, "seen": client not in unseen, "num_examples": report.num_examples}
            )
            row[model] = derived(values(report.statistics))
    return [rows[client] for client in sorted(rows)]
