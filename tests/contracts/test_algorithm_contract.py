"""What every algorithm promises, tested once over all of them: found by their files, never listed."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import conf
from fl import algorithms
from fl import parameters as P
from fl.aggregators.mean import WeightedSum
from fl.algorithms.algorithm import Aggregate, LocalRun, load_algorithm
from fl.errors import BadInput
from fl.messages import Boundary, Update
from fl.parameters import add, mismatch, scale, subtract, zeros_like

CHOICES = sorted((Path(conf.__file__).parent / "algorithm").glob("*.yaml"))
MODULES = sorted(
    p.stem for p in Path(algorithms.__file__).parent.glob("*.py") if p.stem not in ("__init__", "algorithm")
)
LEARNING_RATE, STEPS, POPULATION = 0.125, 4, 6


def options(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture(params=CHOICES, ids=lambda path: path.stem)
def chosen(request):
    """The options in one file of conf/algorithm."""
    return options(request.param)


@pytest.fixture
def algorithm(chosen):
    return load_algorithm(chosen)


def test_every_algorithm_can_be_chosen_and_every_choice_is_one():
    assert sorted(options(path)["_target_"] for path in CHOICES) == [f"fl.algorithms.{name}.build" for name in MODULES]
    assert MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_file_cites_its_paper_and_tells_both_halves(name):
    text = importlib.import_module(f"fl.algorithms.{name}").__doc__
    assert re.search(r"\b(19|20)\d\d\b", text)
    assert re.search(r"^ +client +\S", text, re.M) and re.search(r"^ +server +\S", text, re.M)


# --- a federation in NumPy --------------------------------------------------------------------------------------


def model(dtype=np.float64):
    """Named arrays of several shapes, one of a single number and one of none."""
    draw = np.random.default_rng(0)
    shapes = {"b.weight": (3, 2), "a.bias": (3,), "scale": (), "empty": (0, 2)}
    return {name: np.asarray(draw.normal(size=shape), dtype=dtype) for name, shape in shapes.items()}


def towards(target):
    """The gradient of |y - target|^2 / 2."""
    return lambda y: subtract(y, target)


def nowhere(y):
    return zeros_like(y)


def locked(value):
    """The same arrays, which raise when somebody writes to them."""
    if isinstance(value, dict):
        return {name: locked(inner) for name, inner in value.items()}
    array = value.copy()
    array.flags.writeable = False
    return array


def local(algorithm, x, shared, state, gradient):
    """One client: its new state, its delta, its extra arrays."""
    correction, y = algorithm.correction(shared, state, x), x
    for _ in range(STEPS):
        step = add(gradient(y), scale(subtract(y, x), correction.proximal))
        step = add(step, correction.constant) if correction.constant else step
        y = subtract(y, scale(step, LEARNING_RATE))
    kept, extra = algorithm.client_update(LocalRun(x, locked(y), STEPS, LEARNING_RATE, shared, state))
    return kept, subtract(y, x), extra


class Federation:
    """Rounds over clients with a gradient each; everything that is handed to an algorithm is locked."""

    def __init__(self, algorithm, x, gradients, population=POPULATION):
        self.algorithm, self.x, self.gradients, self.population = algorithm, locked(x), gradients, population
        self.server = locked(algorithm.init_server(self.x))
        self.states = [locked(algorithm.init_client(self.x)) for _ in gradients]

    def round(self, order=None):
        shared = locked(self.algorithm.broadcast(self.server))
        deltas, extras = WeightedSum(), WeightedSum()
        for client in order or range(len(self.gradients)):
            kept, delta, extra = local(self.algorithm, self.x, shared, self.states[client], self.gradients[client])
            self.states[client] = locked(kept)
            deltas.add(delta, 1.0)
            extras.add(extra, 1.0)
        extra = extras.mean(self.x) if extras.arrays else {}
        answered = Aggregate(locked(deltas.mean(self.x)), locked(extra), len(self.gradients), self.population)
        x, server = self.algorithm.server_update(self.x, self.server, answered)
        self.x, self.server = locked(x), locked(server)
        return self


def federation(algorithm, dtype=np.float64):
    x = model(dtype)
    targets = [add(x, scale(model(dtype), factor)) for factor in (1.0, -0.5, 0.25)]
    return Federation(algorithm, x, [towards(locked(target)) for target in targets])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_names_shapes_and_dtypes_are_kept_and_nothing_handed_in_is_written_to(algorithm, dtype):
    x = model(dtype)
    run = federation(algorithm, dtype)
    state, server, shared = run.states[0], run.server, algorithm.broadcast(run.server)
    for _ in range(3):
        run.round()
        assert mismatch(run.x, x) is None
        assert list(run.x) == list(x)
        assert run.server.keys() == server.keys()
        assert all(mismatch(run.server[letter], server[letter]) is None for letter in server)
        assert all(mismatch(kept, state) is None for kept in run.states)
        assert mismatch(algorithm.broadcast(run.server), shared) is None
        assert P.not_finite(run.x) is None


def test_a_correction_is_of_the_trainable_arrays_or_nothing(algorithm):
    run = federation(algorithm).round()
    correction = algorithm.correction(algorithm.broadcast(run.server), run.states[0], run.x)
    assert correction.constant == {} or mismatch(correction.constant, run.x) is None
    assert math.isfinite(correction.proximal)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_extra_arrays_that_are_sent_are_the_ones_declared(algorithm, dtype):
    run = federation(algorithm, dtype)
    declared = algorithm.extra_like(run.x)
    for _ in range(2):
        shared = algorithm.broadcast(run.server)
        _, delta, extra = local(algorithm, run.x, shared, run.states[0], run.gradients[0])
        update = Update(client=0, round=1, base_version=0, delta=delta, extra=extra, num_examples=1)
        assert Boundary(delta=dict(run.x), extra=declared).release(update) is update
        run.round()


def test_a_client_without_state_is_one_that_keeps_none(algorithm):
    run = federation(algorithm).round()
    assert algorithm.keeps_client_state == all(run.states) == any(run.states)


def test_a_federation_in_which_nobody_moves_stands_still(algorithm):
    x = model()
    run = Federation(algorithm, x, [nowhere] * 3)
    for _ in range(3):
        run.round()
        assert all(np.array_equal(run.x[name], x[name]) for name in x)


def test_one_step_down_the_same_gradient_goes_down(algorithm):
    """Where all clients want the same, the first round brings the model nearer to it."""
    x = model()
    goal = add(x, {name: np.ones_like(value) for name, value in x.items()})
    run = Federation(algorithm, x, [towards(goal)] * 3).round()
    assert P.norm(subtract(goal, run.x)) < P.norm(subtract(goal, x))


def test_the_order_of_clients_does_not_matter(algorithm):
    forward, backward = federation(algorithm), federation(algorithm)
    for _ in range(5):
        forward.round([0, 1, 2])
        backward.round([2, 0, 1])
    for name, value in forward.x.items():
        assert np.allclose(backward.x[name], value, rtol=1e-12, atol=1e-12)


def test_equal_clients_stay_equal_and_three_of_them_are_as_one(algorithm):
    x = model()
    goal = towards(locked(scale(x, 0.5)))
    three, one = Federation(algorithm, x, [goal] * 3, population=3), Federation(algorithm, x, [goal], population=1)
    for _ in range(3):
        three.round()
        one.round()
    for name, value in one.x.items():
        assert np.allclose(three.x[name], value, rtol=1e-12, atol=1e-12)
    assert all(P.sha256(state) == P.sha256(three.states[0]) for state in three.states)


def test_the_same_again_gives_the_same_bits(chosen):
    """Built twice, run twice: nothing is remembered but the states that come in and go out."""
    hashes = set()
    for _ in range(2):
        algorithm = load_algorithm(chosen)
        federation(algorithm).round()
        hashes.add(P.sha256(federation(algorithm).round().round().x))
    assert len(hashes) == 1


def test_float64_is_computed_in_float64(algorithm):
    """A difference that float32 cannot hold is still there after a round."""
    x = {"w": np.full(2, 1.0)}
    near, far = {"w": np.array([1.0, 1.0 + 1e-12])}, {"w": np.array([1.0, 1.0])}
    moved = [Federation(algorithm, x, [towards(goal)]).round().x["w"] for goal in (near, far)]
    assert moved[0][1] != moved[1][1]
    assert moved[0][0] == moved[1][0]


# --- options ----------------------------------------------------------------------------------------------------


def test_an_option_that_is_no_number_in_its_range_is_named(chosen):
    for key in chosen.keys() - {"_target_"}:
        for bad in (-1, math.nan, math.inf, "much", None, True, [1.0]):
            with pytest.raises(BadInput) as raised:
                load_algorithm({**chosen, key: bad})
            assert raised.value.key == f"algorithm.{key}"
            assert raised.value.got == repr(bad)
            assert raised.value.allowed.startswith("a number ")


def test_an_option_that_it_does_not_take_is_named(chosen):
    with pytest.raises(BadInput) as raised:
        load_algorithm({**chosen, "momentum_of_nothing": 1})
    assert raised.value.key == "algorithm.momentum_of_nothing"
    assert all(key in raised.value.allowed for key in chosen.keys() - {"_target_"})


def test_the_file_names_every_option_with_its_default(chosen):
    module, _, name = chosen.pop("_target_").rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert {option: parameter.default for option, parameter in parameters.items()} == chosen


def test_an_algorithm_is_called_what_its_file_is(chosen, algorithm):
    assert algorithm.name == chosen["_target_"].split(".")[-2]
