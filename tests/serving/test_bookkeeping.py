"""What is kept of requests is kept a portion at a time: each once, as it was, soon; what a kill costs is counted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl.inference_log.files import read, tallies
from fl.inference_log.writer import InferenceLog
from fl.serving.answered import MOST_LABELS, Answers
from fl.serving.batching import Batcher
from fl.serving.bookkeeping import MOST_BYTES, SETTLE_SECONDS, Books
from fl.serving.model import Model
from fl.serving.router import Lane
from fl.serving.visit import Visit
from fl.signature import Signature

MODELS = {
    task: Model("run:1", "h", Signature(task, (1,), "float32", 3), lambda inputs: inputs)
    for task in ("classification", "next_token", "regression")
}


def visit(number: int, task: str, rows: int, status: int = 200, width: int = 1) -> Visit:
    draw = np.random.default_rng(number)
    shape = (rows, 5, 3) if task == "next_token" else (rows, 1 if task == "regression" else 3)
    inputs = draw.random((rows, width), dtype=np.float32)
    outputs = draw.random(shape, dtype=np.float32) if status == 200 else None
    lane = Lane("", MODELS[task], Batcher())
    return Visit(f"id-{number}", "anna", None, "model", lane, None, inputs, outputs, status, 0.25, 2e9)


VISITS = st.lists(
    st.tuples(
        st.sampled_from(list(MODELS)), st.sampled_from([1, 1, 1, 2, 30, 70]), st.sampled_from([200, 200, 400, 500])
    ),
    max_size=80,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=VISITS)
def test_each_request_is_kept_once_with_its_own_labels(kinds: list[tuple[str, int, int]], tmp_path: Path) -> None:
    folder = tmp_path / str(time.monotonic_ns())
    folder.mkdir()
    log, answers = InferenceLog(folder), Answers()
    visits = [visit(number, *kind) for number, kind in enumerate(kinds)]

    async def keep() -> None:
        books = Books(answers, log)
        for one in visits:
            books.add(one)
        books.settle()

    asyncio.run(keep())
    log.close()
    rows: list[dict[str, Any]] = read(folder, "SELECT * FROM records ORDER BY number")
    assert [row["id"] for row in rows] == [one.id for one in visits]
    for row, one in zip(rows, visits, strict=True):
        known = answers.find(one.id)
        assert (known is None) == (one.status != 200) and row["status"] == one.status
        if one.outputs is None or one.lane.model.signature.task == "regression":
            assert row["places"] is None and (known is None or known.places is None)
            continue
        labels = one.outputs.argmax(axis=-1).reshape(-1).tolist()
        assert row["places"] == labels[:256]
        assert known is not None and known.places == (labels if len(labels) <= MOST_LABELS else None)


def test_what_is_less_than_a_portion_is_kept_soon_and_what_is_large_at_once(tmp_path: Path) -> None:
    log, answers = InferenceLog(tmp_path), Answers()
    books = Books(answers, log)

    async def keep() -> None:
        books.add(visit(1, "classification", 1))
        assert log.waiting == 0 and log.taken == 1
        await asyncio.sleep(4 * SETTLE_SECONDS)
        assert log.waiting == 1
        books.add(visit(2, "classification", 1, width=MOST_BYTES // 4))
        assert log.waiting == 2

    asyncio.run(keep())
    log.close()
    assert [row["id"] for row in read(tmp_path)] == ["id-1", "id-2"]


KILLED = """
import asyncio, os, sys
from pathlib import Path
from fl.inference_log.writer import InferenceLog
from fl.serving.answered import Answers
from fl.serving.bookkeeping import Books
from test_bookkeeping import visit

async def keep():
    books = Books(Answers(), InferenceLog(Path(sys.argv[1])))
    for number in range(5):
        books.add(visit(number, "classification", 1))
    os.kill(os.getpid(), 9)

asyncio.run(keep())
"""


def test_a_kill_before_a_portion_is_settled_is_counted(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parent, timeout=60)
    assert done.returncode == -9
    log = InferenceLog(tmp_path)
    log.close()
    assert log.lost_before == 5
    assert sorted(tally.taken for tally in tallies(tmp_path)) == [0, 5]
