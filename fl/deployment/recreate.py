"""Recreate: the champion stops, then the challenger starts. Nobody is answered in between: that time is measured.

The cheapest way, since never two versions are loaded; and the only one where they cannot run beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from fl.decisions import Action, Decision
from fl.deployment.options import Options, integer, number
from fl.releases import CHALLENGER, CHAMPION, Evidence, Release, Routing, State, everything_to, promoted, rolled_back

OPTIONS: Options = {
    "replicas": integer(1, "how many replicas are stopped and started", low=1, high=10_000),
    "patience_seconds": number(60.0, "the longest time closed before the champion comes back", low=0.1, high=86_400),
}


@final
@dataclass(frozen=True)
class Recreate:
    """``phase``: stopping, then starting; ``seconds``: how long nobody was answered."""

    release: Release

    def begin(self) -> State:
        """Nothing stopped yet."""
        return {"phase": "stopping", "seconds": 0.0}

    def routing(self, state: State) -> Routing:
        """Closed, first with no replica at all, then with the challenger's."""
        wanted = self.release.options["replicas"] if state["phase"] == "starting" else 0
        shares = everything_to(CHALLENGER, self.release.names)
        return Routing(shares, closed=True, replicas={CHAMPION: 0, CHALLENGER: wanted})

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Wait until the champion's replicas are gone, then until the challenger's are there."""
        options, ready = self.release.options, evidence.replicas
        state = {**state, "seconds": state["seconds"] + evidence.seconds}
        if state["phase"] == "stopping" and ready.get(CHAMPION, 0) == 0:
            return {**state, "phase": "starting"}, Decision(Action.GO_ON, "the champion has stopped")
        if state["phase"] == "starting" and (not ready or ready.get(CHALLENGER, 0) >= options["replicas"]):
            return promoted(state, CHALLENGER, f"ready after {state['seconds']:.2f} s in which nobody was answered")
        if state["seconds"] > options["patience_seconds"]:
            return rolled_back(state, f"not ready after {state['seconds']:.2f} s")
        return state, Decision(Action.HOLD, f"{state['phase']}, {state['seconds']:.2f} s closed")
