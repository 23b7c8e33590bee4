"""Blue-green: green answers copies of all requests until it has passed, then has all users at once.

Blue stays loaded for ``keep_seconds``, so that the way back is as quick as the switch. Green passes if it agrees with
blue often enough, and neither fails nor lingers more than is tolerated, all with confidence at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from fl.decisions import Action, Decision
from fl.deployment.confidence import bounds
from fl.deployment.health import HEALTH, Harm, figures_of, harms, judged, watched, watching
from fl.deployment.options import Options, integer, number
from fl.releases import CHALLENGER, CHAMPION, Evidence, Release, Routing, State, everything_to, promoted, rolled_back

OPTIONS: Options = {
    "requests": integer(500, "copies that green answers before the switch", low=1),
    "agreement": number(0.8, "the share of them in which green has to agree with blue", low=0, high=1),
    "mirrored_share": number(1.0, "the fraction of requests that are copied", low=0, high=1),
    "keep_seconds": number(60.0, "how long blue stays loaded after the switch", low=0, high=10**8),
    "patience_seconds": number(3600.0, "the longest time on trial before green is given up", low=0.1, high=10**8),
    **HEALTH,
}


@final
@dataclass(frozen=True)
class BlueGreen:
    """``phase``: trial, then live; ``since``: seconds in it."""

    release: Release

    def begin(self) -> State:
        """Green on trial."""
        return {"phase": "trial", "since": 0.0, **watching(self.release.options)}

    def routing(self, state: State) -> Routing:
        """Copies to green; after the switch everything."""
        if state["phase"] == "live":
            return Routing(everything_to(CHALLENGER, self.release.names))
        shares = everything_to(CHAMPION, self.release.names)
        return Routing(shares, mirrors=(CHALLENGER,), mirrored_share=self.release.options["mirrored_share"])

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """On trial until it passed; live until blue may go."""
        options = self.release.options
        state = watched(state, evidence, self.release.names)
        state = {**state, "since": state["since"] + evidence.seconds}
        live = state["phase"] == "live"
        found = harms(state, CHALLENGER, options)
        if not live and found:
            found = [harm for harm in found if harm.name != "quality"] + [self._disagreement(state)]
        verdict, why = judged(found)
        if verdict == "worse":
            return rolled_back(state, f"back to blue, {why}" if live else f"not switched, {why}")
        if live and state["since"] >= options["keep_seconds"]:
            return promoted(state, CHALLENGER, f"{state['since']:.0f} s after the switch: {why}")
        if live:
            return state, Decision(
                Action.HOLD, f"blue stays for {options['keep_seconds'] - state['since']:.0f} s; {why}"
            )
        answered = figures_of(state, CHALLENGER).requests
        if verdict == "fine" and answered >= options["requests"]:
            return {**state, "phase": "live", "since": 0.0}, Decision(Action.GO_ON, f"switched to green: {why}")
        if state["since"] > options["patience_seconds"]:
            return rolled_back(state, f"not passed in {state['since']:.0f} s: {answered} copies answered; {why}")
        return state, Decision(Action.HOLD, f"{answered} copies answered; {why}")

    def _disagreement(self, state: State) -> Harm:
        """The share of differing answers. Worse only where it is certainly more than is tolerated."""
        green, options = figures_of(state, CHALLENGER), self.release.options
        low, high = bounds(green.compared, green.compared - green.agreed, alpha=(1 - options["confidence"]) / 6)
        tolerated = 1 - options["agreement"]
        return Harm("disagreement", low if low > tolerated else min(low, 0.0), high, tolerated)
