"""What every policy returns: a Decision with its Action and its reason. Policies decide, callers act."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What a caller may be told to do."""

    GO_ON = "go on"
    STOP = "stop"
    RETRY = "retry"
    REFUSE = "refuse"
    HOLD = "hold"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Decision:
    """An action and why, in words a user can read."""

    action: Action
    reason: str
