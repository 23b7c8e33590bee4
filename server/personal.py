"""At the end of a run with personal models: every device's own model beside the global one, client by client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fl import wire
from fl.cohorts import uniform
from fl.files import write_bytes
from fl.messages import EvaluationReport
from fl.metrics import values
from fl.parameters import Parameters
from server.guard import ask_for_reports
from server.over_clients import gain_of, personal_gain
from server.strategy import evaluate_messages

FILE = "personal.jsonl"


MOST_COMPARED = 10_000
"""Devices compared: all of them, or of a larger population so many, drawn by the seed."""


def final_comparison(
    grid: Grid, nodes: Sequence[int], parameters: Parameters, *, round: int, run_dir: Path, seed: int
) -> dict[str, Any]:
    """Let every device of ``nodes`` pick up the version of ``round``, and measure both models on its own test part.

    Writes one line a client to personal.jsonl in the run's folder, and returns the merged figures.
    """
    nodes = uniform(round, nodes, MOST_COMPARED, seed) if len(nodes) > MOST_COMPARED else nodes
    content = wire.evaluate_content(wire.array_record(parameters), round=round)
    found = ask_for_reports(grid, evaluate_messages(nodes, content), round=round)
    write_bytes(run_dir / FILE, "".join(json.dumps(_line(report)) + "\n" for report in found).encode(), site="personal")
    return {**personal_gain(found), "clients": len(found), "file": FILE}


def _line(report: EvaluationReport) -> dict[str, Any]:
    numbers = values(report.statistics)
    return {"client": report.client, "num_examples": report.num_examples, **numbers, "gain": gain_of(report)}
