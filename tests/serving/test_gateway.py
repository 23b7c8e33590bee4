"""What a server remembers of the one before it: feedback is joined once, to answers that are not too old."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fl.inference_log.files import read
from fl.inference_log.records import ANSWER, FEEDBACK, Record, columns_of
from fl.inference_log.writer import InferenceLog
from fl.serving.answered import Answered, Answers
from fl.serving.batching import Batcher
from fl.serving.gateway import REMEMBER_SECONDS, Gateway, Unknown
from fl.serving.model import Model, Unanswerable
from fl.serving.slots import Slot, Slots
from fl.signature import Signature

MODEL = Model("run:3", "h", Signature("classification", (1,), "float32", 2), lambda inputs: inputs)


def test_only_the_last_answers_are_remembered_whether_feedback_came_meanwhile_or_not() -> None:
    answers = Answers(most=3)
    given = [Answered("model", f"run:{n}", "", "", None, None, None) for n in range(9)]

    def add(*numbers: int) -> None:
        answers.add(columns_of([Record(ANSWER, f"id-{n}", n, None, None, *given[n][:4]) for n in numbers]))

    add(0)
    add(1, 2, 3)
    assert answers.find("id-0") is None and answers.find("id-1") == given[1]
    answers.settle("id-2")
    assert answers.find("id-2") is None and answers.settled("id-2") and not answers.settled("id-1")
    add(4)
    add(5)
    assert [answers.find(f"id-{n}") for n in range(1, 6)] == [None, None, *given[3:6]]


def test_feedback_is_joined_to_what_an_earlier_server_answered(tmp_path: Path) -> None:
    before, now = InferenceLog(tmp_path), time.time()
    answer = Record(ANSWER, "", now, "anna", None, "model", "run:3", "canary-1", "challenger", places=[1])
    for number, age in (("right", 0), ("wrong", 0), ("old", REMEMBER_SECONDS + 60), ("told", 0)):
        before.add(answer._replace(id=number, time=now - age))
    before.add(answer._replace(id="refused", status=400))
    before.add(Record(FEEDBACK, "told", now, reward=1.0))
    before.close()
    log = InferenceLog(tmp_path)
    slots = Slots({"model": Slot("champion", MODEL)}, lambda name: "h", lambda name: MODEL)
    gateway = Gateway(slots, Batcher(), log)
    gateway.feedback({"id": "right", "label": "1"})
    gateway.feedback({"id": "wrong", "label": 0})
    for number, again in (("right", True), ("told", True), ("old", False), ("refused", False), ("never", False)):
        with pytest.raises(Unknown) as error:
            gateway.feedback({"id": number, "reward": 1})
        assert error.value.again == again, number
    for body in ({"id": "right"}, {"id": 3, "reward": 1}, {"id": "right", "reward": 1, "label": "1"}):
        with pytest.raises(Unanswerable):
            gateway.feedback(body)
    log.close()
    rows = read(tmp_path, f"SELECT id, arm, release, reward FROM records WHERE kind = '{FEEDBACK}' AND id <> 'told'")
    told = {row["id"]: (row["arm"], row["release"], row["reward"]) for row in rows}
    assert told == {"right": ("challenger", "canary-1", 1.0), "wrong": ("challenger", "canary-1", 0.0)}
