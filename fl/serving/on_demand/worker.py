"""A worker: takes requests in batches, asks the model, writes the answers down, sends them, and only then lets go.

A request that was tried before is asked alone, so that one which ends its worker takes no other with it; after
``most_tries`` it is a dead letter. One that cannot be answered is a dead letter at once. Between two batches the worker
looks which version its alias means: the model is released whenever its owner likes, and no request sees two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl.serving import rows
from fl.serving.model import Model, Unanswerable
from fl.serving.on_demand.ledger import Known, Ledger
from fl.serving.on_demand.queues import Broker, Taken, answers_queue, queue_names
from fl.serving.slots import LOOK_SECONDS, Slot, Slots

RETRY_SECONDS = 0.1
"""Before the second try of a request at which the model failed; twice as long before each further one."""


@dataclass
class Counts:
    """Requests that were answered, were known already, and became dead letters; and what was put back of others'."""

    answered: int = 0
    known: int = 0
    dead: int = 0
    recovered: int = 0


@dataclass(eq=False)
class Worker:
    """One worker of the queue ``name``."""

    broker: Broker
    ledger: Ledger
    slots: Slots
    slot: Slot
    name: str
    most_rows: int = 64
    most_tries: int = 5
    _looked: float = 0.0
    _recovered: float = 0.0

    def run(self, *, idle_seconds: float | None = None, ended: Callable[[], bool] = lambda: False) -> Counts:
        """Work until a signal; until there was nothing to do for ``idle_seconds``; or until ``ended`` says so."""
        counts, last = Counts(), time.monotonic()
        while (idle_seconds is None or time.monotonic() - last < idle_seconds) and not ended():
            self._look(counts)
            taken = self.broker.take(queue_names(self.name)[0], most=self.most_rows, wait_seconds=0.2)
            if taken:
                self._batch(taken, counts)
                last = time.monotonic()
        return counts

    def _look(self, counts: Counts) -> None:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self.slots.refresh(self.slot)
        if not self._recovered or now - self._recovered >= min(5.0, self.broker.visible_seconds / 2):
            self._recovered = now
            counts.recovered += self.broker.recover()

    def _batch(self, taken: Sequence[Taken], counts: Counts) -> None:
        model = self.slot.current
        asked = {}
        for one in taken:  # the same request may be there twice
            if isinstance(one.body.get("id"), str) and isinstance(one.body.get("asker"), str):
                asked[str(one.body["id"])] = one.body
        known = self.ledger.look(list(asked))
        new = [one for one in known.values() if not one.finished]
        fresh = [one.id for one in new if not one.tries]
        self.ledger.begin(fresh)
        stands = self.ledger.finish(self._answers(model, fresh, asked))
        for tried in new:
            if tried.tries:
                stands |= self.ledger.finish([self._alone(model, tried, asked)])
        told = [one for one in known.values() if one.finished] + list(stands.values())
        self._tell(told, asked)
        self.broker.done(taken)
        counts.known += len(known) - len(new)
        counts.dead += sum(bool(one.reason) for one in stands.values())
        counts.answered += sum(not one.reason for one in stands.values())

    def _answers(self, model: Model, ids: Sequence[str], asked: Mapping[str, Mapping[str, Any]]) -> list[Known]:
        """Those that were never tried: together, and where that fails each alone."""
        if not ids:
            return []
        try:
            outputs = self._ask(model, [asked[one].get("row") for one in ids])
        except Exception:  # noqa: BLE001  whatever a model raises, it is one request that it raises at
            return [self._persist(model, Known(one, 1), asked) for one in ids]
        told = rows.answers_of(outputs, model.signature)
        return [Known(one, 1, model.version, model.hash, answer) for one, answer in zip(ids, told, strict=True)]

    def _alone(self, model: Model, request: Known, asked: Mapping[str, Mapping[str, Any]]) -> Known:
        """One that was tried before, and whose worker ended: noted by itself, so that the next one is not blamed."""
        if request.tries >= self.most_tries:
            return Known(request.id, request.tries, reason=f"its worker ended at each of {request.tries} tries")
        return self._persist(model, self.ledger.begin([request.id])[request.id], asked)

    def _persist(self, model: Model, request: Known, asked: Mapping[str, Mapping[str, Any]]) -> Known:
        """One request alone, until it is answered or has been tried often enough; a try of it is noted already."""
        tries, pause = request.tries, RETRY_SECONDS
        while True:
            try:
                (answer,) = rows.answers_of(self._ask(model, [asked[request.id].get("row")]), model.signature)
            except Unanswerable as error:
                return Known(request.id, tries, reason=str(error).removeprefix("row 0: ").removeprefix("row 0, "))
            except Exception as error:  # noqa: BLE001  whatever a model raises is the reason
                if tries >= self.most_tries:
                    return Known(request.id, tries, reason=f"the model failed at each of {tries} tries: {error}")
                time.sleep(pause)
                pause *= 2
                tries = self.ledger.begin([request.id])[request.id].tries
            else:
                return Known(request.id, tries, model.version, model.hash, answer)

    def _ask(self, model: Model, asked: list[Any]) -> Any:
        outputs = model.answer(model.inputs(rows.values_of(asked, model), stored=True))
        if not np.isfinite(outputs).all():
            raise Unanswerable("the model's answer is no finite number")
        return outputs

    def _tell(self, told: Sequence[Known], asked: Mapping[str, Mapping[str, Any]]) -> None:
        """Send what stands: of a request that came twice only to one that asks again, having missed its answer."""
        sent = []
        for one in told:
            request = asked[one.id]
            if one.sent and not request.get("again"):
                continue
            if one.reason and not one.sent:
                letter = {"id": one.id, "row": request.get("row"), "reason": one.reason, "tries": one.tries}
                self.broker.send(queue_names(self.name)[1], [letter])
            answer = {"error": one.reason} if one.reason else {"prediction": one.answer}
            about = {"id": one.id, "version": one.version, "hash": one.hash}
            self.broker.send(answers_queue(self.name, str(request["asker"])), [about | answer])
            sent.append(one.id)
        self.ledger.sent(sent)
