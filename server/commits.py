"""What becomes of rounds that are trained: measured where that is left to do, made versions, written of in files.

Beside the training of the next rounds: in a thread, or where there is one in a process of its own
(server/commit_process.py), which leaves the interpreter to the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fl.errors import StorageFailed
from fl.metrics import Confusion, Statistics, values
from fl.models.tasks import derived
from fl.parameters import Parameters
from fl.registry import Version
from server.records import Closing, Observer, RoundRecord, RunRecord, RunSummary
from server.tracking import fan_out, written


class Recorder(Protocol):
    """Makes rounds versions and writes of them. One call at a time, in the order of an Observer's."""

    def on_start(self, run: RunRecord) -> None:
        """Begin the files of a run."""

    def commit(self, closings: Sequence[Closing]) -> Iterator[RoundRecord]:
        """Make rounds versions, in their order; raises what keeps one from it behind those before it."""

    def on_round(self, record: RoundRecord) -> None:
        """Write of a round that was committed before the run was resumed."""

    def on_end(self, summary: RunSummary) -> None:
        """Write the end of a run."""


@dataclass
class Commits:
    """The Recorder that does it where it is called.

    evaluate      measures parameters on the server's test set
    make          makes rounds versions, durably and in their order
    tensorboard   whether the files of a run have some for TensorBoard among them
    """

    evaluate: Callable[[Parameters], Statistics]
    make: Callable[[Sequence[Closing]], Sequence[Version]]
    tensorboard: bool
    _told: Observer | None = None

    def on_start(self, run: RunRecord) -> None:
        """As Recorder says."""
        self._told = fan_out(written(tensorboard=self.tensorboard))
        self._told.on_start(run)

    def commit(self, closings: Sequence[Closing]) -> Iterator[RoundRecord]:
        """As Recorder says."""
        began = time.perf_counter()
        try:
            known = [one if "metrics" in one.facts else self._measured(one) for one in closings]
            versions = self.make(known)
        except Exception as error:  # whatever it is, it is the fault of one of them: those before it become versions
            if len(closings) == 1:
                raise
            for one in closings:
                try:
                    yield from self.commit([one])
                except StorageFailed:  # what a disk says next is not what was wrong with it first
                    raise error from None
            return
        took = (time.perf_counter() - began) / len(closings)
        for one, version in zip(known, versions, strict=True):
            facts = {**one.facts, "seconds": {**one.facts["seconds"], "overlapped": took}}
            record = RoundRecord(version=version.name, model_sha256=version.model_sha256, **facts)
            self.on_round(record)
            yield record

    def on_round(self, record: RoundRecord) -> None:
        """As Recorder says."""
        assert self._told, "on_start comes first"
        self._told.on_round(record)

    def on_end(self, summary: RunSummary) -> None:
        """As Recorder says."""
        assert self._told, "on_start comes first"
        self._told.on_end(summary)

    def _measured(self, closing: Closing) -> Closing:
        return replace(closing, facts={**closing.facts, **facts_of(self.evaluate(closing.parameters))})


def facts_of(statistics: Statistics) -> dict[str, Any]:
    """What a round's record says of ``statistics``: numbers by name, and the confusion matrix where there is one."""
    plain, confusion = values(statistics), statistics.get("confusion")
    return {
        "metrics": derived(plain),
        "confusion": confusion if isinstance(confusion, Confusion) else None,
    }
