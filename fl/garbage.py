"""When Python looks for garbage in cycles: seldom while much is loaded, and never through what was loaded.

At its own thresholds the start of a run spends half a second of three and a half on looks through torch, which is no
garbage; and in a process that is forked, a look writes to every object and so copies all of them.
"""

from __future__ import annotations

import gc

OWN = gc.get_threshold()
LOADING = (1_000_000, *OWN[1:])
"""New objects between two looks: a run has half as many by the time it begins. From there it goes back to OWN, since
arrays in cycles would be kept for long.
"""


def loading() -> None:
    """Look seldom from now on."""
    gc.set_threshold(*LOADING)


def loaded() -> None:
    """Leave what is there out, for processes that are forked from here too, and look as often as Python does."""
    gc.freeze()
    gc.set_threshold(*OWN)
