"""Ctrl-C and SIGTERM: a round is finished or abandoned cleanly, a commit is never cut in two, no signal is lost.

The first signal raises KeyboardInterrupt, at once or as soon as a ``deferred`` block is left, so that no ``except
Exception`` on its way can take it for a device's fault; ``named`` makes of it the error that users see.
A second signal finds Python's own handlers back in place and stops the process as it always would.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fl.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    """``pending``: a signal that has come and is not raised; ``raised``: one that is, and not yet an Interrupted."""

    depth = 0
    pending: str | None = None
    raised: str | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Turn the first signal within the block into Interrupted. For the main thread only."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        _State.pending = signal.Signals(number).name
        if not _State.depth:
            _raise_pending()

    for number in SIGNALS:
        signal.signal(number, first)
    try:
        with named():
            yield
    finally:
        restore()
        _State.pending = _State.raised = None


@contextmanager
def named() -> Iterator[None]:
    """Let a signal leave the block as Interrupted; Ray, where it finds that waiting, raises an interrupt of its own."""
    try:
        yield
    except KeyboardInterrupt:
        name, _State.raised = _State.raised, None
        if name is None:
            raise
        raise Interrupted(signal=name) from None


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block finish before a signal takes effect: one that is raised in it may be lost in what it calls."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if not _State.depth:
        _raise_pending()


def _raise_pending() -> None:
    name, _State.pending = _State.pending, None
    if name:
        _State.raised = name
        raise KeyboardInterrupt
