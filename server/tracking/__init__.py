"""Watching a run: observers of the round loop that write files, feed TensorBoard and show progress on the terminal.

    files         metrics.jsonl and summary.json in the run's folder
    tensorboard   event files in tensorboard/ of the run's folder
    terminal      a live view, or plain lines where nobody is looking

Observers are told after the fact and never change a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import final

from server.records import Observer, RoundRecord, RunRecord, RunSummary

__all__ = ["fan_out", "observers", "shown", "written"]


def observers(*, terminal: bool, tensorboard: bool, default_registry: Path | None = None) -> list[Observer]:
    """The observers of a run, in the order in which they are to be told: the files first, since others may be lost."""
    return [*written(tensorboard=tensorboard), shown(terminal=terminal, default_registry=default_registry)]


def written(*, tensorboard: bool) -> list[Observer]:
    """Those that write files. ``tensorboard``: event files too, which costs about 0.5 s at the start of a run."""
    from server.tracking.files import FilesObserver

    if not tensorboard:
        return [FilesObserver()]
    from server.tracking.tensorboard import TensorBoardObserver

    return [FilesObserver(), TensorBoardObserver()]


def shown(*, terminal: bool, default_registry: Path | None = None) -> Observer:
    """The one on standard error.

    terminal          it is a terminal: a live view; otherwise plain lines
    default_registry  where `fl` looks without --registry; None: the commands shown at the end always name the registry
    """
    from server.tracking.terminal import TerminalObserver, standard_error

    console = standard_error(live=terminal)
    return TerminalObserver(console, live=terminal, default_registry=default_registry)


def fan_out(told: Sequence[Observer]) -> Observer:
    """One observer that passes everything on to each of ``told``, in their order; what one raises, it raises."""
    return _FanOut(tuple(told))


@final
class _FanOut:
    def __init__(self, told: tuple[Observer, ...]) -> None:
        self._told = told
        self._one_at_a_time = Lock()

    def on_start(self, run: RunRecord) -> None:
        with self._one_at_a_time:
            for observer in self._told:
                observer.on_start(run)

    def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
        with self._one_at_a_time:
            for observer in self._told:
                observer.on_phase(round, phase, done, of)

    def on_round(self, record: RoundRecord) -> None:
        with self._one_at_a_time:
            for observer in self._told:
                observer.on_round(record)

    def on_end(self, summary: RunSummary) -> None:
        with self._one_at_a_time:
            for observer in self._told:
                observer.on_end(summary)
