"""A signature is public, plain and comes back from JSON as it was, also from a later release's."""

from __future__ import annotations

import json

import pytest

from fl.errors import BadInput
from fl.signature import TASKS, Signature

FULL = Signature(
    task="regression",
    input_shape=(3,),
    input_dtype="float64",
    num_outputs=1,
    input_scale=0.5,
    feature_names=("age", "bmi", "sex"),
    medians=(50.0, 25.0, 1.0),
    indicators=(1,),
    feature_mean=(0.1, 0.2, 0.3),
    feature_std=(1.0, 2.0, 3.0),
    target_mean=4.0,
    target_std=2.0,
)


def test_it_comes_back_from_json():
    assert Signature.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_what_a_later_release_adds_is_ignored_and_what_is_left_out_has_its_default():
    plain = {"task": "classification", "input_shape": [1, 28, 28], "input_dtype": "float32", "num_outputs": 10}
    assert Signature.from_dict({**plain, "of the future": [1]}) == Signature(
        "classification", (1, 28, 28), "float32", 10
    )


def test_it_is_a_key_of_dictionaries():
    assert {FULL: 1}[Signature.from_dict(FULL.to_dict())] == 1


def test_a_task_there_is_not_is_named():
    with pytest.raises(BadInput) as raised:
        Signature("ranking", (1,), "float32", 1)
    assert str(raised.value) == f"dataset.task: got ranking, allowed: {', '.join(TASKS)}"


def test_a_model_answers_something():
    with pytest.raises(BadInput, match="dataset: got 0 outputs"):
        Signature("classification", (1,), "float32", 0)
