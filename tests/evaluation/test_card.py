"""The model card and the plots: every field has a value or a reason, whatever is known."""

import re
import xml.dom.minidom
from typing import Any

import pytest

from fl.evaluation.card import Card, Field, card, html, markdown
from fl.evaluation.plots import plots
from fl.signature import Signature

TABLE = Signature("classification", (2,), "float32", 2, feature_names=("a", "b"), class_names=("well", "ill"))
VERSION: dict[str, Any] = {
    "model": {"target": "fl.models.logistic.build", "arguments": {}},
    "dataset": {"name": "ills"},
    "metrics": {"accuracy": 0.75, "loss": None},
    "model_sha256": "ab" * 32,
    "round": 3,
    "seed": 1,
}
EVALUATE: dict[str, Any] = {
    "confidence": 0.95,
    "examples": {"count": 40, "origin": "the server's test set", "chose_the_version": "accuracy chose it"},
    "metrics": {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}},
    "calibration": {"answered": {"error": 0.05, "sure": [0.2, None, 0.9], "came_true": [0.3, None, 1.0]}},
    "classes": {
        "each": [
            {"name": "well", "examples": 20, "precision": None, "recall": 0.0, "f1": 0.0},
            {"name": "ill", "examples": 20, "precision": 0.5, "recall": 1.0, "f1": 0.7},
        ],
        "confusion": [[0, 20], [0, 20]],
    },
    "slices": [
        {"by": "a", "name": "a is 1", "examples": 20, "metric": "accuracy", "value": 0.6, "low": 0.5, "high": 0.7}
    ],
    "worst_slice": {"name": "a is 1", "metric": "accuracy", "value": 0.6, "low": 0.5, "high": 0.7},
    "fairness": {"absent": "no column was named"},
    "robustness": [
        {"kind": "noise", "metric": "accuracy", "unchanged": 0.8, "values": [{"strength": 0.1, "value": 0.7}]},
        {"kind": "adversarial", "absent": "trees have no gradient"},
    ],
    "explanation": {
        "permutation": [{"input": "a", "importance": 0.2, "deviation": 0.01}],
        "integrated_gradients": {"absent": "Captum is not installed"},
    },
    "champion": {"absent": "there is none"},
    "resources": {"parameters": 10, "bytes": 40},
    "measured": {"latency_seconds": 0.001},
}


def fields(made: Card) -> dict[str, Field]:
    return {one.name: one for section in made.sections.values() for one in section}


@pytest.mark.parametrize(
    "evidence",
    [{}, {"evaluate": EVALUATE}, {"accept": {"accepted": True, "override": None}}, {"understand": {"owner": "me"}}],
    ids=lambda evidence: "-".join(evidence) or "nothing",
)
def test_no_field_is_empty_without_a_reason(evidence):
    made = card(VERSION, TABLE, evidence, identity={"version": "a:3", "parent": None}, config={})
    assert all(bool(one.value) != bool(one.why_not) for one in fields(made).values())
    for text in (markdown(made), html(made)):
        assert not re.search(r"\| *\|\n(?!\|---)", text) and not re.search(r"<td>(<td>|</tr>|<tr>)", text)
        assert "None" not in text and "none: </i>" not in text


def test_a_field_with_neither_or_both_cannot_be():
    for value, why in (("", ""), ("x", "y")):
        with pytest.raises(ValueError, match="needs a value, or a reason"):
            Field("size", value, why)


def test_what_is_known_is_told_and_what_is_not_says_who_makes_it():
    made = fields(card(VERSION, TABLE, {"evaluate": EVALUATE}))
    assert made["accuracy"].value == "0.8 (95% from 0.7 to 0.9)" and made["speed"].value.startswith("1 ms")
    assert made["class by class"].value.startswith("well: precision none, recall 0 (20)")
    assert made["worst slice"].value == "a is 1: accuracy 0.6 (95% from 0.5 to 0.7)"
    assert made["adversarial"].why_not == "trees have no gradient" and made["shift"].why_not
    assert made["licence"].why_not == "there is no evidence ingest: fl lifecycle makes it"
    assert made["verdict"].why_not == "there is no evidence accept: fl accept makes it"
    bare = fields(card(VERSION, TABLE, {}))
    assert bare["accuracy"].value == "0.75" and bare["loss"].why_not == "it was no finite number"
    said = fields(card(VERSION, TABLE, {"understand": {"owner": "me", "objective": None}}))
    assert said["owner"].value == "me" and said["objective"].why_not == "nobody said: business.objective"


def test_a_refusal_and_what_overrode_it_are_told():
    verdict = {
        "accepted": False,
        "reasons": ["accuracy at least 0.9: 0.8", "too large"],
        "held": [],
        "criteria": {"success": {"accuracy": 0.9}, "constraints": {"size_bytes": 10}},
        "override": {"reason": "a | demo", "by": "ann", "time": "today"},
    }
    made = card(VERSION, TABLE, {"accept": verdict})
    found = fields(made)
    assert found["verdict"].value == "refused" and found["asked for"].value == "accuracy 0.9, size_bytes 10"
    assert (
        found["not fulfilled"].value == "accuracy at least 0.9: 0.8; too large"
        and found["fulfilled"].value == "nothing"
    )
    assert found["goes out nevertheless"].value == "a | demo (ann today)"
    assert r"a \| demo" in markdown(made)


def test_nothing_in_a_page_is_taken_for_html():
    text = html(card({**VERSION, "dataset": {"name": "<script>x</script>"}}, TABLE, {}))
    assert "<script" not in text and "&lt;script&gt;" in text


def test_plots_are_svg_and_have_the_same_bytes_for_the_same_numbers():
    rounds = [{"round": r, "metrics": {"accuracy": 0.5 + r / 10, "loss": None}, "chosen": r == 2} for r in range(3)]
    drawn, again = (plots(EVALUATE, rounds) for _ in range(2))
    assert drawn == again
    assert (
        list(drawn)
        == [
            *("loss over rounds", "accuracy over rounds", "calibration", "which class was answered for which"),
            *("slices", "robustness", "which inputs matter"),
        ][1:]
    )
    for svg in drawn.values():
        assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
    assert "a is 1 (20)" in drawn["slices"] and "noise" in drawn["robustness"]
    assert plots({}, []) == {}
