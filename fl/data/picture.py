"""The partition as a picture: a bar a client, coloured by label."""

from __future__ import annotations

from collections.abc import Sequence
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
    from matplotlib.figure import Figure

    num_bars, num_classes = counts.shape
    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = _colours(num_classes)
    # One outline a class, with gaps of height 0 between the bars: a tenth of the time of a patch a bar and class.
    half = 0.4 if num_bars <= 40 else 0.46
    edges = (np.arange(num_bars)[:, None] + np.array([-half, half])).ravel()
    tops = np.zeros((num_classes + 1, 2 * num_bars - 1))
    tops[1:, ::2] = counts.cumsum(axis=1).T
    for c in range(num_classes):
        axes.stairs(tops[c + 1], edges, baseline=tops[c], fill=True, color=colours[c], linewidth=0)
    ticks = np.unique(np.linspace(0, num_bars - 1, min(num_bars, 20)).round().astype(int))
    axes.set_xticks(ticks, [str(clients[t]) for t in ticks])
    axes.set_xlim(-0.7, num_bars - 0.3)
    axes.set_xlabel("client" if num_bars == num_clients else f"client ({num_bars} of {num_clients:,} shown)")
    axes.set_ylabel("examples")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if 1 < num_classes <= _NAMED_CLASSES:
        names = list(class_names) or [str(c) for c in range(num_classes)]
        handles = [_swatch(colours[c]) for c in range(num_classes)]
        figure.legend(handles, names, title=legend, loc="outside right upper", fontsize=8, frameon=False)
    elif num_classes > 1:
        _colour_bar(figure, axes, num_classes, legend)
    figure.savefig(path, format="png", metadata={"Software": None})


def _colours(num_classes: int) -> list[Any]:
    from matplotlib import colormaps

    if num_classes == 1:
        return [_GREY]
    if num_classes <= 10:
        return [colormaps["tab10"](c) for c in range(num_classes)]
    if num_classes <= _NAMED_CLASSES:
        return [colormaps["tab20"](c) for c in range(num_classes)]
    return [colormaps["turbo"](c / (num_classes - 1)) for c in range(num_classes)]


def _swatch(colour: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour)


def _colour_bar(figure: Any, axes: Any, num_classes: int, legend: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure.colorbar(ScalarMappable(Normalize(0, num_classes - 1), "turbo"), ax=axes, label=legend)
