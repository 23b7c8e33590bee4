"""The acceptance test as a table: evidence and criteria in, a verdict with every reason out."""

from typing import Any

import pytest

from fl.decisions import Action
from fl.errors import BadInput
from fl.evaluation.acceptance import Verdict, accept, criteria, known_criteria


def evidence(**more: Any) -> dict[str, Any]:
    found = {
        "metrics": {
            "accuracy": {"value": 0.84, "low": 0.8, "high": 0.88},
            "loss": {"value": 0.4, "low": None, "high": None},
        },
        "resources": {"bytes": 7432},
        "measured": {"latency_seconds": 0.002},
        "clients": {"worst": {"client": 3, "metric": "accuracy", "value": 0.7, "examples": 12}},
        "champion": {
            "version": "old:9",
            "metric": "accuracy",
            "value": 0.84,
            "other": 0.83,
            "worse_p": 0.7,
            "test": "McNemar, exact",
        },
    }
    return {**found, **more}


@pytest.mark.parametrize(
    "business, more, words",
    [
        ({}, {}, None),
        ({"success": {"accuracy": 0.84, "loss": 0.4}}, {}, None),
        ({"success": {"accuracy": 0.85}}, {}, "accuracy at least 0.85: 0.84 (0.8 to 0.88)"),
        ({"success": {"loss": 0.3}}, {}, "loss at most 0.3: 0.4"),
        ({"success": {"r2": 0.3}}, {}, "r2 at least 0.3: it was not measured, only accuracy, loss"),
        ({"constraints": {"size_bytes": 7432}}, {}, None),
        ({"constraints": {"size_bytes": 7431}}, {}, "size_bytes at most 7431: 7432 bytes"),
        ({"constraints": {"latency_seconds": 0.001}}, {}, "latency_seconds at most 0.001: 0.002 s"),
        ({"constraints": {"latency_seconds": 1}}, {"measured": {}}, "it was not measured"),
        ({"constraints": {"epsilon": 3}}, {}, "nobody accounted for what was spent"),
        ({"constraints": {"epsilon": 3}}, {"privacy": {"absent": "no noise"}}, "epsilon at most 3: no noise"),
        ({"constraints": {"epsilon": 3}}, {"privacy": {"epsilon": 2.5, "delta": 1e-5}}, None),
        ({"constraints": {"epsilon": 3}}, {"privacy": {"epsilon": 3.5, "delta": 1e-5}}, "3.5 spent, at delta 1e-05"),
        ({"constraints": {"fairness_floor": 0.7}}, {}, None),
        ({"constraints": {"fairness_floor": 0.71}}, {}, "client 3 is served worst, accuracy 0.7 on 12 examples"),
        ({"constraints": {"fairness_floor": 0.1}}, {"clients": {"absent": "no store"}}, "not asked (no store)"),
        ({"no_worse_than_champion": True}, {}, None),
        ({"no_worse_than_champion": True}, {"champion": {"absent": "there is none"}}, None),
    ],
)
def test_one_criterion(business, more, words):
    verdict = accept(evidence(**more), criteria(business))
    if words is None:
        assert not verdict.reasons and verdict.decision.action is Action.GO_ON
    else:
        (reason,) = verdict.reasons
        assert words in reason and verdict.decision.action is Action.REFUSE


def test_a_model_that_a_paired_test_finds_worse_is_refused():
    worse = {**evidence()["champion"], "value": 0.7, "worse_p": 0.01}
    (reason,) = accept(evidence(champion=worse), criteria({"no_worse_than_champion": True})).reasons
    assert "0.7 against 0.83" in reason and "p 0.01" in reason


def test_every_reason_is_told_and_what_held_too():
    asked = {"success": {"accuracy": 0.9, "loss": 0.5}, "constraints": {"size_bytes": 1, "epsilon": None}}
    verdict = accept(evidence(), criteria(asked))
    assert len(verdict.reasons) == 2 and len(verdict.held) == 1
    assert all(reason in verdict.decision.reason for reason in verdict.reasons)
    assert verdict.to_dict() == {
        "accepted": False,
        "reasons": list(verdict.reasons),
        "held": list(verdict.held),
        "override": None,
    }
    assert Verdict((), ()).decision.reason == "accepted: no success criterion is set"


def test_criteria_survive_their_evidence_and_nobody_measures_nonsense():
    asked = criteria({"success": {"accuracy": 0.9}, "constraints": {"size_bytes": 10}, "no_worse_than_champion": True})
    assert criteria(asked.to_dict()) == asked and asked.any and not criteria({}).any
    assert known_criteria([{"train": {}}, {"accept": {"criteria": asked.to_dict()}}]) == asked
    goal = {"success": [{"metric": "accuracy", "threshold": 0.9}], "constraints": {"size_bytes": 10}}
    assert known_criteria([{"understand": {**goal, "no_worse_than_champion": True}}]) == asked
    assert known_criteria([{}, {"train": {}}]) is None
    with pytest.raises(BadInput, match=r"business\.success\.acc"):
        criteria({"success": {"acc": 1}})
