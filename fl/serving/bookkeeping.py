"""What is kept of requests that were answered: their arms' figures, labels that feedback is joined to, records."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import final

import numpy as np

from fl.inference_log.records import ANSWER, MOST_VALUES, Columns
from fl.inference_log.writer import InferenceLog
from fl.serving.answered import Answers
from fl.serving.visit import Visit

PORTION = 64
"""Requests that are settled at once."""

SETTLE_SECONDS = 0.05
"""How long what is less than a portion may stand."""

MOST_BYTES = 2**20
"""Of the inputs of a portion: large requests are not kept for long."""


@final
class Books:
    """Of one server. Requests are settled a portion at a time, in the thread that answers.

    Done one by one, between an answer and the next one, each of these steps found the processor's caches full of other
    things, and they took twice as long together. What a kill costs in between is counted: a number is taken at once.
    """

    def __init__(self, answers: Answers, log: InferenceLog | None) -> None:
        self._answers, self._log = answers, log
        self._open: list[Visit] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, visit: Visit) -> None:
        """A request is done."""
        if self._log is None:
            visit.inputs = None
        else:
            visit.number = self._log.take_number()
            self._bytes += 0 if visit.inputs is None else visit.inputs.nbytes
        self._open.append(visit)
        if len(self._open) >= PORTION or self._bytes >= MOST_BYTES:
            self.settle()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle_rest)

    def settle(self) -> None:
        """Count, remember and take down all that is open. What an asker did wrong is no arm's figure."""
        visits, self._open, self._bytes = self._open, [], 0
        if not visits:
            return
        for visit in visits:
            status, router = visit.status, visit.router
            if router is not None and (status == 200 or status >= 500):
                router.answered(visit.lane, user=visit.user, seconds=visit.seconds, failed=status != 200)
        columns = _columns(visits)
        self._answers.add(columns)
        if self._log is not None:
            self._log.write([visit.number for visit in visits], columns)

    def _settle_rest(self) -> None:
        self._timer = None
        self.settle()


def _labels_of(visits: Sequence[Visit]) -> list[list[int] | None]:
    """The numbers of the first labels of each, MOST_VALUES of them at most; of outputs of a shape all at once."""
    found: list[list[int] | None] = [None] * len(visits)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, visit in enumerate(visits):
        if visit.outputs is not None and visit.lane.model.signature.task != "regression":
            alike[visit.outputs.shape].append(place)
    for shape, places in alike.items():
        scores = np.concatenate([visits[place].outputs for place in places], axis=None).reshape(-1, shape[-1])
        labels = scores.argmax(axis=1).reshape(len(places), -1)[:, :MOST_VALUES].tolist()
        for place, some in zip(places, labels, strict=True):
            found[place] = some
    return found


def _columns(visits: Sequence[Visit]) -> Columns:
    """What is taken down of them. A tuple for each of them took twice as long."""
    lanes = [visit.lane for visit in visits]
    return {
        "kind": [ANSWER] * len(visits),
        "id": [visit.id for visit in visits],
        "time": [visit.at for visit in visits],
        "user": [visit.user for visit in visits],
        "context": [visit.context for visit in visits],
        "model": [visit.name for visit in visits],
        "version": [lane.model.version for lane in lanes],
        "release": [visit.router.release.id if visit.router else "" for visit in visits],
        "arm": [lane.arm for lane in lanes],
        "status": [visit.status for visit in visits],
        "seconds": [visit.seconds for visit in visits],
        "inputs": [visit.inputs for visit in visits],
        "outputs": [visit.outputs for visit in visits],
        "places": _labels_of(visits),
        "reward": [None] * len(visits),
    }
