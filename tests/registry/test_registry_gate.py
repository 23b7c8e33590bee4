"""Only an accepted version becomes champion where success criteria are set."""

import pytest

from fl.errors import BadInput, NotAccepted

GOAL = {"success": [{"metric": "accuracy", "threshold": 0.9}], "constraints": {"size_bytes": None}}


def test_without_criteria_every_version_may_be_champion(registry, grow):
    grow("a", 0.1, 0.2)
    registry.attach("a:1", "understand", {"success": [], "constraints": {"size_bytes": None}})
    assert registry.objections("a:0") == ()
    registry.promote("a:0")
    with pytest.raises(BadInput, match="where nothing stands against a:1"):
        registry.promote("a:1", override="to be sure")
    assert registry.evidence("a:1").keys() == {"understand"}


def test_a_version_that_was_never_held_against_its_criteria_is_refused(registry, grow):
    grow("a", 0.1, 0.2)
    registry.attach("a:1", "understand", GOAL)
    for name in ("a:1", "a:0"):  # of one run: trained for the same
        with pytest.raises(NotAccepted, match="never held against its success criteria"):
            registry.promote(name)
    assert registry.crown_if_vacant("a") is None and registry.aliases() == {}
    registry.promote("a:1", "challenger")  # to be tried out is not to go out
    registry.attach("a:1", "accept", {"accepted": True, "reasons": []})
    assert registry.crown_if_vacant("a").name == "a:1"


def test_criteria_of_an_acceptance_count_for_the_run_and_no_other(registry, grow):
    grow("a", 0.1, 0.2)
    grow("b", 0.3)
    asked = {"success": {"accuracy": 0.9}, "constraints": {}}
    registry.attach("a:0", "accept", {"accepted": True, "reasons": [], "criteria": asked})
    registry.promote("a:0")
    registry.promote("b:0")
    with pytest.raises(NotAccepted):
        registry.promote("a:1")


def test_a_refusal_is_told_with_every_reason_and_an_override_is_recorded(registry, grow):
    grow("a", 0.1)
    registry.attach("a:0", "accept", {"accepted": False, "reasons": ["too small", "too slow"]})
    with pytest.raises(NotAccepted, match="a:0 is not accepted: too small; too slow") as refused:
        registry.promote("a:0")
    assert refused.value.reasons == ("too small", "too slow") and refused.value.exit_status == 4
    with pytest.raises(BadInput, match="--override"):
        registry.promote("a:0", override=" ")
    registry.promote("a:0", reason="demo", by="ann", override="shown at the fair")
    kept = registry.evidence("a:0")["accept"]
    assert kept["reasons"] == ["too small", "too slow"] and not kept["accepted"]
    assert kept["override"]["reason"] == "shown at the fair" and kept["override"]["by"] == "ann"
    assert kept["override"]["time"].startswith("20") and registry.version("champion").name == "a:0"
    registry.attach("a:0", "accept", {"accepted": False, "reasons": ["too small"], "override": None})
    assert registry.objections("a:0") == ("too small",)  # a new verdict ends what overrode the old one
