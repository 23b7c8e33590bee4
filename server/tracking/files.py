"""metrics.jsonl and summary.json: a run as plain files, for programs.

A line of metrics.jsonl is on the disk before the next round starts. A run that goes on after round r - 1 drops the
lines of rounds >= r, and a line that a crash tore, in one atomic step.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

from fl import files
from fl.metrics import quantiles
from fl.plain import plain
from fl.signature import Task
from server.records import RoundRecord, RunRecord, RunSummary

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
MAX_LISTED = 20
"""How many refused or failed clients of a round a line names; `clients` counts them all."""

EXPECTED: Mapping[Task, tuple[str, ...]] = {
    "classification": ("loss", "accuracy"),
    "next_token": ("loss", "accuracy"),
    "regression": ("loss",),
}
"""Metrics of a task that are null, not absent, in a round without evaluation."""


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl in their order; none if there is no file. A torn last line is left out.

    Raises ValueError where another line than the last is no JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [json.loads(line) for line in lines]


def round_line(record: RoundRecord, task: Task) -> dict[str, Any]:
    """A round as one line of metrics.jsonl: plain values, what is not a finite number as null."""
    line: dict[str, Any] = {
        "round": record.round,
        "version": record.version,
        "model_sha256": record.model_sha256,
        **dict.fromkeys(EXPECTED[task]),
        **record.metrics,
        "seconds": record.seconds,
        "clients": record.clients,
        "bytes": record.bytes,
        "train_metrics": record.train_metrics,
        "client_metrics": record.client_metrics,
        "personal": record.personal,
        "update_norms": quantiles(record.update_norms),
        "refused": record.refused[:MAX_LISTED],
        "failed": record.failed[:MAX_LISTED],
        **({"quarantined": record.quarantined} if record.quarantined else {}),
        **({"refused_reports": record.refused_reports[:MAX_LISTED]} if record.refused_reports else {}),
    }
    told: dict[str, Any] = plain(line)
    return told


def summary_values(run: RunRecord, summary: RunSummary) -> dict[str, Any]:
    """What summary.json holds; ``summary.extra`` cannot hide what every summary has."""
    final_metrics = {**dict.fromkeys(EXPECTED[run.signature.task]), **summary.final}
    values: dict[str, Any] = plain(
        {
            **summary.extra,
            "run_id": run.run_id,
            "seed": run.config.get("seed"),
            "dataset": run.dataset,
            "engine": run.engine,
            "num_clients": run.num_clients,
            "cohort_size": run.cohort_size,
            "num_rounds": run.num_rounds,
            "num_parameters": run.num_parameters,
            "rounds_completed": summary.rounds_completed,
            "model_sha256": summary.model_sha256,
            "final": final_metrics,
            "best": summary.best,
            "status": summary.status,
            "reason": summary.reason,
            "seconds": summary.seconds,
            "bytes": summary.bytes,
            "clients": summary.clients,
            "quarantined": summary.quarantined,
        }
    )
    return values


@final
class FilesObserver:
    """Appends a line a round, and writes the summary at the end: where there is a summary, the run has ended."""

    def __init__(self) -> None:
        self._run: RunRecord | None = None

    def on_start(self, run: RunRecord) -> None:
        path = run.run_dir / METRICS_FILE
        (run.run_dir / SUMMARY_FILE).unlink(missing_ok=True)
        if run.earlier:
            kept = [round_line(record, run.signature.task) for record in run.earlier]
        else:
            kept = [line for line in read_rounds(path) if line["round"] < run.first_round]
        files.write_bytes(path, _encode(kept), site="metrics.rewritten")
        self._run = run

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
        """Nothing is written within a round."""

    def on_round(self, record: RoundRecord) -> None:
        assert self._run, "on_start comes first"
        line = _encode([round_line(record, self._run.signature.task)])
        files.append(self._run.run_dir / METRICS_FILE, line, site="metrics", durable=False)

    def on_end(self, summary: RunSummary) -> None:
        assert self._run, "on_start comes first"
        files.write_json(self._run.run_dir / SUMMARY_FILE, summary_values(self._run, summary), site="summary")


def _encode(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
