"""Shadow: challengers answer copies of requests, users never see it; it ends with a report and moves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from fl.decisions import Action, Decision
from fl.deployment.confidence import bounds
from fl.deployment.health import figures_of, quantile
from fl.deployment.options import Options, integer, number
from fl.releases import CHAMPION, Evidence, Release, Routing, State, everything_to, finished

OPTIONS: Options = {
    "requests": integer(1000, "copies that each challenger answers before the report", low=1),
    "seconds": number(0.0, "the shortest time before the report", low=0, high=10**8),
    "patience_seconds": number(86_400.0, "the longest time before the report", low=0.1, high=10**8),
    "mirrored_share": number(1.0, "the fraction of requests that are copied", low=0, high=1),
    "confidence": number(0.95, "of the intervals in the report, at any time", low=0.5, high=1, strict=True),
}


@final
@dataclass(frozen=True)
class Shadow:
    """``figures``: what was counted; at the end ``report``: an arm's figures by its name."""

    release: Release

    def begin(self) -> State:
        """Nothing counted."""
        return {"figures": {}, "seconds": 0.0}

    def routing(self, state: State) -> Routing:
        """Everybody is the champion's; the others get copies."""
        names = self.release.names
        return Routing(
            everything_to(CHAMPION, names), mirrors=names[1:], mirrored_share=self.release.options["mirrored_share"]
        )

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """Count until there is enough for the report."""
        options, names = self.release.options, self.release.names
        figures = {name: (figures_of(state, name) + evidence.of(name)).to_dict() for name in names}
        state = {**state, "figures": figures, "seconds": state["seconds"] + evidence.seconds}
        fewest = min(figures_of(state, name).requests for name in names[1:])
        enough = fewest >= options["requests"] and state["seconds"] >= options["seconds"]
        if enough or state["seconds"] > options["patience_seconds"]:
            report = {name: self.report(state, name) for name in names}
            return finished({**state, "report": report}, "; ".join(_words(name, report[name]) for name in names[1:]))
        return state, Decision(Action.HOLD, f"{fewest} of {options['requests']} copies answered")

    def report(self, state: State, name: str) -> dict[str, Any]:
        """What is known of an arm: counts; errors and agreement, each between its bounds; latencies, seconds."""
        found, alpha = figures_of(state, name), 1 - self.release.options["confidence"]
        return {
            "requests": found.requests,
            "errors": [*bounds(found.requests, found.errors, alpha=alpha)],
            "agreement": [*bounds(found.compared, found.agreed, alpha=alpha)] if name != CHAMPION else None,
            "latency": {f"p{q}": quantile(found.latency_counts, q / 100) for q in (50, 95, 99)},
        }


def _words(name: str, report: dict[str, Any]) -> str:
    (low, high), (few, many) = report["agreement"], report["errors"]
    return f"{name} agrees in {low:.1%} to {high:.1%}, fails in {few:.1%} to {many:.1%} of {report['requests']} copies"
