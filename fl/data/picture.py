"""The partition as a picture: a bar a client, coloured by label."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fl.drawing import BACKGROUND, INK, PALE, font_of, png, short, upright
from fl.parameters import Array

MAX_BARS = 100
_NAMED_CLASSES = 20
_GREY = (91, 103, 112)
_HUES = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
"""Ten colours that are told apart easily (Tableau's)."""

WIDTH, HEIGHT = 1100, 460
LEFT, TOP, BOTTOM = 80, 42, 402
"""Where the bars are, in pixels; what is right of them depends on the legend."""


def shown_clients(num_clients: int) -> Array:
    """The clients that get a bar: all up to a hundred, else a hundred evenly spaced."""
    return np.unique(np.linspace(0, num_clients - 1, min(num_clients, MAX_BARS)).round().astype(np.int64))


def draw_partition(
    path: Path,
    counts: Array,
    *,
    clients: Array,
    num_clients: int,
    title: str,
    class_names: Sequence[str] = (),
    legend: str = "label",
) -> None:
    """Write a PNG of stacked bars. ``counts`` (bars, classes) are examples; one class draws plain bars.

    ``clients`` are the ids of the bars, in ascending order, out of ``num_clients``. Up to 20 classes get a legend, more
    a bar of colours.
    """
    num_bars, num_classes = counts.shape
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    colours = _colours(num_classes)
    right = WIDTH - 20 if num_classes == 1 else WIDTH - 175
    highest = 1.05 * max(1, int(counts.sum(axis=1).max()))
    draw.text((LEFT, TOP - 20), title, fill=INK, font=font_of(16), anchor="lm")
    _scale(image, draw, highest)
    step = (right - LEFT) / num_bars
    gap = 0.1 * step if num_bars <= 40 else 0.04 * step
    edges = BOTTOM - np.round(counts.cumsum(axis=1) * (BOTTOM - TOP) / highest).astype(int)
    for bar, label in np.argwhere(counts):
        low = BOTTOM if label == 0 else int(edges[bar, label - 1])
        high = int(edges[bar, label])
        if high < low:
            left = LEFT + bar * step
            draw.rectangle((round(left + gap), high, round(left + step - gap) - 1, low - 1), fill=colours[label])
    draw.line((LEFT, TOP, LEFT, BOTTOM, right, BOTTOM), fill=PALE)
    ticks = np.unique(np.linspace(0, num_bars - 1, min(num_bars, 20)).round().astype(int))
    for tick in ticks:
        middle = round(LEFT + (tick + 0.5) * step)
        draw.line((middle, BOTTOM, middle, BOTTOM + 4), fill=PALE)
        draw.text((middle, BOTTOM + 14), str(clients[tick]), fill=INK, font=font_of(12), anchor="mm")
    named = "client" if num_bars == num_clients else f"client ({num_bars} of {num_clients:,} shown)"
    draw.text(((LEFT + right) // 2, BOTTOM + 38), named, fill=PALE, font=font_of(13), anchor="mm")
    if 1 < num_classes <= _NAMED_CLASSES:
        names = list(map(short, class_names)) or list(map(str, range(num_classes)))
        _legend(draw, right + 18, colours, names, legend)
    elif num_classes > 1:
        _colour_bar(draw, right + 24, colours, legend)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(png(image))
    draft.replace(path)


def _scale(image: Image.Image, draw: ImageDraw.ImageDraw, highest: float) -> None:
    """Round numbers of examples beside the bars, at most seven."""
    power = 10.0 ** np.floor(np.log10(highest / 5))
    step = max(1, round(power * next(k for k in (1, 2, 5, 10) if highest / (k * power) <= 7)))
    for number in range(0, int(highest) + 1, step):
        y = round(BOTTOM - number * (BOTTOM - TOP) / highest)
        draw.line((LEFT - 4, y, LEFT, y), fill=PALE)
        draw.text((LEFT - 9, y), f"{number:,}", fill=INK, font=font_of(12), anchor="rm")
    upright(image, "examples", font_of(13), middle=14, top=(TOP + BOTTOM) // 2 - 30, fill=PALE)


def _colours(num_classes: int) -> list[tuple[int, int, int]]:
    """A colour a class: told apart by hue up to 20, in order of the rainbow above."""
    if num_classes == 1:
        return [_GREY]
    if num_classes <= len(_HUES):
        return list(_HUES[:num_classes])
    if num_classes <= _NAMED_CLASSES:
        pale = [((r + 255) // 2, (g + 255) // 2, (b + 255) // 2) for r, g, b in _HUES]
        return [colour for pair in zip(_HUES, pale, strict=True) for colour in pair][:num_classes]
    rainbow = (colorsys.hsv_to_rgb(0.72 * (1 - k / (num_classes - 1)), 0.75, 0.9) for k in range(num_classes))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rainbow]


def _legend(
    draw: ImageDraw.ImageDraw, left: int, colours: Sequence[tuple[int, int, int]], names: Sequence[str], title: str
) -> None:
    draw.text((left, TOP + 4), title, fill=PALE, font=font_of(13), anchor="lm")
    for place, (colour, name) in enumerate(zip(colours, names, strict=True)):
        y = TOP + 24 + 17 * place
        draw.rectangle((left, y - 5, left + 14, y + 5), fill=colour)
        draw.text((left + 22, y), name, fill=INK, font=font_of(12), anchor="lm")


def _colour_bar(draw: ImageDraw.ImageDraw, left: int, colours: Sequence[tuple[int, int, int]], title: str) -> None:
    draw.text((left, TOP + 4), title, fill=PALE, font=font_of(13), anchor="lm")
    top, last = TOP + 24, len(colours) - 1
    for y in range(top, BOTTOM):
        share = (BOTTOM - 1 - y) / (BOTTOM - 1 - top)
        draw.line((left, y, left + 16, y), fill=colours[round(share * last)])
    for k in range(5):
        y = round(BOTTOM - 1 - k / 4 * (BOTTOM - 1 - top))
        draw.text((left + 24, y), str(round(k / 4 * last)), fill=INK, font=font_of(12), anchor="lm")
