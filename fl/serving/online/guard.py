"""What is learned from and what is not: decisions from what was seen, before and after a chunk of events.

too many events that are none     the whole chunk is refused: whatever sent it is broken
labels that the model denies      its error on the chunk, before learning, is far above its usual one
a candidate that is worse         after learning, on events that are held back from it
the error has changed             ADWIN (Bifet and Gavalda, 2007) sees it rise over many chunks: back to the state
                                  from before the rise, by as many events as its window says
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fl.decisions import Action, Decision

GO_ON = Decision(Action.GO_ON, "")


@dataclass(frozen=True)
class Limits:
    """What is borne.

    bad_fraction  of a chunk that may be refused event by event
    deviations    of the usual error by which that of a chunk may be above it
    margin        and by which it may be above it anyhow: errors are from 0 to 1
    worse         by which a candidate's error on what is held back may be above that of the state before
    delta         of ADWIN: how seldom it may be wrong
    """

    bad_fraction: float = 0.2
    deviations: float = 4.0
    margin: float = 0.1
    worse: float = 0.05
    delta: float = 0.002


@dataclass(eq=False)
class Guard:
    """Remembers errors, from 0 to 1, of events that were learned from."""

    limits: Limits = field(default_factory=Limits)
    _usual: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    _adwin: Any = None

    def before(self, *, bad: int, errors: list[float]) -> Decision:
        """Whether a chunk may be learned from: ``bad`` events are none, ``errors`` are the model's on the others."""
        whole = bad + len(errors)
        if bad > self.limits.bad_fraction * whole:
            return Decision(Action.REFUSE, f"{bad} of {whole} events are bad")
        if not errors or not self._usual:
            return GO_ON
        usual = sum(self._usual) / len(self._usual)
        spread = math.sqrt(max(usual * (1 - usual), 0.01) / len(errors))
        found = sum(errors) / len(errors)
        if found > usual + self.limits.margin + self.limits.deviations * spread:
            return Decision(
                Action.REFUSE, f"its labels are denied: an error of {found:.2f}, where {usual:.2f} is usual"
            )
        return GO_ON

    def after(self, *, held: float, held_before: float) -> Decision:
        """Whether what was learned is kept, by the errors on what is held back: the candidate's, and before."""
        if not math.isfinite(held) or held > held_before + self.limits.worse:
            return Decision(
                Action.REFUSE, f"an error of {held:.2f} on what is held back, where it was {held_before:.2f}"
            )
        return GO_ON

    def include(self, errors: Iterable[float]) -> int:
        """Remember errors of a chunk that was learned from; returns how many events ago they began to rise.

        0: they did not. Otherwise what is remembered begins anew.
        """
        from river.drift import ADWIN

        if self._adwin is None:
            self._adwin = ADWIN(delta=self.limits.delta)
        for error in errors:
            before = self._adwin.estimation
            self._adwin.update(error)
            self._usual.append(error)
            if self._adwin.drift_detected and self._adwin.estimation > before:
                events = int(self._adwin.width)
                self.begin_anew(events)
                return events
        return 0

    def begin_anew(self, events: int) -> None:
        """Forget the latest ``events`` errors."""
        self._adwin = None
        for _ in range(min(events, len(self._usual))):
            self._usual.pop()

    def seed(self, errors: Iterable[float]) -> None:
        """What is usual before the first event: the errors on the reference."""
        self._usual.extend(errors)
