"""Noise taken out, classes made equal, examples varied: what each does to a training part, against its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from clients.training import TrainingOptions, train
from fl.algorithms.algorithm import Correction
from fl.data.balance import BALANCES, balanced_rows, class_weights
from fl.data.dataset import Examples
from fl.data.denoise import DENOISERS, edited, edited_numbers, median_filtered
from fl.data.training_part import read_treatment
from fl.errors import BadInput
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.signature import Signature

TABLE = Signature("classification", (3,), "float32", 2, feature_names=("a", "b", "kind"))
NUMBER = replace(TABLE, task="regression", num_outputs=1)
IMAGE = Signature("classification", (1, 8, 6), "float32", 4, input_scale=1 / 255)
TEXT = Signature("next_token", (8,), "int64", 9)


def rows(n=400, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 3)).astype(np.float32) * [1, 50, 1]
    x[:, 2] = draw.integers(0, 3, n)
    return Examples(x.astype(np.float32), (draw.random(n) < 0.2).astype(np.int64))


def images(n=60):
    draw = np.random.default_rng(1)
    return Examples(draw.integers(0, 256, (n, 1, 8, 6)).astype(np.uint8), draw.integers(0, 4, n))


def drawn(part, signature, *, round=1, client=0, purpose="train", **settings):
    made = read_treatment(settings, signature).drawn(part, seed=3, round=round, client=client, purpose=purpose)
    assert made.x.dtype == part.x.dtype and made.y.dtype == part.y.dtype
    return made


# Noise ------------------------------------------------------------------------------------------------------------


def test_editing_drops_the_rows_that_are_labelled_wrongly():
    draw = np.random.default_rng(0)
    y = np.repeat([0, 1], 50)
    x = draw.normal(size=(100, 2)) * 0.3 + 4 * y[:, None]
    wrong = [3, 17, 60, 88]
    y[wrong] = 1 - y[wrong]
    expected = np.delete(np.arange(100), wrong).tolist()
    assert edited(x, y).tolist() == expected
    x[:, 1] *= 1e6  # a column's unit does not matter
    x[5, 0] = np.nan
    assert edited(x, y).tolist() == expected
    assert edited(x[:3], y[:3]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_rows_whose_target_is_far_from_their_neighbours_are_left_out_and_others_stay(scale):
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (600, 2))
    clean = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1]
    y = clean + 0.1 * random.standard_normal(600)
    wrong = random.choice(600, 40, replace=False)
    y[wrong] += random.choice([-1, 1], 40) * random.uniform(2, 9, 40)
    part = Examples((x * [1, 1e4]).astype(np.float32), (scale * y).astype(np.float32))
    kept = edited_numbers(part.x, part.y)
    assert not set(wrong) & set(kept), "every wrong target goes"
    assert len(kept) > 0.95 * 560, "and hardly one that is right"
    left = read_treatment({"denoise": "neighbours"}, NUMBER).kept(Examples(np.pad(part.x, ((0, 0), (0, 1))), part.y))
    assert np.array_equal(left.x[:, :2], part.x[kept]) and np.array_equal(left.y, part.y[kept])


def test_targets_that_hardly_vary_or_are_few_say_nothing_of_noise():
    x = np.arange(40.0)[:, None]
    assert len(edited_numbers(x, np.full(40, 3.0))) == 40
    one = np.where(np.arange(40) == 20, 9.0, 3.0)
    assert edited_numbers(x, one).tolist() == [i for i in range(40) if i != 20]
    assert len(edited_numbers(x[:9], one[16:25])) == 9


def test_a_pixel_becomes_the_median_of_the_nine_around_it():
    x = images().x
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    expected = np.median(sliding_window_view(padded, (3, 3), axis=(2, 3)), axis=(-1, -2))
    assert np.array_equal(median_filtered(x), expected)
    speck = np.full((1, 1, 8, 6), 7, np.uint8)
    speck[0, 0, 3, 3] = 255
    assert (median_filtered(speck) == 7).all()


# Balance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how, size", [("oversample", 300), ("undersample", 20)])
def test_every_class_has_as_many_rows(how, size):
    y = np.repeat([0, 3, 5], [300, 20, 80])
    chosen = balanced_rows(y, how, np.random.default_rng(0))
    values, counts = np.unique(y[chosen], return_counts=True)
    assert values.tolist() == [0, 3, 5] and counts.tolist() == [size] * 3
    if how == "oversample":
        assert set(chosen) == set(range(400)), "no row is lost"
    else:
        assert len(set(chosen)) == 60, "no row comes twice"


def test_a_step_by_weights_is_the_step_over_the_oversampled_rows():
    """Three rows of one class and one of the other: weighed, or that one row three times."""
    part = Examples(rows(4).x, np.array([0, 0, 0, 1]))
    module = build_model(target="fl.models.logistic.build", arguments={}, signature=TABLE, seed=0)
    start = {name: value.copy() for name, value in parameters_of(module).items()}
    options = TrainingOptions(batch_size=None, local_steps=2, local_epochs=None, learning_rate=0.5)
    same = {"correction": Correction(), "seed": 0, "round": 1, "client": 0}
    weighed = train(module, start, part, TABLE, options, weights=class_weights(part.y), **same)
    again = part.take(balanced_rows(part.y, "oversample", np.random.default_rng(0)))
    repeated = train(module, start, again, TABLE, options, **same)
    plain = train(module, start, part, TABLE, options, **same)
    for name, value in weighed.end.items():
        assert value == pytest.approx(repeated.end[name], rel=1e-5)
    assert weighed.loss.value == pytest.approx(repeated.loss.value, rel=1e-6)
    assert any(not np.allclose(value, plain.end[name], rtol=1e-3) for name, value in weighed.end.items())


# Augmentation -----------------------------------------------------------------------------------------------------


def test_images_are_flipped_by_chance():
    part = images()
    made = drawn(part, IMAGE, augment=[{"flip": {}}])
    turned = np.array([np.array_equal(a, b[..., ::-1]) for a, b in zip(made.x, part.x, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(made.x, part.x, strict=True)])
    assert (turned ^ kept).all() and 15 < turned.sum() < 45


def test_images_are_shifted_and_zeros_come_in():
    part = images()
    made = drawn(part, IMAGE, augment=[{"shift": {"pixels": 2}}])
    seen = set()
    for after, before in zip(made.x[:, 0], part.x[:, 0], strict=True):
        wide = np.pad(before, 2)
        places = [(r, c) for r in range(5) for c in range(5) if np.array_equal(wide[r : r + 8, c : c + 6], after)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 15


def test_noise_has_its_deviation_in_the_columns_that_are_named():
    part = rows(5_000)
    part.x[::7, 1] = np.nan
    made = drawn(part, TABLE, augment=[{"noise": {"deviation": 0.1, "columns": ["a", "b"]}}])
    assert np.array_equal(made.x[:, 2], part.x[:, 2]) and np.array_equal(np.isnan(made.x), np.isnan(part.x))
    off = np.nanstd(made.x - part.x, axis=0)
    assert off[:2] == pytest.approx(0.1 * np.nanstd(part.x, axis=0)[:2], rel=0.05)
    made = drawn(images(), IMAGE, augment=[{"noise": {"deviation": 0.1}}])
    inside = (images().x > 80) & (images().x < 175)
    assert (made.x.astype(float) - images().x)[inside].std() == pytest.approx(25.5, rel=0.1)


def test_mixup_lies_between_two_examples_and_the_label_follows():
    part = Examples(rows(4_000).x, np.random.default_rng(5).normal(size=4_000).astype(np.float32))
    named = {"alpha": 0.4, "columns": ["a", "b"]}
    made = drawn(part, NUMBER, augment=[{"mixup": named}])
    assert np.array_equal(made.x[:, 2], part.x[:, 2])
    assert 0.3 < (np.abs(made.x[:, 0] - part.x[:, 0]) > 1e-3).mean() < 1
    assert made.y.mean() == pytest.approx(part.y.mean(), abs=0.05)
    # With the target a copy of a column, it stays one.
    copied = Examples(part.x, part.x[:, 0].copy())
    mixed = drawn(copied, NUMBER, augment=[{"mixup": named}])
    assert mixed.y == pytest.approx(mixed.x[:, 0], rel=1e-5, abs=1e-6)
    # A class is drawn by the share: a column that says the class predicts, on average, how often it is that class.
    y = part.y > 0
    told = Examples(np.stack([y, y, y], axis=1).astype(np.float32), y.astype(np.int64))
    mixed = drawn(told, TABLE, augment=[{"mixup": {"alpha": 1.0}}])
    middle = (mixed.x[:, 0] > 0.4) & (mixed.x[:, 0] < 0.6)
    assert mixed.y[middle].mean() == pytest.approx(0.5, abs=0.1)
    assert mixed.y.mean() == pytest.approx(mixed.x[:, 0].mean(), abs=0.03)


def test_a_value_that_one_of_two_lacks_stays():
    part = rows(50)
    part.x[::2, 1] = np.nan
    made = drawn(part, TABLE, augment=[{"mixup": {"alpha": 1.0}}])
    assert np.array_equal(np.isnan(made.x), np.isnan(part.x))


def test_what_is_drawn_has_an_address():
    settings = {"balance": "oversample", "augment": [{"noise": {"deviation": 1}}, {"mixup": {"alpha": 1.0}}]}
    first = drawn(rows(), TABLE, **settings)
    assert np.array_equal(drawn(rows(), TABLE, **settings).x, first.x)
    for other in ({"round": 2}, {"client": 1}, {"purpose": "personal"}):
        assert not np.array_equal(drawn(rows(), TABLE, **other, **settings).x, first.x)
    assert not np.array_equal(rows().x, first.x[: len(rows())]), "and the part itself is as it was"


def test_without_settings_a_part_is_itself():
    part, plain = rows(), read_treatment({}, TABLE)
    assert not plain.lasts and plain.weights(part.y) is None
    assert plain.kept(part) is part
    assert plain.drawn(part, seed=0, round=1, client=0, purpose="train") is part


@pytest.mark.parametrize(
    "signature, settings, message",
    [
        (TABLE, {"denoise": "nieghbours"}, f"client.denoise: got nieghbours, allowed: {', '.join(DENOISERS)}, or null"),
        (TABLE, {"balance": "smote"}, f"client.balance: got smote, allowed: {', '.join(BALANCES)}, or null"),
        (TABLE, {"denoise": "median"}, "client.denoise: got median, allowed: neighbours, or null: these are no images"),
        (TEXT, {"denoise": "neighbours"}, "client.denoise: got neighbours, allowed: null for text"),
        (NUMBER, {"balance": "weights"}, "client.balance: got weights, allowed: null for a regression"),
        (TEXT, {"balance": "oversample"}, "client.balance: got oversample, allowed: null for a next_token"),
        (TEXT, {"augment": [{"noise": {"deviation": 1}}]}, "client.augment: got noise, allowed: null for text"),
        (TABLE, {"augment": [{"flip": {}}]}, r"client.augment\[0\].flip: got inputs of shape \(3,\), allowed: images"),
        (TABLE, {"augment": "flip"}, "client.augment: got flip, allowed: a list of steps, such as - shift"),
        (IMAGE, {"augment": [{"flip": {}}, {"turn": {}}]}, r"client.augment\[1\]: got turn, allowed: flip, shift"),
        (IMAGE, {"augment": [{"shift": {}}]}, r"client.augment\[0\].shift: got no pixels"),
        (IMAGE, {"augment": [{"shift": {"pixels": 6}}]}, r"shift.pixels: got 6, allowed: a number from 1 to 5"),
        (IMAGE, {"augment": [{"flip": {"share": 2}}]}, r"flip.share: got 2, allowed: a number from 0 to 1"),
        (TABLE, {"augment": [{"mixup": {"alpha": 0}}]}, r"mixup.alpha: got 0"),
        (TABLE, {"augment": [{"noise": {"deviation": 1, "columns": ["age"]}}]}, "noise.columns: got age, allowed: a"),
    ],
)  # fmt: skip
def test_what_does_not_suit_the_data_is_refused(signature, settings, message):
    with pytest.raises(BadInput, match=message):
        read_treatment(settings, signature)
