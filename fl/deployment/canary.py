"""Canary: steps of traffic, each passed only where harm beyond what is tolerated is excluded; on harm it rolls back.

Several challengers share a step's traffic equally; one that does harm leaves it, and its users go back to the champion.
After the last step the one with the best feedback is promoted, the first of those that have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from fl.decisions import Action, Decision
from fl.deployment.health import HEALTH, figures_of, harms, judged, watched, watching
from fl.deployment.options import Option, Options, integer, number
from fl.releases import CHAMPION, Evidence, Release, Routing, State, promoted, rolled_back


def _are_steps(value: Any) -> bool:
    numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return numbers and bool(value) and value == sorted(set(value)) and value[0] > 0 and value[-1] <= 100


OPTIONS: Options = {
    "steps": Option(
        [1, 5, 25, 50, 100], "percent of users at each step", "numbers above 0, rising, to 100 at most", _are_steps
    ),
    "requests": integer(500, "answered by each challenger before the next step", low=1),
    "seconds": number(0.0, "the shortest time at a step", low=0, high=10**8),
    "patience_seconds": number(86_400.0, "the longest time at a step before giving up", low=0.1, high=10**8),
    **HEALTH,
}


@final
@dataclass(frozen=True)
class Canary:
    """``step``: from 0; ``alive``: challengers without harm; ``at_step``: their requests in it; ``waited``: seconds."""

    release: Release

    def begin(self) -> State:
        """At the first step, all challengers in."""
        alive = list(self.release.names[1:])
        return {"step": 0, "alive": alive, "at_step": {}, "waited": 0.0, **watching(self.release.options)}

    def routing(self, state: State) -> Routing:
        """The step's share, a part for each challenger; the parts of those that left are the champion's."""
        challengers = self.release.names[1:]
        part = self.release.options["steps"][state["step"]] / 100 / len(challengers)
        shares = {name: part if name in state["alive"] else 0.0 for name in challengers}
        return Routing({CHAMPION: max(0.0, 1 - sum(shares.values())), **shares})

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Let harmful ones go, then go on if all that are left have passed."""
        options, steps = self.release.options, self.release.options["steps"]
        state = watched(state, evidence, self.release.names)
        answered = {name: state["at_step"].get(name, 0) + evidence.of(name).requests for name in state["alive"]}
        state = {**state, "at_step": answered, "waited": state["waited"] + evidence.seconds}
        verdicts = {name: judged(harms(state, name, options)) for name in state["alive"]}
        alive = [name for name in state["alive"] if verdicts[name][0] != "worse"]
        told = "; ".join(f"{name} {why}" for name, (_, why) in verdicts.items())
        where = f"at {steps[state['step']]:g} %"
        if not alive:
            return rolled_back(state, f"{where}: {told}")
        if len(alive) < len(state["alive"]):
            return {**state, "alive": alive}, Decision(Action.GO_ON, f"{where}: {told}")
        passed = all(verdicts[name][0] == "fine" and answered[name] >= options["requests"] for name in alive)
        if passed and state["waited"] >= options["seconds"]:
            if state["step"] == len(steps) - 1:
                return promoted(state, self._best(state), f"{where}: {told}")
            went = {**state, "step": state["step"] + 1, "at_step": {}, "waited": 0.0}
            return went, Decision(
                Action.GO_ON, f"from {steps[state['step']]:g} to {steps[state['step'] + 1]:g} %: {told}"
            )
        if state["waited"] > options["patience_seconds"]:
            return rolled_back(state, f"{where} not passed in {state['waited']:.0f} s: {told}")
        return state, Decision(Action.HOLD, f"{where}: {told}")

    def _best(self, state: State) -> str:
        """Of the challengers that are left, the one with the highest mean reward; the first of equals."""
        figures = {str(name): figures_of(state, name) for name in state["alive"]}
        return max(figures, key=lambda name: figures[name].reward_sum / max(1, figures[name].rewards))
