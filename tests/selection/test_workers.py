"""Trials at once: outcomes in order, whoever dies is named and takes nobody along, and nothing outlives the parent."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from experiments.engine import available_cores
from experiments.selection import workers as at_once
from experiments.selection.workers import Workers
from fl.errors import BadInput, TrialFailed


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(at_once, "available_cores", lambda: 2)
    with Workers(2) as workers:
        yield workers


@pytest.mark.slow
def test_outcomes_are_in_order_and_a_process_that_dies_is_named_and_replaced(two):
    from fl.data.folds import Fold

    assert two.each(time.sleep, {"long": (0.3,), "short": (0,)}) == [None, None]
    assert two.each(operator.add, {str(n): (n, 1) for n in range(7)}) == list(range(1, 8))
    bad, good = two.each(Fold, {"bad": (3, 7, "examples"), "good": (3, 1, "examples")})
    assert isinstance(bad, BadInput) and good == Fold(3, 1, "examples")
    first, second = two.each(os._exit, {"a": (7,), "b": (8,)})
    assert isinstance(first, TrialFailed) and str(first) == "trial a failed: its process ended with status 7"
    assert str(second) == "trial b failed: its process ended with status 8"
    assert two.each(operator.add, {"a": (1, 1), "b": (2, 2)}) == [2, 4]
    with pytest.raises(RuntimeError, match=r"trial b: (.|\n)*ZeroDivisionError"):
        two.each(operator.truediv, {"a": (1, 1), "b": (1, 0)})


def test_one_at_a_time_is_the_same_and_needs_no_process():
    from fl.data.folds import Fold

    with Workers(1) as workers:
        bad, good = workers.each(Fold, {"bad": (3, 7, "examples"), "good": (3, 1, "examples")})
        assert isinstance(bad, BadInput) and good == Fold(3, 1, "examples")
        asked = iter([True, True, False])
        calls = {str(n): (n, 1) for n in range(4)}
        assert workers.each(operator.add, calls, may_begin=lambda: next(asked)) == [1, 2, None, None]


def test_there_are_never_more_than_cores_and_a_trial_has_its_share_of_them(monkeypatch):
    assert Workers(1000).at_once == available_cores()
    monkeypatch.setattr(at_once, "available_cores", lambda: 8)
    engine = {"name": "auto", "num_actors": None, "address": None}
    assert Workers(3).shared({"engine": engine})["engine"]["num_actors"] == 2
    assert Workers(1).shared({"engine": engine})["engine"] == engine
    asked = {**engine, "num_actors": 5}
    assert Workers(3).shared({"engine": asked})["engine"] == asked


# Whatever a shell starts in the background ignores Ctrl-C, and so does what that starts: these tests among it.
PARENT = """
import signal, time
from experiments.selection import workers
workers.available_cores = lambda: 2
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with workers.Workers(2) as two:
        two.each(time.sleep, {"a": (0,), "b": (0,)})
        print("ready", flush=True)
        two.each(time.sleep, {"a": (600,), "b": (600,)})
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
    finally:
        parent.send_signal(number)
        parent.communicate(timeout=60)
    _, left = psutil.wait_procs(children, timeout=20)
    for process in left:
        process.kill()
    assert not left


INTERRUPTED = """
import multiprocessing, sys, time
from experiments.selection import workers
workers.available_cores = lambda: 2
left = 0

def trace(frame, event, argument):
    if frame.f_code is not workers.Workers._at_once.__code__:
        return None
    def line(frame, event, argument):
        global left
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return line
    return line

if __name__ == "__main__":
    after = 0
    while True:
        after += 1
        with workers.Workers(2) as two:
            two.each(time.sleep, {"a": (0,), "b": (0,)})
            left = after
            sys.settrace(trace)
            try:
                two.each(time.sleep, {"a": (600,), "b": (0,), "c": (600,)})
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
        children = len(multiprocessing.active_children())
        print(after, "left", children, flush=True)
        if children or after == 24:
            sys.exit(children)
"""


@pytest.mark.slow
def test_an_interruption_at_any_line_ends_every_process(tmp_path):
    """Two of the processes have ten minutes to do; with one left over, the end of Python would wait for it."""
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=280)
    told = done.stdout.splitlines()
    assert done.returncode == 0 and told == [f"{n} left 0" for n in range(1, 25)], done.stdout + done.stderr
