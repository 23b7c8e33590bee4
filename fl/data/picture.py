"""The partition as a picture: a bar a client, coloured by label."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fl.parameters import Array

MAX_BARS = 100
_NAMED_CLASSES = 20
_GREY = "#5b6770"


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
    a colour bar.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    num_bars, num_classes = counts.shape
    figure = Figure(figsize=(10, 4.2), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.07, 0.13, 0.91 if num_classes == 1 else 0.79, 0.78))
    colours = _colours(num_classes)
    # One collection of rectangles: bars and an automatic layout take ten times as long.
    bar, label = np.nonzero(counts)
    axes.add_collection(PolyCollection(list(_rectangles(counts)[bar, label]), facecolors=colours[label]), autolim=False)
    axes.set_xlim(-0.7, num_bars - 0.3)
    axes.set_ylim(0, 1.05 * max(1, counts.sum(axis=1).max()))
    ticks = np.unique(np.linspace(0, num_bars - 1, min(num_bars, 20)).round().astype(int))
    axes.set_xticks(ticks, [str(clients[t]) for t in ticks])
    axes.set_xlabel("client" if num_bars == num_clients else f"client ({num_bars} of {num_clients:,} shown)")
    axes.set_ylabel("examples")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if 1 < num_classes <= _NAMED_CLASSES:
        names = [name[:14] for name in class_names] or [str(c) for c in range(num_classes)]
        swatches = [Patch(color=colour) for colour in colours]
        axes.legend(
            swatches, names, title=legend, loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=8, frameon=False
        )
    elif num_classes > 1:
        _colour_bar(figure, num_classes, legend)
    draft = path.with_name(f".{path.name}.tmp")
    figure.savefig(draft, format="png", metadata={"Software": None})
    draft.replace(path)


_BEING_DRAWN: dict[Path, subprocess.Popen[bytes]] = {}
"""Pictures that processes of this one draw, and these processes."""

MOST_SECONDS = 60.0


def draw_beside(path: Path, counts: Array, **more: Any) -> None:
    """``draw_partition`` in a process of its own: half a second that nobody who is to train has to wait for.

    Nearly all of that is importing matplotlib: a process that has it draws at once, and here. Where the other process
    fails there is no picture, and a run is none the worse.
    """
    if "matplotlib.figure" in sys.modules:
        draw_partition(path, counts, **more)
        return
    drawing = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert drawing.stdin
    with suppress(BrokenPipeError), drawing.stdin as pipe:
        pickle.dump((path, counts, more), pipe)
    _BEING_DRAWN[path.resolve()] = drawing


def drawn(path: Path, *, wait: bool) -> bytes | None:
    """The picture; None where there is none, or without ``wait`` none yet."""
    if (drawing := _BEING_DRAWN.get(path.resolve())) is not None:
        try:
            drawing.wait(MOST_SECONDS if wait else 0)
        except subprocess.TimeoutExpired:
            if not wait:
                return None
            drawing.kill()
            drawing.wait()
        del _BEING_DRAWN[path.resolve()]
    return path.read_bytes() if path.is_file() else None


def _rectangles(counts: Array) -> Array:
    """Corners (bars, classes, 4, 2) of the stacked rectangles."""
    num_bars, num_classes = counts.shape
    half = 0.4 if num_bars <= 40 else 0.46
    top = counts.cumsum(axis=1)
    x = np.arange(num_bars)[:, None, None] + np.array([-half, half, half, -half])
    y = np.stack([top - counts, top - counts, top, top], axis=-1)
    return np.stack([np.broadcast_to(x, (num_bars, num_classes, 4)), y], axis=-1)


def _colours(num_classes: int) -> Array:
    """A colour (4,) a class: told apart by hue up to 20, in order above."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    if num_classes == 1:
        return np.array([to_rgba(_GREY)])
    if num_classes <= _NAMED_CLASSES:
        return np.asarray(colormaps["tab10" if num_classes <= 10 else "tab20"](np.arange(num_classes)))
    return np.asarray(colormaps["turbo"](np.linspace(0, 1, num_classes)))


def _colour_bar(figure: Any, num_classes: int, legend: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = figure.add_axes((0.88, 0.13, 0.015, 0.78))
    figure.colorbar(ScalarMappable(Normalize(0, num_classes - 1), "turbo"), cax=axes, label=legend)


if __name__ == "__main__":  # what draw_beside starts, and sends what is to be drawn
    _path, _counts, _more = pickle.load(sys.stdin.buffer)  # noqa: S301  from a process of our own
    draw_partition(_path, _counts, **_more)
