"""Releases on disk: one open an alias, one leader, and an end that moves the alias or leaves it."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from fl.decisions import Action, Decision
from fl.errors import BadInput, CorruptFile
from fl.registry import releases
from fl.releases import CHAMPION, Evidence, Figures, Routing, everything_to, promoted, rolled_back


@dataclass(frozen=True)
class AfterRequests:
    """A policy for tests: promotes after ``limit`` requests of the challenger without an error, and rolls back else."""

    limit: int

    def begin(self):
        return {"requests": 0}

    def routing(self, state):
        return Routing(everything_to(state.get("winner", CHAMPION), (CHAMPION, "challenger")))

    def step(self, state, evidence):
        state = {"requests": state["requests"] + evidence.of("challenger").requests}
        if evidence.of("challenger").errors:
            return rolled_back(state, "an error")
        if state["requests"] >= self.limit:
            return promoted(state, "challenger", "enough")
        return state, Decision(Action.HOLD, "too few")

    def arm_for(self, state, user, context):
        return None


POLICY = AfterRequests(10)


def counted(requests: int, errors: int = 0) -> Evidence:
    return Evidence({"challenger": Figures(requests=requests, errors=errors)}, since=0.0, now=1.0)


@pytest.fixture
def folder(registry, grow):
    grow("a", 0.1, 0.2, 0.3)
    registry.promote("a:0")
    return registry.folder


def ordered(folder, *versions: str):
    return releases.order(folder, policy="canary", versions=versions or ("a:1",), options={"steps": [1]}, by="ann")


def test_what_was_ordered_is_read_back(folder, registry):
    made = ordered(folder, "a:1", "a:2")
    assert made.id == "canary-1" and made.names == ("champion", "challenger", "challenger-2")
    assert [arm.version for arm in made.arms] == [registry.version(f"a:{n}").hash for n in range(3)]
    assert releases.release(folder, "canary-1") == made and releases.open_releases(folder) == [made]


@pytest.mark.parametrize(
    "versions, words",
    [(("a:0",), "other than champion, which is a:0"), (("a:1", "a:1"), "each once"), (("a:9",), "rounds of a: 0 to 2")],
)
def test_a_release_that_cannot_be_is_refused_and_leaves_nothing(folder, versions, words):
    with pytest.raises(BadInput, match=words):
        ordered(folder, *versions)
    assert releases.releases(folder) == []


def test_an_alias_has_one_open_release(folder):
    first = ordered(folder)
    with pytest.raises(BadInput, match="canary-1 is open"):
        ordered(folder, "a:2")
    releases.ask(folder, first.id, "abort")
    releases.advance(folder, first, POLICY, POLICY.begin(), counted(0))
    assert ordered(folder, "a:2").id == "canary-2"


def test_a_promotion_moves_the_alias_and_is_recorded(folder, registry):
    made, state = ordered(folder), POLICY.begin()
    state, decision = releases.advance(folder, made, POLICY, state, counted(4))
    assert decision.action is Action.HOLD and registry.version("champion").name == "a:0"
    assert releases.resumed(folder, made, POLICY) == {"requests": 4}  # a restarted router goes on
    state, decision = releases.advance(folder, made, POLICY, state, counted(6))
    assert decision.action is Action.PROMOTE and registry.version("champion").name == "a:1"
    assert releases.ending(folder, made.id)["ended"] == "promoted" and releases.open_releases(folder) == []
    assert [line["action"] for line in releases.decisions(folder, made.id)] == ["promote"]
    move = registry.alias_moves("champion")[-1]
    assert move["by"] == "ann" and move["reason"] == "canary-1: enough"


def test_evidence_alone_may_be_kept_later_and_a_decision_never(folder):
    made = ordered(folder)
    state, _ = releases.advance(folder, made, POLICY, POLICY.begin(), counted(4), keep=False)
    assert state == {"requests": 4} and releases.read_state(folder, made.id) is None
    releases.advance(folder, made, POLICY, state, counted(6), keep=False)
    assert releases.read_state(folder, made.id).decision.action is Action.PROMOTE
    assert releases.ending(folder, made.id)["ended"] == "promoted"


def test_a_roll_back_leaves_the_alias(folder, registry):
    made = ordered(folder)
    state, decision = releases.advance(folder, made, POLICY, POLICY.begin(), counted(1, errors=1))
    assert decision.action is Action.ROLL_BACK and registry.version("champion").name == "a:0"
    assert releases.ending(folder, made.id)["winner"] == "champion"
    assert POLICY.routing(state).shares == {"champion": 1.0, "challenger": 0.0}


def test_a_version_that_was_refused_does_not_become_champion(folder, registry):
    made = ordered(folder)
    registry.attach("a:1", "accept", {"accepted": False, "reasons": ["too slow"]})
    _, decision = releases.advance(folder, made, POLICY, POLICY.begin(), counted(10))
    assert decision.action is Action.ROLL_BACK and "a:1 is not accepted: too slow" in decision.reason
    assert registry.version("champion").name == "a:0" and releases.ending(folder, made.id)["ended"] == "rolled back"


def test_an_alias_that_somebody_moved_meanwhile_is_left_alone(folder, registry):
    made = ordered(folder)
    registry.promote("a:2")
    _, decision = releases.advance(folder, made, POLICY, POLICY.begin(), counted(10))
    assert decision.action is Action.ROLL_BACK and "was moved to a:2" in decision.reason
    assert registry.version("champion").name == "a:2"


def test_a_leader_that_died_before_the_alias_moved_is_made_up_for(folder, registry):
    made = ordered(folder)
    releases.write_state(folder, made.id, *promoted({}, "challenger", "enough"))
    state = releases.resumed(folder, made, POLICY)
    _, decision = releases.advance(folder, made, POLICY, state, counted(0))
    assert decision == Decision(Action.PROMOTE, "enough") and registry.version("champion").name == "a:1"


def test_an_operator_pauses_goes_on_and_promotes(folder, registry):
    made = ordered(folder)
    releases.ask(folder, made.id, "pause", by="bob", reason="lunch")
    state, decision = releases.advance(folder, made, POLICY, POLICY.begin(), counted(10))
    assert decision.action is Action.HOLD and "pause by bob: lunch" in decision.reason and state == {"requests": 0}
    releases.ask(folder, made.id, "go-on")
    state, _ = releases.advance(folder, made, POLICY, state, counted(1))
    assert state == {"requests": 1}
    releases.ask(folder, made.id, "promote", by="bob")
    _, decision = releases.advance(folder, made, POLICY, state, counted(0))
    assert decision.action is Action.PROMOTE and registry.version("champion").name == "a:1"
    with pytest.raises(BadInput, match="which was promoted"):
        releases.ask(folder, made.id, "abort")


TRY_TO_LEAD = """
import sys
from pathlib import Path
from fl.registry import releases
with releases.lead(Path(sys.argv[1]), sys.argv[2]) as leads:
    print(leads)
"""


def test_one_process_leads(folder):
    made = ordered(folder)
    with releases.lead(folder, made.id) as leads:
        assert leads
        other = [sys.executable, "-c", TRY_TO_LEAD, str(folder), made.id]
        assert subprocess.run(other, capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"
    with releases.lead(folder, made.id) as leads:
        assert leads


def test_versions_on_trial_keep_their_parameters(folder, registry):
    made = ordered(folder, "a:1")
    assert registry.prune("a", "last:1") == []
    releases.ask(folder, made.id, "abort")
    releases.advance(folder, made, POLICY, POLICY.begin(), counted(0))
    assert [version.name for version in registry.prune("a", "last:1")] == ["a:1"]


def test_an_altered_state_is_found(folder):
    made = ordered(folder)
    releases.advance(folder, made, POLICY, POLICY.begin(), counted(4))
    path = folder / "releases" / made.id / "state.json"
    path.write_text(path.read_text().replace('"requests": 4', '"requests": 9'))
    with pytest.raises(CorruptFile, match="another hash"):
        releases.resumed(folder, made, POLICY)


@pytest.mark.parametrize("unknown", ["canary-7", "../versions"])
def test_an_unknown_release_is_bad_input(folder, unknown):
    ordered(folder)
    with pytest.raises(BadInput, match="canary-1"):
        releases.release(folder, unknown)
