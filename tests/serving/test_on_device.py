"""A device answers by what it has, picks versions up between answers, and goes back to the one before at once."""

from __future__ import annotations

import numpy as np
import pytest

from fl.parameters import Parameters
from fl.serving.on_device import Device, Global, Held


def version(number: int, value: float | None = None) -> Global:
    parameters = {"w": np.array(float(number) if value is None else value)}
    return Global(number, f"run:{number}", f"hash {number}", parameters)


def times(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    return x * parameters["w"]


X = np.ones((1, 1))


def own(value: float) -> Parameters:
    return {"w": np.array(value)}


def said(device: Device) -> tuple[float, str, bool]:
    answer = device.answer(X)
    return float(answer.outputs[0, 0]), answer.base.name, answer.personal


def test_a_first_version_answers_at_once_and_then_the_devices_own_model_made_from_it() -> None:
    device = Device(times)
    with pytest.raises(ValueError, match="no version has come yet"):
        device.answer(X)
    device.offer(version(3))
    assert said(device) == (3.0, "run:3", False)
    assert device.wanted == version(3)
    device.take(version(3), own(3.5))
    assert said(device) == (3.5, "run:3", True) and device.wanted is None


def test_the_model_before_answers_until_the_new_one_is_ready() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(2))
    assert said(device) == (1.5, "run:1", True)
    device.take(version(2), own(2.5))
    assert said(device) == (2.5, "run:2", True)


def test_what_was_made_of_a_version_that_is_no_longer_wanted_is_left_alone() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(2))
    device.offer(version(3))
    device.take(version(2), own(2.5))
    assert said(device) == (1.5, "run:1", True) and device.wanted == version(3)


def test_the_version_before_comes_back_from_the_next_answer_on() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(2))
    device.take(version(2), own(2.5))
    device.offer(version(1))
    assert said(device) == (1.5, "run:1", True) and device.wanted is None


def test_a_version_that_cannot_be_specialised_answers_itself_and_is_not_tried_again() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(2))
    device.take(version(2), None)
    assert said(device) == (2.0, "run:2", False) and device.wanted is None
    device.offer(version(2))
    assert device.wanted is None


def test_no_user_is_left_without_an_answer_by_a_model_that_gives_no_numbers() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(2))
    device.take(version(2), own(np.nan))
    answer = device.answer(X)
    assert (answer.base.name, answer.fell_back) == ("run:1", True) and float(answer.outputs[0, 0]) == 1.5
    alone = Device(times, held=Held(version(1), own(np.inf)))
    with pytest.raises(ValueError, match="gives finite numbers"):
        alone.answer(X)


def test_the_same_version_again_changes_nothing() -> None:
    device = Device(times, held=Held(version(1), own(1.5)))
    device.offer(version(1))
    assert device.wanted is None and said(device) == (1.5, "run:1", True)
