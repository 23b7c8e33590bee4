"""A picture is looked at by people; what can be checked here is where the colours are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fl.metrics import Confusion
from server.pictures import GRID_PIXELS, RAMP, confusion_picture

FULL, EMPTY = RAMP[-1], RAMP[0]


def pixels(counts: np.ndarray, **changes) -> np.ndarray:
    png = confusion_picture(
        Confusion(tuple(tuple(int(n) for n in row) for row in counts)), **{"class_names": (), "title": "t", **changes}
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def extent(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """First and last row, first and last column of a colour."""
    rows, columns = np.nonzero((image == np.asarray(colour, dtype=np.uint8)).all(axis=-1))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


@pytest.mark.parametrize("classes", [2, 10, 40, 200, 1000])
def test_rows_are_true_classes_and_columns_predicted_ones(classes):
    counts = np.zeros((classes, classes), dtype=int)
    counts[0, -1] = 5  # Class 0 is always taken for the last one: the cell at the top right is full.
    image = pixels(counts)
    top, bottom, left, right = extent(image, FULL)
    side = max(GRID_PIXELS // classes, 1)
    assert (bottom - top + 1, right - left + 1) == (side, side)
    grid_top, _, grid_left, grid_right = extent(image, EMPTY)
    assert (top, right) == (grid_top, grid_left + side * classes - 1)
    assert grid_right <= right


def test_colours_are_shares_of_a_row_not_counts():
    rare_and_common = np.asarray([[1, 0], [0, 10_000]])
    image = pixels(rare_and_common)
    assert extent(image, FULL)[0] == extent(image, EMPTY)[0]


def test_the_same_counts_make_the_same_bytes_and_others_do_not():
    one, other = Confusion(((3, 1), (0, 2))), Confusion(((3, 1), (1, 2)))
    first = confusion_picture(one, class_names=("cat", "dog"), title="Round 1")
    assert first == confusion_picture(one, class_names=("cat", "dog"), title="Round 1")
    assert first != confusion_picture(other, class_names=("cat", "dog"), title="Round 1")
    assert first != confusion_picture(one, class_names=("cat", "hen"), title="Round 1")


@pytest.mark.parametrize(
    "names", [(), ("a",), ("\n", " "), ("a very long name that is cut", "ü"), ("", "\x00"), ("喵", "🐄")]
)
def test_any_class_names_can_be_drawn_and_long_ones_leave_the_grid_alone(names):
    image = pixels(np.eye(2, dtype=int), class_names=names)
    top, _, left, _ = extent(image, FULL)
    assert image.shape[0] >= top + GRID_PIXELS
    assert image.shape[1] >= left + GRID_PIXELS
    assert left < 220


def test_classes_that_nobody_saw_leave_empty_rows():
    image = pixels(np.zeros((3, 3), dtype=int))
    assert not (image == np.asarray(FULL, dtype=np.uint8)).all(axis=-1).any()
