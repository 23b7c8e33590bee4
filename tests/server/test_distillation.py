"""Distillation: a student that answers like its teacher, by the equation of the paper."""

import numpy as np
import pytest
import torch

from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.parameters import sha256
from fl.signature import Signature
from server.distillation import distil, mixed, soft_loss

ROWS = Signature("classification", (6,), "float32", 3)
PICTURES = Signature("classification", (1, 4, 4), "float32", 3)
NUMBER = Signature("regression", (6,), "float32", 1, target_std=2.0)
HOW = {"epochs": 30, "temperature": 2.0, "batch_size": 16, "learning_rate": 0.05, "seed": 1}


def model(signature: Signature, hidden: list[int], seed: int):
    return build_model(target="fl.models.mlp.build", arguments={"hidden": hidden}, signature=signature, seed=seed)


def examples(signature: Signature, count: int = 120) -> Examples:
    random = np.random.default_rng(2)
    x = random.normal(size=(count, *signature.input_shape)).astype(np.float32)
    y = random.normal(size=count) if signature is NUMBER else random.integers(0, 3, count)  # nothing to do with x
    return Examples(x, y)


def apart(one, other, x, signature) -> float:
    """How far two models' answers are, but for a constant, which no probability tells."""
    found = [predict(each, x, signature) for each in (one, other)]
    if signature is not NUMBER:
        found = [each - each.mean(axis=1, keepdims=True) for each in found]
    return float(np.abs(found[0] - found[1]).mean())


@pytest.mark.parametrize("signature", [ROWS, PICTURES, NUMBER])
def test_a_student_learns_its_teacher_s_answers_and_not_the_labels(signature):
    teacher, student = model(signature, [24], seed=1), model(signature, [8], seed=2)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2.0)
    new = examples(signature, 400).x[200:]
    before = apart(student, teacher, new, signature)
    distil(student, teacher, examples(signature), signature, **HOW)
    assert apart(student, teacher, new, signature) < before / 2
    again = model(signature, [8], seed=2)
    distil(again, teacher, examples(signature), signature, **HOW)
    assert sha256(parameters_of(again)) == sha256(parameters_of(student))


def test_weights_that_are_zero_stay_zero_and_the_others_learn():
    teacher, student = model(ROWS, [8], seed=1), model(ROWS, [8], seed=2)
    with torch.no_grad():
        student[1].weight[::2] = 0.0
    before = parameters_of(student)
    distil(student, teacher, examples(ROWS), ROWS, **HOW, zeros_stay=True)
    after = parameters_of(student)
    assert not after["1.weight"][::2].any() and np.all(after["1.weight"][1::2] != before["1.weight"][1::2])
    distil(student, teacher, examples(ROWS), ROWS, **HOW)
    assert parameters_of(student)["1.weight"][::2].any()


def test_the_loss_is_that_of_the_paper():
    random = np.random.default_rng(0)
    outputs, taught = random.normal(size=(2, 5, 3))

    def softmax(logits):
        powers = np.exp(logits / 4.0)
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(taught), softmax(outputs)
    known = 16.0 * np.mean(np.sum(p * np.log(p / q), axis=1))
    found = soft_loss(ROWS, torch.from_numpy(outputs), torch.from_numpy(taught), temperature=4.0)
    assert float(found) == pytest.approx(known)
    assert float(soft_loss(ROWS, torch.from_numpy(taught), torch.from_numpy(taught), temperature=4.0)) == pytest.approx(
        0
    )
    numbers = torch.tensor([[1.0], [3.0]])
    assert float(soft_loss(NUMBER, numbers[:, 0], numbers + 2.0, temperature=1.0)) == pytest.approx(1.0)


def test_mixtures_lie_between_two_pictures():
    x = torch.tensor([0.0, 10.0, 20.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    found = mixed(x, torch.tensor([0, 1, 2] * 50), np.random.default_rng(0))
    assert found.min() >= 0 and found.max() <= 20 and len(found.unique()) > 50
    assert torch.equal(found[:, 0, 0, 0], found[:, 0, 1, 1])


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"temperature": 0.0}, "--temperature: got 0.0, allowed: above 0"),
        ({"learning_rate": -1.0}, "--learning-rate: got -1.0"),
        ({"batch_size": 0}, "--batch-size: got 0"),
    ],
)
def test_options_out_of_range(changes, told):
    with pytest.raises(BadInput, match=told):
        distil(model(ROWS, [8], 1), model(ROWS, [8], 2), examples(ROWS), ROWS, **(HOW | changes))


def test_nothing_to_learn_from():
    with pytest.raises(BadInput, match=r"no public example to learn from"):
        distil(model(ROWS, [8], 1), model(ROWS, [8], 2), examples(ROWS, 0), ROWS, **HOW)
