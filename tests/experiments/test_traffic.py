"""Simulated users ask a server and tell what they saw; here it is in this process, and its model is arithmetic."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from experiments.traffic import Plan, Questions, Traffic, ask, by_day, show
from fl.inference_log.writer import InferenceLog
from fl.serving.batching import Batcher
from fl.serving.model import Model
from fl.serving.service import Limits, application
from fl.serving.slots import Slot, Slots
from fl.signature import Signature

SIGNATURE = Signature("classification", (1,), "float32", 2)
QUESTIONS = Questions([[-1.0], [1.0], [2.0], [-2.0]], np.array([0, 1, 1, 1]), ["0", "1"])


def asked(plan: Plan, log: InferenceLog | None = None) -> Traffic:
    model = Model("run:3", "h", SIGNATURE, lambda inputs: np.hstack([-inputs, inputs]))
    slots = Slots({"model": Slot("champion", model)}, lambda name: "h", lambda name: model)
    app = application(slots, batcher=Batcher(), limits=Limits(), follow=False, log=log)

    async def main() -> Traffic:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://meadow") as client:
            return await ask(client, QUESTIONS, plan)

    return asyncio.run(main())


def test_what_users_saw_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = InferenceLog(tmp_path)
    seen = asked(Plan(users=30, requests=200, connections=4, feedback=0.5, delay_seconds=0.01), log)
    log.close()
    told = seen.to_dict()
    assert (told["statuses"], told["failed"], told["users_who_changed_arms"]) == ({"200": 200}, 0, 0)
    (arm,) = told["arms"].values()
    assert arm["versions"] == ["run:3"] and arm["requests"] == 200 and 20 <= arm["users"] <= 30
    assert told["feedback"].keys() == {"200"} and 70 <= told["feedback"]["200"] <= 130
    assert 0.6 < arm["mean_reward"] < 0.9  # right for three questions of four
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    show(seen)
    assert "200 requests of" in capsys.readouterr().out


def test_a_rate_is_kept_and_follows_the_day() -> None:
    seen = asked(Plan(users=5, requests=60, rate=100.0, day_seconds=0.6, feedback=0.5, delay_seconds=0.01))
    assert seen.statuses == {200: 60} and seen.seconds > 0.3
    assert seen.feedback.keys() == {404}  # no release is open and no log is kept: nobody remembers
    assert by_day(0, 10) == pytest.approx(0.4) and by_day(5, 10) == pytest.approx(1.6)
    assert np.mean([by_day(at, 10) for at in range(10)]) == pytest.approx(1.0)
