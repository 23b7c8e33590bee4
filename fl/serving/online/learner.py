"""A version's own module that learns from a stream, a chunk of events at a time, and can go back.

Every event is predicted before it is learned from, so that its error is an honest one (progressive validation). One in
HOLD_EVERY is held back and never learned from: on those and on the reference a candidate is judged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from fl.decisions import Action
from fl.errors import BadInput
from fl.metrics import Statistics, merge, values
from fl.models import tasks
from fl.models.arrays import GrowingModule, load_parameters, parameters_of, to_inputs, to_targets
from fl.models.evaluate import evaluate, one_thread, predict
from fl.parameters import Array, Parameters
from fl.seeds import process_wide
from fl.serving.online.events import Event, Refused
from fl.serving.online.guard import Guard
from fl.signature import Signature

HOLD_EVERY = 10
MOST_HELD = 500
MOST_STATES = 50
"""To go back to, a chunk each: they are whole models, in memory."""


@dataclass(frozen=True)
class Training:
    """How a chunk is learned: ``passes`` over it, ``batch_size`` events a step, plain SGD at ``learning_rate``."""

    learning_rate: float = 0.01
    batch_size: int = 10
    passes: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk.

    learned    events that the model has learned from, or holds back
    refused    those it has not, with the reason
    error      of the model before it, from 0 to 1; NaN where no event could be read
    back_to    events learned in all, of the state that it went back to; None: it went on
    reason     why it refused, or went back; empty otherwise
    """

    learned: int
    refused: tuple[Refused, ...]
    error: float
    back_to: int | None = None
    reason: str = ""


@dataclass(eq=False)
class Learner:
    """Learns by ``module``, filled already. ``reference`` are examples (inputs as stored, targets) it was tested on."""

    module: nn.Module
    signature: Signature
    reference: tuple[Array, Array]
    training: Training = field(default_factory=Training)
    guard: Guard = field(default_factory=Guard)
    seed: int = 0
    learned: int = 0
    _chunks: int = 0
    _held: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_HELD))
    _states: deque[tuple[int, Parameters, tuple[Event, ...]]] = field(default_factory=lambda: deque(maxlen=MOST_STATES))
    _progressive: Statistics = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.module, GrowingModule) or not any(p.requires_grad for p in self.module.parameters()):
            raise BadInput(key="VERSION", got="a model that no gradient trains", allowed="one that learns by gradients")
        self.guard.seed(self._errors(*self.reference).tolist())

    @property
    def parameters(self) -> Parameters:
        """Those of now."""
        return parameters_of(self.module)

    def progressive(self) -> dict[str, float]:
        """Metrics of events before they were learned, since this was asked last."""
        told, self._progressive = tasks.derived(values(self._progressive)), {}
        return told

    def tested(self) -> dict[str, float]:
        """Metrics on the reference."""
        return tasks.derived(values(evaluate(self.module, *self.reference, self.signature)))

    def learn(self, read: Sequence[Event | Refused]) -> Outcome:
        """Predict a chunk, judge it, learn from it, judge what was learned; and go back where that is told."""
        self._chunks += 1
        events = [one for one in read if isinstance(one, Event)]
        bad = tuple(one for one in read if isinstance(one, Refused))
        errors = self._errors(*_arrays(events)) if events else np.empty(0)
        error = float(errors.mean()) if events else float("nan")
        told = self.guard.before(bad=len(bad), errors=errors.tolist())
        if told.action is Action.REFUSE or not events:
            return Outcome(0, bad + _refused(events, told.reason), error, None, told.reason)
        statistics = evaluate(self.module, *_arrays(events), self.signature)
        start, held_before = self.parameters, self._held_error()
        self._train([one for one in events if one.number % HOLD_EVERY])
        told = self.guard.after(held=self._held_error(), held_before=held_before)
        if told.action is Action.REFUSE:
            load_parameters(self.module, start)
            return Outcome(0, bad + _refused(events, told.reason), error, self.learned, told.reason)
        self._progressive = merge([self._progressive, statistics])
        self._states.append((self.learned, start, tuple(self._held)))
        self._held.extend(one for one in events if not one.number % HOLD_EVERY)
        self.learned += len(events)
        if rose := self.guard.include(errors.tolist()):
            return self._go_back(rose, bad, error)
        return Outcome(len(events), bad, error)

    def _go_back(self, events: int, bad: tuple[Refused, ...], error: float) -> Outcome:
        """To the newest state that knows nothing of the latest ``events``, or the oldest that is kept."""
        before = self.learned
        while self._states:
            self.learned, parameters, held = self._states.pop()
            load_parameters(self.module, parameters)
            self._held = deque(held, maxlen=MOST_HELD)
            if self.learned <= before - events:
                break
        reason = f"the error has risen over the last {events} events: {before - self.learned} are taken back"
        return Outcome(0, bad, error, self.learned, reason)

    def _train(self, events: Sequence[Event]) -> None:
        if not events:
            return
        x, y = _arrays(events)
        inputs, targets = to_inputs(x, self.signature), to_targets(y, self.signature)
        step = torch.optim.SGD((p for p in self.module.parameters() if p.requires_grad), lr=self.training.learning_rate)
        self.module.train()
        with one_thread(), process_wide(self.seed, purpose="online", round=self._chunks):
            for _ in range(self.training.passes):
                for first in range(0, len(events), self.training.batch_size):
                    batch = slice(first, first + self.training.batch_size)
                    step.zero_grad()
                    tasks.loss(self.signature, self.module(inputs[batch]), targets[batch]).backward()
                    step.step()
        self.module.eval()

    def _held_error(self) -> float:
        """On the reference and on what is held back, as if they were one set."""
        x, y = self.reference
        if self._held:
            held_x, held_y = _arrays(list(self._held))
            x, y = np.concatenate([x.reshape(len(x), -1), held_x.reshape(len(held_x), -1)]), np.concatenate([y, held_y])
            x = x.reshape(len(x), *self.signature.input_shape)
        return float(self._errors(x, y).mean())

    def _errors(self, x: Array, y: Array) -> Array:
        """Of each example, from 0 to 1: right or wrong; of a number, e / (1 + e) of its squared error in deviations."""
        outputs = predict(self.module, x, self.signature)
        if self.signature.task == "classification":
            return np.asarray(outputs.argmax(axis=1) != y.reshape(len(y)), float)
        squared = ((outputs.reshape(len(y)) - y.reshape(len(y))) / self.signature.target_std) ** 2
        return np.asarray(np.where(np.isfinite(squared), squared / (1 + squared), 1.0), float)


def _arrays(events: Sequence[Event]) -> tuple[Array, Array]:
    return np.stack([one.inputs for one in events]), np.array([one.target for one in events])


def _refused(events: Sequence[Event], reason: str) -> tuple[Refused, ...]:
    return tuple(Refused(one.number, reason, {}) for one in events)
