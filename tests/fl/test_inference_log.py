"""Every request is one record; a clean stop loses none, a kill one flush interval's at most, and that is counted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fl.errors import BadInput
from fl.inference_log.files import read, recover, tallies
from fl.inference_log.records import ANSWER, FEEDBACK, Record
from fl.inference_log.writer import InferenceLog


def answer(number: int, **changes: object) -> Record:
    values = np.array([[number, 0.5]], dtype=np.float32)
    known = {"user": f"user-{number % 3}", "model": "model", "version": "run:1", "arm": "champion", "seconds": 0.25}
    record = Record(ANSWER, f"id-{number}", 1e9 + number, **known)  # type: ignore[arg-type]
    return record._replace(inputs=values, outputs=values * 2, places=[1], **changes)


def test_a_clean_stop_keeps_every_record_whole(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, flush_seconds=0.01)
    for number in range(1000):
        log.add(answer(number))
        if number == 500:
            time.sleep(0.1)
    log.add(Record(FEEDBACK, "id-7", 2e9, reward=0.5))
    log.close()
    assert not list(tmp_path.glob("*.jsonl"))
    rows = read(tmp_path)
    assert [row["number"] for row in rows] == list(range(1, 1002))
    first, last = rows[0], rows[-1]
    assert (first["id"], first["inputs"], first["outputs"], first["places"]) == ("id-0", [0, 0.5], [0, 1], [1])
    assert (first["status"], first["seconds"], first["rows"], first["arm"]) == (200, 0.25, 1, "champion")
    assert (last["kind"], last["id"], last["reward"], last["inputs"]) == (FEEDBACK, "id-7", 0.5, None)
    users = [row["user"] for row in rows[:1000]]
    assert len(set(users)) == 3 and users[0] == users[3] and "user" not in users[0]  # a hash, the same for the same
    (tally,) = tallies(tmp_path)
    assert (tally.taken, tally.kept, tally.refused, tally.lost, tally.live) == (1001, 1001, 0, 0, False)


KILLED = """
import sys, time, os, signal
from pathlib import Path
from fl.inference_log.writer import InferenceLog
from fl.inference_log.records import ANSWER, Record
log = InferenceLog(Path(sys.argv[1]), flush_seconds=0.3)
began, taken = time.monotonic(), 0
while time.monotonic() - began < 1.0:
    log.add(Record(ANSWER, str(taken), time.time()))
    taken += 1
    time.sleep(0.001)
print(taken, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_costs_one_flush_interval_and_the_next_server_says_how_much(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    taken = int(done.stdout)
    (part,) = tmp_path.glob("*.jsonl")
    with part.open("a") as file:
        file.write('{"server":"torn by the ki')
    times = [row["time"] for row in read(tmp_path)]
    assert 0 < len(times) < taken
    log = InferenceLog(tmp_path)
    log.add(answer(1))
    log.close()
    first, second = tallies(tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))  # what the killed one left is Parquet now
    assert (first.taken, first.kept) == (taken, len(times))
    assert first.lost == taken - len(times) == log.lost_before
    assert first.lost <= 400  # 0.3 s at one a millisecond, and some for a busy machine
    assert (second.taken, second.lost) == (1, 0)
    assert recover(tmp_path) == first.lost  # a second time changes nothing


def test_a_server_that_lives_is_left_alone(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, flush_seconds=0.01)
    log.add(answer(1))
    while not read(tmp_path):
        time.sleep(0.01)
    assert recover(tmp_path) == 0
    assert len(list(tmp_path.glob("*.jsonl"))) == 1 and [tally.live for tally in tallies(tmp_path)] == [True]
    log.add(answer(2))
    log.close()
    assert [row["id"] for row in read(tmp_path)] == ["id-1", "id-2"]


def test_the_queue_and_the_folder_are_bounded_and_what_it_costs_is_counted(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, flush_seconds=0.02, most_waiting=50, rotate_bytes=1, most_bytes=1)
    for number in range(80):
        log.add(answer(number))
    assert log.refused == 30
    while log.waiting:
        time.sleep(0.01)
    time.sleep(0.1)
    log.add(answer(99))
    log.close()
    assert [row["id"] for row in read(tmp_path)] == ["id-99"]
    (tally,) = tallies(tmp_path)
    assert (tally.taken, tally.refused, tally.removed, tally.kept, tally.lost) == (81, 30, 50, 1, 0)


def test_large_inputs_are_sketched_and_a_missing_value_is_none(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path)
    picture = np.linspace(0, 1, 784, dtype=np.float32)[None, :]
    log.add(answer(0)._replace(inputs=picture))
    log.add(answer(1)._replace(inputs=np.array([[np.nan, 2.0]])))
    log.add(answer(2)._replace(inputs=np.where(picture == 1, np.nan, np.where(picture == 0, -np.inf, picture))))
    log.close()
    large, small, holes = read(tmp_path)
    between = picture[0, 1:-1]
    assert holes["inputs_sketch"] == pytest.approx(
        {
            "missing": 2,
            "mean": between.mean(),
            "deviation": between.std(),
            "smallest": between.min(),
            "largest": between.max(),
        }
    )
    assert large["inputs"] is None and small["inputs_sketch"] is None
    assert large["inputs_sketch"]["mean"] == pytest.approx(0.5) and large["inputs_sketch"]["largest"] == 1.0
    assert small["inputs"] == [None, 2.0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("spread", [1e-30, 1e-3, 1.0, 1e3, 1e15, 1e30])
@pytest.mark.parametrize("middle", [0.0, 1.0, -2e4, 1e9, 1e30])
def test_a_sketch_holds_whatever_the_numbers(dtype: str, spread: float, middle: float, tmp_path: Path) -> None:
    draws = np.random.default_rng(0).normal(middle, spread, (5, 784)).clip(*((-9e18, 9e18) if dtype == "int64" else ()))
    inputs = draws.astype(dtype)
    log = InferenceLog(tmp_path)
    log.add(*(answer(n)._replace(inputs=row[None]) for n, row in enumerate(inputs)))
    log.close()
    exact = inputs.astype(np.float64)
    for row, record in zip(exact, read(tmp_path), strict=True):
        told, scale = record["inputs_sketch"], np.abs(row).max()
        assert (told["smallest"], told["largest"], told["missing"]) == (row.min(), row.max(), 0)
        assert told["mean"] == pytest.approx(row.mean(), rel=1e-5, abs=1e-6 * (row.max() - row.min()) + 1e-15 * scale)
        assert told["deviation"] == pytest.approx(row.std(), rel=1e-5, abs=1e-15 * scale)


def test_a_text_that_cannot_be_written_costs_no_record(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path)
    log.add(answer(0), answer(1)._replace(id="half a \ud83d"), answer(2))
    log.close()
    assert [row["id"] for row in read(tmp_path)] == ["id-0", "half a ?", "id-2"]


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BadInput, match="--log: got /proc/log"):
        InferenceLog(Path("/proc/log"))
