"""A metric over clients as a picture: for each model the clients from worst to best."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = ("#1f77b4", "#d95f02", "#5b6770", "#7570b3")


def draw_clients(
    panels: Mapping[str, Mapping[str, Sequence[float]]], *, metric: str, title: str, lower_is_better: bool = False
) -> bytes:
    """A PNG with a panel a group: model -> values, one a client. A model is a curve from its worst client to its best.

    The worst tenth is shaded, and a mean is a dotted line. Up to 40 clients have a mark each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 + 4.6 * len(panels), 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (group, models) in zip(every, panels.items(), strict=True):
        axes.axvspan(0, 10, color="#000000", alpha=0.06, linewidth=0)
        most = 0
        for colour, (model, values) in zip(COLOURS, models.items(), strict=False):
            ordered = sorted(values, reverse=lower_is_better)
            most = max(most, len(ordered))
            # The middle of each client's own stretch, so that the first of ten lies inside the worst tenth.
            place = 100 * (np.arange(len(ordered)) + 0.5) / max(1, len(ordered))
            mark = "o" if len(ordered) <= 40 else None
            axes.plot(place, ordered, color=colour, marker=mark, markersize=4, linewidth=1.6, label=model)
            if ordered:
                axes.axhline(float(np.mean(ordered)), color=colour, linewidth=0.9, linestyle=":")
        axes.set_title(f"{group}: {most} client{'' if most == 1 else 's'}", loc="left", fontsize=10)
        axes.set_xlabel("% of clients, worst first")
        axes.set_xlim(0, 100)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel(metric)
    every[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
