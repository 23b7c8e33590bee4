"""What came back in a round, counted: asked = answered + failed + refused + late, always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MetricRecord

from fl import wire
from fl.messages import EvaluationReport
from fl.metrics import Mean, merge, values


@dataclass(frozen=True)
class Tally:
    """The training replies of one round.

    rows       one mapping of numbers an answering client, by client id: client, num-examples, update-norm ...
    failed, refused   {"client", "reason"} each;   bytes_up   of arrays, as real clients would move them
    quarantined       those of the failed that are not let train any more
    """

    asked: int
    rows: Sequence[Mapping[str, float]]
    failed: Sequence[Mapping[str, Any]]
    refused: Sequence[Mapping[str, Any]]
    bytes_up: int
    quarantined: Sequence[int] = ()

    @property
    def answered(self) -> int:
        """Clients whose update counts."""
        return len(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """The five numbers of a round."""
        late = self.asked - self.answered - len(self.failed) - len(self.refused)
        return {
            "asked": self.asked,
            "answered": self.answered,
            "failed": len(self.failed),
            "refused": len(self.refused),
            "late": late,
        }

    @property
    def cohort(self) -> list[int]:
        """The clients that answered."""
        return [int(row["client"]) for row in self.rows]

    def train_metrics(self) -> dict[str, float]:
        """Means over the clients that answered, weighted by examples."""
        totals = [{"loss": Mean(row["loss.total"], row["loss.weight"])} for row in self.rows if "loss.total" in row]
        lags = [{"lag": Mean(row["lag"], 1.0)} for row in self.rows if "lag" in row]
        return values(merge([*totals, *lags]))


def tally(messages: Sequence[Message], replies: Sequence[Message], *, version: int) -> Tally:
    """Count ``replies`` to ``messages``; ``version`` is the one that was sent, to tell how far behind an update was."""
    rows: list[dict[str, float]] = []
    failed: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    quarantined: list[int] = []
    bytes_up = 0
    for reply in replies:
        client = wire.sender(reply)
        if reply.has_error():
            place = refused if reply.error.code == wire.REFUSED else failed
            place.append({"client": client, "reason": reply.error.reason or f"code {reply.error.code}"})
            quarantined += [client] if reply.error.code == wire.QUARANTINED else []
            continue
        records = reply.content.metric_records
        if "clients" in records:
            bytes_up += int(_scalar(records["clients"]["bytes-up"]))
            rows += _columns(records["clients"])
        else:
            bytes_up += wire.record_bytes(reply.content)
            rows += [_row(client, record) for record in records.values()]
    for row in rows:
        if "base-version" in row:
            row["lag"] = version - row["base-version"]
    rows.sort(key=lambda row: row["client"])
    return Tally(len(messages), rows, failed, refused, bytes_up, quarantined)


def reports(replies: Sequence[Message], *, round: int) -> list[EvaluationReport]:
    """The evaluation reports among ``replies``, by client id."""
    found = [
        wire.read_report(reply, round=round)
        for reply in replies
        if not reply.has_error() and "statistics" in reply.content.config_records
    ]
    return sorted(found, key=lambda report: report.client)


def _columns(record: MetricRecord) -> list[dict[str, float]]:
    columns = {name: value for name, value in record.items() if isinstance(value, list)}
    return [dict(zip(columns, numbers, strict=True)) for numbers in zip(*columns.values(), strict=True)]


def _row(client: int, record: MetricRecord) -> dict[str, float]:
    row = {name: float(value) for name, value in record.items() if not isinstance(value, list)}
    if "train_loss" in row:
        examples = row.get(wire.NUM_EXAMPLES, 1.0)
        row |= {"loss.total": row["train_loss"] * examples, "loss.weight": examples}
    return {**row, "client": float(client)}


def _scalar(value: Any) -> float:
    return float(value[0] if isinstance(value, list) else value)
