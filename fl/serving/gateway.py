"""What happens to a request beside its answer: who asks, which version answers, and what is kept of it."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from typing import Any, final

from fl.inference_log.files import read
from fl.inference_log.records import ANSWER, FEEDBACK, Record
from fl.inference_log.writer import InferenceLog
from fl.serving import rows
from fl.serving.answered import KEPT, Answers, reward_of
from fl.serving.batching import Batcher
from fl.serving.bookkeeping import Books
from fl.serving.model import Model, Unanswerable
from fl.serving.router import Lane
from fl.serving.slots import Slot, Slots
from fl.serving.visit import Visit

MOST_ID = 128
"""Characters of a request's id, a user's or a context; a longer id is replaced, and of the others the rest is cut."""

REMEMBER_SECONDS = 86_400.0
"""How old an answer may be that a server before this one gave, for its feedback to be joined."""


class Unknown(Exception):
    """Feedback to a request that nobody remembers, or that had it: ``again``."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again


@final
class Gateway:
    """Of one server."""

    def __init__(self, slots: Slots, batcher: Batcher, log: InferenceLog | None = None) -> None:
        self.slots, self.batcher, self.log = slots, batcher, log
        self.answers = Answers()
        self.books = Books(self.answers, log)
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count()
        if log is not None:
            self._remember(log)

    def enter(self, headers: Mapping[str, str], name: str, slot: Slot, model: Model | None) -> Visit:
        """Who is to answer; ``model``: the one that was asked for by its version. Raises Closed."""
        told = headers.get("x-request-id") or None
        if told is not None and not (len(told) <= MOST_ID and told.isprintable()):
            told = None
        number = told or f"{self._prefix}-{next(self._numbers):x}"
        user, context = headers.get("x-user-id"), headers.get("x-context")
        user, context = user and user[:MOST_ID], context and context[:MOST_ID]
        router = slot.router if model is None else None
        if router is None:
            return Visit(number, user, context, name, Lane("", model or slot.current, self.batcher, 1), None)
        lane = router.lane(told, user=user, context=context)
        lane.busy += 1  # from here on: it is not taken away under a request whose body is still to come
        return Visit(number, user, context, name, lane, router)

    def leave(self, visit: Visit, status: int, began: float) -> None:
        """Mirror it, and keep what there is to keep: ``began`` is of time.perf_counter."""
        visit.status, visit.seconds, visit.at = status, time.perf_counter() - began, time.time()
        lane, router = visit.lane, visit.router
        lane.busy -= 1
        if router and status == 200 and visit.inputs is not None and visit.outputs is not None:
            router.mirror(lane, visit.id, inputs=visit.inputs, outputs=visit.outputs)
        if router is not None or self.log is not None:
            self.books.add(visit)

    def feedback(self, told: dict[str, Any]) -> None:
        """Join {"id", "reward"} or {"id", "label"} to its answer. Raises Unanswerable, Unknown."""
        number, given = told.get("id"), told.keys() - {"id"}
        if not isinstance(number, str) or given not in ({"reward"}, {"label"}):
            raise Unanswerable('expected {"id": text, "reward": number from 0 to 1} or {"id": text, "label": ...}')
        self.books.settle()
        answer = self.answers.find(number)
        if answer is None:
            again = self.answers.settled(number)
            why = "had its feedback already" if again else "is unknown here, or too long ago"
            raise Unknown(f"the request {number[:MOST_ID]!r} {why}", again=again)
        reward = told.get("reward")
        slot = self.slots.by_name.get(answer.model)
        if "label" in told:
            names = rows.label_names(slot.current.signature) if slot else []
            reward = reward_of(told["label"], answer, names)
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0 <= reward <= 1:
            raise Unanswerable(f"reward: got {reward!r}, allowed: a number from 0 to 1")
        self.answers.settle(number)
        if slot is not None and slot.router is not None:
            slot.router.rewarded(answer, float(reward))
        if self.log is not None:
            known = Record(FEEDBACK, number, time.time(), answer.user, answer.context, answer.model, answer.version)
            self.log.add(known._replace(release=answer.release, arm=answer.arm, reward=float(reward)))

    def _remember(self, log: InferenceLog) -> None:
        """Answers of the server before this one, so that their feedback is joined too."""
        most = self.answers.most
        lately = f"time > {time.time() - REMEMBER_SECONDS}"  # of a long log the rest is not even read
        answered = f"SELECT * FROM records WHERE {lately} AND kind = '{ANSWER}' AND status = 200"
        settled = f"SELECT id FROM records WHERE {lately} AND kind = '{FEEDBACK}'"
        query = f"{answered} AND id NOT IN ({settled}) ORDER BY time DESC LIMIT {most}"
        rows = read(log.folder, f"SELECT {', '.join(KEPT)} FROM ({query}) ORDER BY time")
        self.answers.add({name: [row[name] for row in rows] for name in KEPT})
        for row in read(log.folder, f"{settled} ORDER BY time DESC LIMIT {most}"):
            self.answers.settle(row["id"])
