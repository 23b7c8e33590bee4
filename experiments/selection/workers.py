"""Trials at once, each in a process of its own, and what each came to in the order in which they were asked for.

A trial's result depends on its settings alone, so how many run at once changes nothing but the time. A process starts
when it is first needed, is used again, and ends with its parent however that ends, kill -9 included. One that dies
takes the trial that it had with it, and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeAlias, final

from experiments.engine import available_cores
from fl.errors import Interrupted, MeadowError, TrialFailed

Outcome: TypeAlias = Any
"""What a function returned, the MeadowError that it raised, or None where it was not begun."""

ENDS_WITHIN_SECONDS = 60.0


def always() -> bool:
    """Every trial may begin."""
    return True


@final
class Workers:
    """Runs functions of trials, ``at_once`` of them (1: here, one after the other), never more than there are cores."""

    def __init__(self, at_once: int) -> None:
        self.at_once = max(1, min(at_once, available_cores()))
        self._idle: list[tuple[SpawnProcess, Connection]] = []
        self._busy: dict[Connection, tuple[SpawnProcess, int]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def shared(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """``settings`` with this machine's cores shared out, where they do not say how many actors a trial has."""
        engine = dict(settings["engine"])
        if self.at_once > 1 and engine["num_actors"] is None and engine["address"] is None:
            engine["num_actors"] = max(1, available_cores() // self.at_once)
        return {**settings, "engine": engine}

    def each(
        self,
        function: Callable[..., Any],
        calls: Mapping[str, Sequence[Any]],
        *,
        may_begin: Callable[[], bool] = always,
    ) -> list[Outcome]:
        """``function(*arguments)`` for the arguments of each name; the outcomes in order.

        ``function`` is one of a module, and what it takes and returns can be pickled. ``may_begin`` is asked before
        each; the first time that it says no, no other begins. Interrupted ends them all, and is raised.
        """
        if self.at_once == 1 or len(calls) < 2:
            return _one_by_one(function, list(calls.values()), may_begin)
        try:
            return self._at_once(function, list(calls.items()), may_begin)
        except BaseException:
            self.end()
            raise

    def _at_once(
        self, function: Callable[..., Any], calls: Sequence[tuple[str, Sequence[Any]]], may_begin: Callable[[], bool]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(calls)
        waiting = deque(range(len(calls)))
        while waiting or self._busy:
            while waiting and len(self._busy) < self.at_once:
                if not may_begin():
                    waiting.clear()
                    break
                index = waiting.popleft()
                if not self._idle:
                    self._start()
                process, connection = self._idle[-1]
                self._busy[connection] = process, index
                self._idle.pop()
                connection.send((function, tuple(calls[index][1])))
            for ready in wait(list(self._busy)):
                assert isinstance(ready, Connection)
                process, index = self._busy[ready]
                try:
                    fault, outcomes[index] = ready.recv()
                except EOFError:
                    process.join()
                    del self._busy[ready]
                    outcomes[index] = TrialFailed(trial=calls[index][0], reason=_ended(process.exitcode))
                    continue
                self._idle.append((process, ready))
                del self._busy[ready]
                if isinstance(outcomes[index], Interrupted):
                    raise outcomes[index]
                if fault:
                    raise RuntimeError(f"trial {calls[index][0]}: {fault}")
        return outcomes

    def _start(self) -> None:
        """One more process that waits for functions; spawned, since a process with threads cannot be forked safely."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,))
        self._idle.append((process, ours))
        process.start()
        theirs.close()

    def end(self) -> None:
        """End the processes: a trial that runs finishes its round or abandons it, as when it is interrupted.

        An interruption may come between any two steps of this class, so a process is always idle or busy, or both for
        a moment: one that was neither would be waited for by the end of Python, for as long as its trial takes.
        """
        busy = [process for process, _ in self._busy.values() if process.ident is not None]
        idle = [process for process, _ in self._idle if process.ident is not None]
        for process in busy:
            process.terminate()
        for _, connection in self._idle:
            connection.close()
        for process in (*busy, *idle):
            process.join(ENDS_WITHIN_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._idle, self._busy = [], {}


def _one_by_one(
    function: Callable[..., Any], calls: Sequence[Sequence[Any]], may_begin: Callable[[], bool]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for arguments in calls:
        if not may_begin():
            break
        try:
            outcomes.append(function(*arguments))
        except Interrupted:
            raise
        except MeadowError as error:
            outcomes.append(error)
    return outcomes + [None] * (len(calls) - len(outcomes))


def _ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


def _work(connection: Connection) -> None:
    """A process's life: a function, its outcome, the next one; quietly, for several would talk over one another."""
    os.setpgrp()  # Ctrl-C reaches the parent alone, which then ends this once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(nowhere, stream.fileno())
    try:
        while True:
            function, arguments = connection.recv()
            connection.send(_tried(function, arguments))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _tried(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Outcome]:
    try:
        return "", function(*arguments)
    except MeadowError as error:
        return "", error
    except Exception as error:  # noqa: BLE001 - a fault of the program: the parent raises it, with where it was
        return "".join(traceback.format_exception(error)), None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    parent.join()
    os._exit(1)
