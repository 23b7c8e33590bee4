"""A run on the terminal: a live view of it, or plain lines where nobody is looking. All of it on standard error.

Drawing costs a few milliseconds, a round may take three. So what drawing took is kept below a fixed share of the time
that has passed: progress costs less than one per cent.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from server.records import RoundRecord, RunRecord, RunSummary
from server.tracking import layout

LATEST_ROUNDS = 8
SECONDS_BETWEEN_DRAWINGS = 0.25
DRAWING_SHARE = 0.004
SECONDS_BETWEEN_LINES = 2.0
ROUNDS_FOR_ESTIMATE = 20


def standard_error(*, live: bool) -> Console:
    """Standard error as Rich writes to it. Without a live view a line is never broken, whatever its length."""
    return Console(stderr=True, soft_wrap=not live, highlight=False)


@final
class TerminalObserver:
    """Shows progress on ``console``: as a ``live`` view or as plain lines.

    default_registry   where the command `fl` looks without --registry; None: the commands shown always name theirs
    clock              monotonic seconds
    """

    def __init__(
        self,
        console: Console,
        *,
        live: bool,
        default_registry: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._live: Live | None = None
        self._wants_live = live
        self._default_registry = default_registry
        self._clock = clock
        self._run: RunRecord | None = None
        self._latest: deque[RoundRecord] = deque(maxlen=LATEST_ROUNDS)
        self._ends: deque[float] = deque(maxlen=ROUNDS_FOR_ESTIMATE + 1)
        self._phase: layout.Phase | None = None
        self._began = 0.0
        self._drawing_seconds = 0.0
        self._affordable_from = 0.0
        self._phase_not_before = 0.0
        self._line_not_before = 0.0

    def on_start(self, run: RunRecord) -> None:
        self._run, self._began = run, self._clock()
        if not self._wants_live:
            self._console.print(layout.heading(run))
            return
        # What others print to standard error meanwhile appears above the view; standard output is not touched.
        self._live = Live(
            self._view(), console=self._console, auto_refresh=False, redirect_stdout=False, vertical_overflow="crop"
        )
        self._live.start()
        # An error that ends the run without on_end must not leave the terminal without its cursor.
        atexit.register(self._live.stop)

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
        if self._live is not None and (now := self._clock()) >= self._phase_not_before:
            self._phase = layout.Phase(round=round, name=phase, done=done, of=of)
            self._draw(self._live, now)

    def on_round(self, record: RoundRecord) -> None:
        assert self._run, "on_start comes first"
        self._latest.append(record)
        self._ends.append(now := self._clock())
        if self._live is not None:
            self._phase = None
            if now >= self._affordable_from:
                self._draw(self._live, now)
        elif record.metrics or record.round == self._run.num_rounds or now >= self._line_not_before:
            self._line_not_before = now + SECONDS_BETWEEN_LINES
            self._console.print(layout.line(record, self._run, left=self._seconds_left()))

    def on_end(self, summary: RunSummary) -> None:
        assert self._run, "on_start comes first"
        if self._live is not None:
            atexit.unregister(self._live.stop)
            self._live.update(self._view(ended=True), refresh=True)
            self._live.stop()
        self._console.print(layout.made(self._run, summary, boxed=self._live is not None))
        self._console.print(Text("next:", style="dim"))
        for command in layout.next_commands(self._run, summary, default_registry=self._default_registry):
            # Never broken nor boxed, so that it can be copied.
            self._console.print(Text("  " + command, style="cyan"), soft_wrap=True)

    def _draw(self, live: Live, now: float) -> None:
        live.update(self._view(), refresh=True)
        self._drawing_seconds += self._clock() - now
        self._affordable_from = self._began + self._drawing_seconds / DRAWING_SHARE
        self._phase_not_before = max(self._affordable_from, now + SECONDS_BETWEEN_DRAWINGS)

    def _view(self, *, ended: bool = False) -> Group:
        assert self._run, "on_start comes first"
        table = layout.table(self._latest, self._run)
        if ended:
            return Group(layout.heading(self._run), table)
        done = self._latest[-1].round if self._latest else max(self._run.first_round - 1, 0)
        bars = layout.bars(self._run, self._phase, done=done, left=self._seconds_left())
        return Group(layout.heading(self._run), table, bars)

    def _seconds_left(self) -> float | None:
        """An estimate from the latest rounds, evaluation and all; None before two rounds have ended."""
        if self._run is None or len(self._ends) < 2:
            return None
        a_round = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        since = self._clock() - self._ends[-1]
        return max(a_round * (self._run.num_rounds - self._latest[-1].round) - min(since, a_round), 0.0)
