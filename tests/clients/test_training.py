"""The reference loop takes the steps that torch.optim takes, and nothing else moves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients.schedule import Schedule
from clients.training import Trained, TrainingOptions, batches, clip, train
from fl.algorithms.algorithm import Correction
from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.models import arrays
from fl.parameters import Parameters
from fl.seeds import generator, process_wide
from fl.signature import Signature

SIGNATURE = Signature(task="classification", input_shape=(5,), input_dtype="float64", num_outputs=3)
SINGLE = replace(SIGNATURE, input_dtype="float32")
OPTIONS = TrainingOptions(batch_size=4, local_epochs=2, learning_rate=0.1)


def examples(count: int = 11, dtype: str = "float64") -> Examples:
    draw = np.random.default_rng(0)
    return Examples(draw.normal(size=(count, 5)).astype(dtype), draw.integers(0, 3, count))


def net(dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> nn.Module:
    with process_wide(7, purpose="test"):
        layers = [nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)]
        return nn.Sequential(*layers).to(dtype)


def run(options: TrainingOptions, *, module: nn.Module | None = None, **given: Any) -> tuple[Parameters, Trained]:
    """Where training starts, and what it gives."""
    module = module or net()
    start = {name: np.array(value) for name, value in arrays.parameters_of(module).items()}
    fixed = {"correction": Correction(), "seed": 3, "round": 2, "client": 4, **given}
    data = fixed.pop("examples", examples())
    signature = fixed.pop("signature", SIGNATURE)
    return start, train(module, start, data, signature, options, **fixed)


def by_torch(optimizer: Any, options: TrainingOptions, gradient_hook: Any = None) -> Parameters:
    """The same batches through torch.optim."""
    module, data = net(), examples()
    stepper = optimizer(module.parameters())
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    start = [p.detach().clone() for p in module.parameters()]
    orders = generator(3, purpose="train/shuffle", round=2, client=4)
    for batch in batches(len(y), options, orders):
        stepper.zero_grad()
        nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
        if gradient_hook:
            gradient_hook(list(module.parameters()), start)
        stepper.step()
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.03},
    {"momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("more", SGD, ids=lambda more: "-".join(more) or "plain")
def test_sgd_is_torchs(more: dict[str, Any]) -> None:
    options = replace(OPTIONS, **more)
    start, trained = run(options)
    assert_same(trained.end, by_torch(lambda p: torch.optim.SGD(p, lr=0.1, **more), options))
    assert any((start[name] != trained.end[name]).any() for name in start)


@pytest.mark.parametrize("name", ["Adam", "adamw", "RMSprop", "Adagrad", "NAdam", "Rprop"])
def test_any_class_of_torch_optim_steps_as_it_does(name: str) -> None:
    kind = {key.lower(): value for key, value in vars(torch.optim).items()}[name.lower()]
    decay = {} if name == "Rprop" else {"weight_decay": 0.02}
    options = replace(OPTIONS, optimizer=name, learning_rate=0.01, **decay)
    assert_same(run(options)[1].end, by_torch(lambda p: kind(p, lr=0.01, **decay), options))


def test_clipping_is_torchs() -> None:
    options = replace(OPTIONS, clip_norm=0.5, learning_rate=0.5)

    def clipped(parameters: list[nn.Parameter], start: list[torch.Tensor]) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)

    expected = by_torch(lambda p: torch.optim.SGD(p, lr=0.5), options, clipped)
    for name, value in run(options)[1].end.items():  # torch divides by the norm plus 1e-6
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(0.01, 1e3))
def test_clipping_keeps_the_direction_and_never_lengthens(values: list[float], limit: float) -> None:
    gradients = [torch.tensor(values, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
    before = torch.cat(gradients).clone()
    clip(gradients, limit)
    after = torch.cat(gradients)
    assert after.norm() <= limit * (1 + 1e-9)
    factor = min(1.0, limit / float(before.norm()))
    torch.testing.assert_close(after, before * factor)


def test_a_correction_is_added_to_every_gradient() -> None:
    constant = {name: np.full_like(value, 0.3) for name, value in arrays.parameters_of(net()).items()}

    def corrected(parameters: list[nn.Parameter], start: list[torch.Tensor]) -> None:
        for parameter, anchor in zip(parameters, start, strict=True):
            assert parameter.grad is not None
            parameter.grad += 0.7 * (parameter.detach() - anchor) + 0.3

    found = run(OPTIONS, correction=Correction(proximal=0.7, constant=constant))[1].end
    assert_same(found, by_torch(lambda p: torch.optim.SGD(p, lr=0.1), OPTIONS, corrected))


@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 50)), st.integers(1, 4))
def test_every_epoch_sees_every_example_once_and_only_its_last_batch_is_short(
    count: int, size: int | None, epochs: int
) -> None:
    options = replace(OPTIONS, batch_size=size, local_epochs=epochs)
    found = list(batches(count, options, generator(1, purpose="test")))
    per_epoch = -(-count // (size or count))
    assert len(found) == options.num_steps(count) == per_epoch * epochs
    for epoch in range(epochs):
        these = found[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(int(i) for batch in these for i in batch) == list(range(count))
        assert all(len(batch) == (size or count) for batch in these[:-1])


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 30))
def test_local_steps_are_counted_exactly(count: int, size: int, steps: int) -> None:
    options = replace(OPTIONS, batch_size=size, local_steps=steps, local_epochs=None)
    assert len(list(batches(count, options, generator(1, purpose="test")))) == options.num_steps(count) == steps


def test_a_client_trains_alike_however_often_and_unlike_others() -> None:
    first, again = run(OPTIONS)[1], run(OPTIONS)[1]
    assert all((first.end[name] == again.end[name]).all() for name in first.end)
    for other in ({"client": 5}, {"round": 3}, {"seed": 4}, {"purpose": "personal"}):
        end = run(OPTIONS, **other)[1].end
        assert any((first.end[name] != end[name]).any() for name in end), other


def test_dropout_is_drawn_by_address_and_leaves_the_process_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = run(OPTIONS, module=net(dropout=0.5))[1].end
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert_same(run(OPTIONS, module=net(dropout=0.5))[1].end, first)
    without = run(OPTIONS)[1].end
    assert any((first[name] != without[name]).any() for name in first)
    assert any((run(OPTIONS, module=net(dropout=0.5), client=9)[1].end[name] != first[name]).any() for name in first)


def test_the_loss_is_the_mean_over_what_was_seen() -> None:
    frozen = replace(OPTIONS, learning_rate=1e-300, batch_size=4, local_epochs=1)
    trained = run(frozen)[1]
    module, data = net(), examples()
    expected = nn.functional.cross_entropy(module(torch.from_numpy(data.x)), torch.from_numpy(data.y))
    assert trained.loss.weight == 11 and trained.loss.value == pytest.approx(expected.item(), rel=1e-12)
    assert trained.num_steps == 3 and trained.learning_rate == 1e-300


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_models_dtype_is_kept(dtype: str) -> None:
    signature = SIGNATURE if dtype == "float64" else SINGLE
    module = net(getattr(torch, dtype))
    end = run(OPTIONS, module=module, examples=examples(dtype=dtype), signature=signature)[1].end
    assert {str(value.dtype) for value in end.values()} == {dtype}


def test_what_a_model_tracks_is_trained_and_what_it_freezes_is_not() -> None:
    with process_wide(1, purpose="test"):
        module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    module[0].bias.requires_grad_(False)
    module.register_buffer("constant", torch.ones(2))
    start, trained = run(OPTIONS, module=module)
    moved = {name for name in start if (start[name] != trained.end[name]).any()}
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= moved
    assert moved.isdisjoint({"0.bias", "constant"})
    assert int(trained.end["1.num_batches_tracked"]) == int(start["1.num_batches_tracked"]) + trained.num_steps


def test_a_parameter_that_the_loss_never_meets_stays() -> None:
    module = net()
    module.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    assert (run(OPTIONS, module=module)[1].end["unused"] == 1).all()


def test_the_mode_of_the_module_is_put_back() -> None:
    module = net().eval()
    run(OPTIONS, module=module)
    assert not module.training


SCHEDULES = [
    (Schedule(), [1, 1, 1]),
    (Schedule("exponential", decay=0.5), [1, 0.5, 0.25]),
    (Schedule("step", decay=0.5, step_rounds=2), [1, 1, 0.5]),
    (Schedule("cosine", num_rounds=4), [1, (1 + 0.5**0.5) / 2, 0.5]),
    (Schedule("cosine", num_rounds=4, minimum=0.5), [1, 0.5 + (1 + 0.5**0.5) / 4, 0.75]),
    (Schedule("exponential", decay=0.1, minimum=0.3), [1, 0.3, 0.3]),
    (Schedule(warmup_rounds=3), [0.25, 0.5, 0.75]),
]


@pytest.mark.parametrize("schedule, expected", SCHEDULES, ids=lambda v: getattr(v, "name", ""))
def test_schedules_by_round(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.factor(round) for round in (1, 2, 3)] == pytest.approx(expected)
    trained = run(replace(OPTIONS, schedule=schedule))[1]
    assert trained.learning_rate == pytest.approx(0.1 * expected[1])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": 0.0}, r"client\.learning_rate: got 0\.0, allowed: above 0"),
    ({"learning_rate": float("nan")}, r"client\.learning_rate: got nan"),
    ({"batch_size": 0}, r"client\.batch_size: got 0, allowed: above 0"),
    ({"local_epochs": 0}, r"client\.local_epochs: got 0"),
    ({"local_epochs": None}, r"client\.local_epochs: got None, allowed: a number of epochs, or client\.local_steps"),
    ({"clip_norm": -1.0}, r"client\.clip_norm: got -1\.0"),
    ({"momentum": 1.0}, r"client\.momentum: got 1\.0, allowed: at least 0, below 1"),
    ({"weight_decay": -0.1}, r"client\.weight_decay: got -0\.1, allowed: at least 0"),
    ({"nesterov": True}, r"client\.nesterov: got True, allowed: false, or a client\.momentum above 0"),
    ({"optimizer": "sdg"}, r"client\.optimizer: got sdg, allowed: sgd, or a class of torch\.optim"),
    ({"optimizer": "Optimizer"}, r"client\.optimizer: got Optimizer, allowed: sgd, or a class of torch\.optim"),
    ({"optimizer": "LBFGS"}, r"client\.optimizer: got LBFGS, .*closure"),
    ({"optimizer": "Adam", "momentum": 0.9}, r"client\.optimizer: got Adam, .*momentum"),
]


@pytest.mark.parametrize("bad, message", BAD, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_bad_options_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(OPTIONS, **bad)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"name": "linear"}, r"client\.schedule\.name: got linear, allowed: constant, exponential, step, cosine"),
        ({"name": "step"}, r"client\.schedule\.step_rounds: got None"),
        ({"decay": 0.0}, r"client\.schedule\.decay: got 0\.0, allowed: above 0, at most 1"),
        ({"minimum": 2.0}, r"client\.schedule\.minimum: got 2\.0"),
    ],
)
def test_bad_schedules_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Schedule(**bad)
