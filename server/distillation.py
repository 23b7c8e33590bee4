"""Distillation: a small model learns from the answers of a larger one, on the server's public examples.

Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015. With temperature T, the teacher's soft
labels p_T = softmax(v / T) and the student's q_T = softmax(z / T), a step goes down

    (1 - h) T^2 KL(p_T || q_T) + h CE(y, q_1)

T^2 keeps the gradients of both terms of one size whatever T is (section 2); h is small. For a regression, which has no
labels, the answer of the teacher takes the place of the target: both squared errors are in units of its deviation.

Public examples are few, and what a teacher says of an example needs no true label. So pictures are mixed in pairs, anew
in every batch, and the teacher is asked about the mixture that the student sees (Beyer et al., Knowledge distillation:
a good teacher is patient and consistent, CVPR 2022); then h = 0. A mixture of two rows or texts would be none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.models import tasks
from fl.models.arrays import to_inputs, to_targets
from fl.models.evaluate import evaluating, one_thread
from fl.seeds import generator
from fl.signature import Signature
from server.seeding import fit

TRUE_LABELS = 0.1
"""h: what the true labels weigh beside the teacher's, where examples are not mixed."""


def distil(
    student: nn.Module,
    teacher: nn.Module,
    examples: Examples,
    signature: Signature,
    *,
    epochs: int,
    temperature: float,
    batch_size: int,
    learning_rate: float,
    seed: int,
    zeros_stay: bool = False,
) -> None:
    """Train ``student`` in place to answer ``examples`` as ``teacher`` does; both take what ``signature`` says.

    temperature   above 0; makes no difference to a regression
    zeros_stay    weights (not biases) that are zero stay zero: those of a pruned student

    Raises BadInput where there is no example to learn from, or an option is out of its range.
    """
    for key, got in (("--temperature", temperature), ("--batch-size", batch_size), ("--learning-rate", learning_rate)):
        if not got > 0:
            raise BadInput(key=key, got=got, allowed="above 0")
    if not len(examples):
        allowed = "a run with a dataset.public_fraction that leaves some, or --epochs 0 for a pruned model as it is"
        raise BadInput(key="version", got="no public example to learn from", allowed=allowed)
    x, y = to_inputs(examples.x, signature), to_targets(examples.y, signature)
    pictures, draws = len(signature.input_shape) == 3, generator(seed, purpose="distillation/mix")
    matrices = [p for p in student.parameters() if p.requires_grad and p.dim() > 1]
    stay = [(p != 0).to(p.dtype) for p in matrices] if zeros_stay else []

    def taught(inputs: Tensor) -> Tensor:
        with evaluating(teacher):
            answers: Tensor = teacher(inputs)
        return answers

    def loss_of(batch: Tensor) -> Tensor:
        if pictures:
            inputs = mixed(x, batch, draws)
            return soft_loss(signature, student(inputs), taught(inputs), temperature=temperature)
        outputs = student(x[batch])
        soft = soft_loss(signature, outputs, taught(x[batch]), temperature=temperature)
        return (1 - TRUE_LABELS) * soft + TRUE_LABELS * tasks.loss(signature, outputs, y[batch])

    def forget() -> None:
        for parameter, mask in zip(matrices, stay, strict=bool(stay)):
            parameter.mul_(mask)

    with one_thread():
        fit(
            student,
            loss_of,
            num_examples=len(y),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            after_step=forget,
        )


def mixed(x: Tensor, batch: Tensor, draws: Generator) -> Tensor:
    """The examples ``batch`` of ``x``, each mixed with another one in a share from 0 to 1, both drawn."""
    share = torch.from_numpy(draws.random(len(batch))).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    other = torch.from_numpy(draws.integers(len(x), size=len(batch)))
    return share * x[batch] + (1 - share) * x[other]


def soft_loss(signature: Signature, outputs: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """The mean of T^2 KL(p_T || q_T) over examples and positions; of a regression, of squared differences.

    outputs, taught   logits of the student and of the teacher, (..., classes), or predictions of any shape
    """
    if signature.task == "regression":
        return ((outputs - taught.reshape(outputs.shape)) / signature.target_std).square().mean()
    theirs, own = (F.log_softmax(logits / temperature, dim=-1) for logits in (taught, outputs))
    return temperature**2 * F.kl_div(own, theirs, reduction="none", log_target=True).sum(dim=-1).mean()
