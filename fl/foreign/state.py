"""What a strategy carries from round to round, so that a run that died goes on as if it had not.

Every attribute that changed since the run began is kept, whatever it is, if it can be pickled: momentum, moments,
generators, objects of the app's own. What cannot be pickled, functions and open files, comes from the app's own code
again, which is run from its beginning. Only processes of the app read what is written here.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any, TypeAlias

from flwr.serverapp.strategy import Strategy

Pickled: TypeAlias = dict[str, Any]


def pickled(strategy: Strategy) -> Pickled:
    """Each attribute by name: its pickle, or the same again for a strategy inside; what has none is left out."""
    found: Pickled = {}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            found[name] = pickled(value)
            continue
        try:
            found[name] = pickle.dumps(value, protocol=5)
        except Exception:  # noqa: BLE001  a library's object may fail in any way of its own
            continue
    return found


def digests(state: Pickled) -> Pickled:
    """What to compare a later state with, without holding on to it."""
    return {k: digests(v) if isinstance(v, dict) else hashlib.sha256(v).digest() for k, v in state.items()}


def changes(state: Pickled, since: Pickled) -> Pickled:
    """The part of ``state`` that is not as it was when ``since`` was taken."""
    changed: Pickled = {}
    for name, value in state.items():
        if isinstance(value, dict):
            changed[name] = changes(value, since.get(name) or {})
        elif hashlib.sha256(value).digest() != since.get(name):
            changed[name] = value
    return changed


def restore(strategy: Strategy, state: Pickled) -> None:
    """Put what ``changes`` kept into a strategy that the app has just built again."""
    for name, value in state.items():
        if isinstance(value, dict):
            restore(getattr(strategy, name), value)
        else:
            setattr(strategy, name, pickle.loads(value))  # noqa: S301  from the app to itself
