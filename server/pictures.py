"""Pictures of evidence, as PNG bytes.

Drawn with Pillow and not with matplotlib: about 20 ms instead of 300 for ten classes, which counts when it is done
every round. The typeface is the one that matplotlib ships.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fl.metrics import Confusion
from fl.parameters import Array

INK, PALE, BACKGROUND = (33, 37, 41), (108, 117, 125), (255, 255, 255)
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
    names = [_short(class_names[i] if i < len(class_names) else str(i)) for i in range(classes)]
    side = max(GRID_PIXELS // classes, 1)
    grid = side * classes
    small, large = _font(13), _font(17)
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
            _upright(image, names[i], small, middle=margin + middle, top=56 + grid + 8)
    draw.text((margin + grid // 2, image.height - 14), "predicted", fill=PALE, font=small, anchor="mm")
    _upright(image, "true", small, middle=16, top=56 + grid // 2 - 14, fill=PALE)
    return _png(image)


def _numbers(draw: ImageDraw.ImageDraw, counts: Array, shares: Array, *, left: int, top: int, side: int) -> None:
    digits = len(str(counts.max()))
    font = _font(max(8, min(15, int(side / (0.64 * digits + 0.6)))))
    for i, j in np.argwhere(counts):
        at = (left + side * int(j) + side // 2, top + side * int(i) + side // 2)
        draw.text(at, str(counts[i, j]), fill=BACKGROUND if shares[i, j] > 0.5 else INK, font=font, anchor="mm")


def _upright(
    image: Image.Image,
    text: str,
    font: ImageFont.FreeTypeFont,
    *,
    middle: int,
    top: int,
    fill: tuple[int, int, int] = INK,
) -> None:
    """Write from below to above, the end of ``text`` at ``top``."""
    line = Image.new("RGB", (round(font.getlength(text)) + 2, 18), BACKGROUND)
    ImageDraw.Draw(line).text((1, 9), text, fill=fill, font=font, anchor="lm")
    image.paste(line.rotate(90, expand=True), (middle - 9, top))


def _colours(shares: Array) -> Array:
    """RGB bytes (n, n, 3) of shares (n, n) in 0..1, linear between the colours of the ramp."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(shares, stops, [colour[k] for colour in RAMP]) for k in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _short(name: str) -> str:
    """At most 16 characters, and what cannot be seen as its escape."""
    visible = name if name.isprintable() and not name.isspace() else repr(name)[1:-1].replace(" ", "␣")
    return visible if len(visible) <= 16 else visible[:15] + "…"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Found, not imported: that takes a tenth of a second, in the first round of all.
    package = find_spec("matplotlib")
    assert package and package.origin, "we depend on it"
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=6)
    return out.getvalue()
