"""The quick baseline: it is the pooled fit although no client shows a row, and it never sees the server's test set."""

from dataclasses import replace

import numpy as np
import pytest

from fl.data.arrange import server_rows
from fl.data.arrays import from_arrays
from fl.data.baseline import baseline
from fl.data.catalog import load
from fl.data.dataset import Examples


def drawn(num_examples=600, *, task="auto", gaps=False):
    random = np.random.default_rng(3)
    x = random.normal(size=(num_examples, 4)) * [1, 10, 0.1, 1] + [0, 5, 0, 2]
    score = x[:, 0] + x[:, 1] / 10 + 0.3 * random.normal(size=num_examples)
    y = score if task == "regression" else (score > 0.5).astype(int)
    if gaps:
        x[random.random(x.shape) < 0.1] = np.nan
    return from_arrays({"x": x, "y": y, "client": random.integers(0, 7, num_examples)}, name="d", source="d", task=task)


def of(dataset, **more):
    apart = server_rows(dataset, seed=1, public_fraction=0, held_out_fraction=0.3, max_server_test=None)
    return baseline(dataset, apart.rows, apart.test, seed=1, **more), apart


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_does_not_matter_who_holds_which_rows(task, gaps):
    dataset = drawn(task=task, gaps=gaps)
    by_client, _ = of(dataset)
    apart = of(dataset)[1]
    pooled = baseline(replace(dataset, client=None), apart.rows, apart.test, seed=1)
    assert by_client.model == pytest.approx(pooled.model, rel=1e-9)
    assert by_client.trivial == pytest.approx(pooled.trivial, rel=1e-9)


def test_it_is_least_squares():
    dataset = drawn(task="regression")
    found, apart = of(dataset)
    x = np.c_[dataset.x[apart.rows], np.ones(len(apart.rows))]
    weights = np.linalg.lstsq(x, dataset.y[apart.rows], rcond=None)[0]
    mse = np.square(np.c_[apart.test.x, np.ones(len(apart.test))] @ weights - apart.test.y).mean()
    assert found.model["mse"] == pytest.approx(mse, rel=0.01)  # but for the ridge
    mean = dataset.y[apart.rows].mean()
    assert found.trivial["mse"] == pytest.approx(np.square(apart.test.y - mean).mean())
    assert found.model["r2"] > 0.8 > abs(found.trivial["r2"])


def test_noise_gives_no_progress():
    dataset = drawn()
    noise = replace(dataset, y=np.random.default_rng(1).permutation(dataset.y))
    found, _ = of(noise)
    assert abs(found.model["accuracy"] - found.trivial["accuracy"]) < 0.1
    assert of(dataset)[0].model["accuracy"] > 0.85


def test_the_servers_test_set_is_in_no_sum():
    dataset = drawn()
    found, apart = of(dataset)
    held = np.setdiff1d(np.arange(len(dataset)), apart.rows)
    poisoned = dataset.x.copy()
    poisoned[held] = 1e9
    again = baseline(replace(dataset, x=poisoned), apart.rows, apart.test, seed=1)
    assert again == found


def test_next_tokens_are_told_by_the_one_before():
    text = np.tile(np.array([0, 1, 2, 1]), 200)
    arrays = {"x": text[:-1].reshape(-1, 17), "y": text[1:].reshape(-1, 17)}
    dataset = from_arrays(arrays, name="t", source="t", task="next_token")
    found = baseline(dataset, np.arange(30), Examples(dataset.x[30:], dataset.y[30:]), seed=1)
    assert found.model["accuracy"] > 0.7 > found.trivial["accuracy"]
    assert 1 < found.model["perplexity"] < found.trivial["perplexity"]


def test_a_large_set_is_drawn_from():
    found, _ = of(drawn(), most_rows=100)
    assert found.rows == 100 and found == of(drawn(), most_rows=100)[0]


def test_heart_disease_looks_feasible():
    found, _ = of(load("heart_disease", seed=1))
    assert found.model["accuracy"] > found.trivial["accuracy"] + 0.15
