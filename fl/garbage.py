"""When Python looks for garbage in cycles: not while much is loaded, and never through what was loaded.

At its own thresholds the start of a run spends half a second of three and a half on looks through torch, which is no
garbage; and in a process that is forked, a look writes to every object and so copies all of them.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

OWN = gc.get_threshold()
LOADING = (1_000_000, *OWN[1:])
"""New objects before the first look: a run has half as many by the time it begins."""


def loading() -> None:
    """Look for nothing until that many objects are new or all is ``loaded``; from then on as often as Python does."""
    gc.set_threshold(*LOADING)
    gc.callbacks.append(_as_python_does)


def loaded() -> None:
    """Leave what is there out, for processes that are forked from here too, and look as often as Python does."""
    gc.freeze()
    gc.set_threshold(*OWN)


def _as_python_does(phase: str, about: Mapping[str, int]) -> None:
    gc.callbacks.remove(_as_python_does)
    gc.set_threshold(*OWN)
