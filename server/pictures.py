"""Pictures of evidence, as PNG bytes: one is drawn every round, in about 20 ms for ten classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from fl.drawing import BACKGROUND, INK, PALE, font_of, png, short, upright
from fl.metrics import Confusion
from fl.parameters import Array

RAMP = ((247, 251, 255), (158, 202, 225), (49, 130, 189), (8, 48, 107))
"""Colours of a share of 0, 1/3, 2/3 and 1 (ColorBrewer's Blues)."""

GRID_PIXELS = 560
MAX_NUMBERED = 16
"""With more classes than this, cells are too small for numbers."""


def confusion_picture(confusion: Confusion, *, class_names: Sequence[str], title: str) -> bytes:
    """A confusion matrix as a PNG: a row a true class, a column a predicted one.

    A cell's colour is its share of its row, its number the count; empty cells carry none. Classes without a name are
    numbered. With many classes only every second, fifth ... is labelled.
    """
    counts = np.asarray(confusion.counts, dtype=np.int64)
    classes = len(counts)
    names = [short(class_names[i] if i < len(class_names) else str(i)) for i in range(classes)]
    side = max(GRID_PIXELS // classes, 1)
    grid = side * classes
    small, large = font_of(13), font_of(17)
    margin = 50 + round(max(small.getlength(name) for name in names))
    image = Image.new("RGB", (margin + grid + 30, 56 + grid + margin), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((margin, 28), title, fill=INK, font=large, anchor="lm")

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = Image.fromarray(_colours(shares)).resize((grid, grid), Image.Resampling.NEAREST)
    image.paste(cells, (margin, 56))
    draw.rectangle((margin - 1, 55, margin + grid, 56 + grid), outline=PALE)
    if classes <= MAX_NUMBERED:
        _numbers(draw, counts, shares, left=margin, top=56, side=side)

    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, classes) if s * side >= 15 or s >= classes)
    flat = max(small.getlength(name) for name in names) <= side * step - 4
    for i in range(0, classes, step):
        middle = side * i + side // 2
        draw.text((margin - 8, 56 + middle), names[i], fill=INK, font=small, anchor="rm")
        if flat:
            draw.text((margin + middle, 56 + grid + 18), names[i], fill=INK, font=small, anchor="ms")
        else:
            upright(image, names[i], small, middle=margin + middle, top=56 + grid + 8)
    draw.text((margin + grid // 2, image.height - 14), "predicted", fill=PALE, font=small, anchor="mm")
    upright(image, "true", small, middle=16, top=56 + grid // 2 - 14, fill=PALE)
    return png(image)


def _numbers(draw: ImageDraw.ImageDraw, counts: Array, shares: Array, *, left: int, top: int, side: int) -> None:
    digits = len(str(counts.max()))
    font = font_of(max(8, min(15, int(side / (0.64 * digits + 0.6)))))
    for i, j in np.argwhere(counts):
        at = (left + side * int(j) + side // 2, top + side * int(i) + side // 2)
        draw.text(at, str(counts[i, j]), fill=BACKGROUND if shares[i, j] > 0.5 else INK, font=font, anchor="mm")


def _colours(shares: Array) -> Array:
    """RGB bytes (n, n, 3) of shares (n, n) in 0..1, linear between the colours of the ramp."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(shares, stops, [colour[k] for colour in RAMP]) for k in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
