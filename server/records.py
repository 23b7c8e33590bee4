"""What the round loop tells its observers: plain records, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fl.metrics import Confusion
from fl.parameters import Parameters
from fl.signature import Signature

CLIENT_COUNTS = ("asked", "answered", "failed", "refused", "late")
PHASES = ("train", "aggregate", "evaluate", "commit", "total", "overlapped")


@dataclass(frozen=True)
class RunRecord:
    """Known before the first round. ``first_round`` is 0 for a new run, the first one to do for a resumed run.

    exportable   whether its versions can be rebuilt as models: those of a foreign app cannot
    earlier      the rounds before ``first_round`` as their manifests tell them: what observers kept may be damaged
    """

    run_id: str
    run_dir: Path
    registry_dir: Path
    config: Mapping[str, Any]
    signature: Signature
    dataset: str
    num_clients: int
    cohort_size: int
    num_rounds: int
    first_round: int
    engine: str
    num_parameters: int
    partition_picture: Path | None = None
    exportable: bool = True
    earlier: Sequence[RoundRecord] = ()


@dataclass(frozen=True)
class RoundRecord:
    """One committed round; 0 is version 0, before any training.

    metrics          the server's test set by name ("loss", "accuracy", "mae" ...); empty when not evaluated this round
    client_metrics   metric -> {min, p10, median, p90, max} over the cohort's clients, by their own test parts
    train_metrics    weighted means over the cohort ("loss" ...)
    personal         merged: {"gain": ..., "share_better": ..., "lag": ...}; empty unless client.personal
    seconds          phase -> seconds, PHASES; those add up to "total", "overlapped" ran beside the next round
    clients: CLIENT_COUNTS -> number;   bytes: {"down", "up"}
    update_norms     Euclidean norm of each accepted update, in client order
    refused, failed, refused_reports  {"client": id, "reason": text} each; the last of evaluations
    quarantined      those of the failed that ended their processes, and are not let train any more
    """

    round: int
    version: str
    model_sha256: str
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    clients: Mapping[str, int]
    bytes: Mapping[str, int]
    client_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    train_metrics: Mapping[str, float] = field(default_factory=dict)
    personal: Mapping[str, float] = field(default_factory=dict)
    update_norms: Sequence[float] = ()
    confusion: Confusion | None = None
    refused: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, Any]] = ()
    refused_reports: Sequence[Mapping[str, Any]] = ()
    quarantined: Sequence[int] = ()
    cohort: Sequence[int] = ()


@dataclass(frozen=True)
class Closing:
    """A round that is trained, and no version yet.

    facts    what its RoundRecord will say, but for what the version says;   state   the strategy's, None while blank
    origin   of version 0: where it comes from, the manifest's "parent" and "seeding"
    """

    round: int
    parameters: Parameters
    state: bytes | None
    facts: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSummary:
    """Known at the end. ``status`` is "finished", "stopped early", "stopped by faults", "interrupted" or "failed".

    quarantined   {"client", "reason", "round"} each: since when a client was not let train any more
    """

    status: str
    reason: str
    rounds_completed: int
    model_sha256: str
    final: Mapping[str, float]
    best: str | None
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    clients: Mapping[str, int]
    quarantined: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


class Observer(Protocol):
    """Told what happened, after it happened; never asked. One call at a time, in this order but for ``on_phase``:

    a round is told of beside the next round's training.
    """

    def on_start(self, run: RunRecord) -> None:
        """Before the first round. Whatever was recorded of rounds >= run.first_round by an earlier try is dropped."""

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
        """Progress within a round: ``done`` of ``of`` clients answered in ``phase`` ("train", "evaluate" ...)."""

    def on_round(self, record: RoundRecord) -> None:
        """After the round's commit is durable."""

    def on_end(self, summary: RunSummary) -> None:
        """Once, last."""
