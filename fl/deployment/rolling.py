"""Rolling: replica by replica, each new one watched before the next; both versions answer meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from fl.decisions import Action, Decision
from fl.deployment.health import HEALTH, figures_of, harms, judged, watched, watching
from fl.deployment.options import Options, integer, number
from fl.releases import CHALLENGER, CHAMPION, Evidence, Release, Routing, State, promoted, rolled_back

OPTIONS: Options = {
    "replicas": integer(4, "how many replicas there are", low=1, high=10_000),
    "requests": integer(100, "answered by the challenger before the next replica", low=1),
    "patience_seconds": number(3600.0, "the longest wait for one replica", low=0.1, high=10**8),
    **HEALTH,
}


@final
@dataclass(frozen=True)
class Rolling:
    """``replaced``: replicas that are, or are about to be, the challenger's; ``answered``: requests of it before."""

    release: Release

    def begin(self) -> State:
        """The first replica is about to be replaced."""
        return {"replaced": 1, "answered": 0, "waited": 0.0, **watching(self.release.options)}

    def routing(self, state: State) -> Routing:
        """Every replica has an equal share."""
        all_, new = self.release.options["replicas"], state["replaced"]
        replicas = {CHAMPION: all_ - new, CHALLENGER: new}
        return Routing({name: count / all_ for name, count in replicas.items()}, replicas=replicas)

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Replace one more once the last one is ready and has answered enough without harm."""
        options = self.release.options
        new = 0 if state["slow_bin"] is None else evidence.of(CHALLENGER).requests
        state = watched(state, evidence, self.release.names)
        state = {**state, "answered": state["answered"] + new, "waited": state["waited"] + evidence.seconds}
        verdict, why = judged(harms(state, CHALLENGER, options))
        if verdict == "worse":
            return rolled_back(state, why)
        all_, replaced = options["replicas"], state["replaced"]
        ready = not evidence.replicas or evidence.replicas.get(CHALLENGER, 0) >= replaced
        if ready and state["answered"] >= options["requests"]:
            if replaced == all_:
                return promoted(state, CHALLENGER, f"all {all_} replicas are replaced; {why}")
            why = f"{replaced} of {all_} replicas are replaced; {why}"
            return {**state, "replaced": replaced + 1, "answered": 0, "waited": 0.0}, Decision(Action.GO_ON, why)
        if state["waited"] > options["patience_seconds"]:
            told = f"{figures_of(state, CHALLENGER).requests} answers in all" if ready else "not ready"
            return rolled_back(state, f"replica {replaced} of {all_} after {state['waited']:.0f} s: {told}")
        return state, Decision(Action.HOLD, f"replica {replaced} of {all_}: {state['answered']} answers; {why}")
