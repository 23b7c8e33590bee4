"""Feature flag: who sees the challenger is said by a flag that operators change, and not by this program.

The flag is evaluated a user (fl/deployment/flags.py) and says

    false          the champion; so does a flag that cannot be evaluated
    true           the challenger, or where another policy sits behind the flag whatever that one says
    an arm's name  that arm

The policy itself only watches for harm, as a last resort, unless another one behind the flag does. It never promotes by
itself: `fl deploy promote` does, or the policy behind the flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, final

from fl.decisions import Action, Decision
from fl.deployment.health import HEALTH, harms, judged, watched, watching
from fl.deployment.options import Option, Options, text
from fl.releases import CHALLENGER, CHAMPION, Evidence, Policy, Release, Routing, State, everything_to, rolled_back

Flag: TypeAlias = Callable[[str, str | None], bool | str]
"""From a user and the request's context to what the flag says."""

OPTIONS: Options = {
    "flag": text("challenger", "the key of the flag"),
    "source": text(
        "memory",
        "a flag file of flagd (JSON or YAML), or memory: one flag with the value of `value`",
        allowed="memory or FILE",
    ),
    "value": Option(
        False, "what the flag in memory says", "true, false or an arm", lambda v: isinstance(v, bool | str)
    ),
    "then": text("", "the policy behind the flag, if any"),
    "then_options": Option({}, "its options", "a mapping", lambda value: isinstance(value, dict)),
    **HEALTH,
}


@final
@dataclass(frozen=True)
class FeatureFlag:
    """``behind``: the state of the policy behind the flag, if there is one."""

    release: Release
    flag: Flag
    behind: Policy | None

    def begin(self) -> State:
        """As the policy behind it begins."""
        state = watching(self.release.options)
        return {**state, "behind": self.behind.begin()} if self.behind else state

    def routing(self, state: State) -> Routing:
        """The flag first, then the policy behind it; without one the champion, for whom the flag is not asked."""
        if self.behind is None:
            return Routing(everything_to(CHAMPION, self.release.names), flagged=True)
        inner = self.behind.routing(state["behind"])
        return replace(inner, flagged=True)

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """What the policy behind it says; else watch for harm."""
        if self.behind is not None:
            inner, decision = self.behind.step(state["behind"], evidence)
            ended = {key: inner[key] for key in ("ended", "winner") if key in inner}
            return {**state, "behind": inner, **ended}, decision
        state = watched(state, evidence, self.release.names)
        told = []
        for name in self.release.names[1:]:
            verdict, why = judged(harms(state, name, self.release.options))
            if verdict == "worse":
                return rolled_back(state, f"{name} {why}")
            told.append(f"{name} {why}")
        return state, Decision(Action.HOLD, "; ".join(told))

    def arm_for(self, user: str, context: str | None) -> str | None:
        """The arm that the flag names; None where it is on and a policy behind it decides."""
        said = self.flag(user, context)
        if said is True:
            return None if self.behind else CHALLENGER
        return said if isinstance(said, str) and said in self.release.names else CHAMPION
