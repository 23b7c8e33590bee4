"""Plots of evidence as SVG: drawn by Matplotlib, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#4c78a8", "#e08214", "#9aa5ae"
MOST_BARS = 25


def drawn(draw: Callable[[Axes], None], *, width: float = 7.0, height: float = 3.2) -> str:
    """An ``svg`` element with what ``draw`` put on its axes; sizes in inches."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "meadow", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def plots(evaluate: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The plots that evidence ``evaluate`` and the metrics of a run's ``rounds`` give, by title; those without numbers
    are left out.
    """
    made = {}
    known = {name for one in rounds for name, value in one["metrics"].items() if value is not None}
    for name in [name for name in ("loss", "accuracy", "rmse", "r2", "perplexity") if name in known]:
        made[f"{name} over rounds"] = drawn(lambda axes, name=name: _rounds(axes, rounds, name))  # type: ignore[misc]
    if "answered" in evaluate.get("calibration", {}):
        made["calibration"] = drawn(lambda axes: _reliability(axes, evaluate["calibration"]["answered"]), width=4)
    if "confusion" in evaluate.get("classes", {}):
        made["which class was answered for which"] = drawn(
            lambda axes: _confusion(axes, evaluate["classes"]), width=4.5, height=4
        )
    if slices := list(evaluate.get("slices", ())):
        made["slices"] = drawn(lambda axes: _slices(axes, slices), height=0.6 + 0.24 * min(len(slices), MOST_BARS))
    if kinds := [one for one in evaluate.get("robustness", ()) if "values" in one]:
        made["robustness"] = drawn(lambda axes: _robustness(axes, kinds))
    if inputs := evaluate.get("explanation", {}).get("permutation"):
        made["which inputs matter"] = drawn(lambda axes: _importance(axes, inputs), height=0.6 + 0.24 * len(inputs))
    return made


def _rounds(axes: Axes, rounds: Sequence[Mapping[str, Any]], name: str) -> None:
    known = [(one["round"], one["metrics"][name]) for one in rounds if one["metrics"].get(name) is not None]
    axes.plot(*zip(*known, strict=True), color=BLUE, marker="." if len(known) < 40 else None)
    chosen = [(one["round"], one["metrics"].get(name)) for one in rounds if one["chosen"]]
    if chosen and chosen[0] in known:
        axes.plot(*chosen[0], "o", color=ORANGE, label="this version")
        axes.legend(frameon=False)
    axes.set(xlabel="round", ylabel=name)


def _reliability(axes: Axes, found: Mapping[str, Any]) -> None:
    known = [(s, t) for s, t in zip(found["sure"], found["came_true"], strict=True) if s is not None]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.plot(*zip(*known, strict=True), color=BLUE, marker="o")
    axes.set(xlabel="how sure it was", ylabel="how often it was right", xlim=(0, 1), ylim=(0, 1))


def _confusion(axes: Axes, found: Mapping[str, Any]) -> None:
    table, names = found["confusion"], [one["name"] for one in found["each"]]
    shares = [[count / max(1, sum(row)) for count in row] for row in table]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="true")
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        for i, row in enumerate(table):
            for j, count in enumerate(row):
                axes.text(j, i, str(count), ha="center", va="center", color="white" if shares[i][j] > 0.6 else "black")


def _slices(axes: Axes, slices: Sequence[Mapping[str, Any]]) -> None:
    lower = slices[0]["metric"] == "mae"
    worst = sorted(slices, key=lambda one: -one["value"] if lower else one["value"])[:MOST_BARS][::-1]
    for place, one in enumerate(worst):
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color=GREY, linewidth=3, solid_capstyle="butt")
        axes.plot(one["value"], place, "o", color=BLUE)
    axes.set_yticks(range(len(worst)), [f"{one['name']} ({one['examples']})" for one in worst])
    axes.set(xlabel=f"{worst[0]['metric']}, with its interval; the worst {len(worst)} of {len(slices)} slices")


def _robustness(axes: Axes, kinds: Sequence[Mapping[str, Any]]) -> None:
    for one in kinds:
        strengths = [0, *(step["strength"] for step in one["values"])]
        axes.plot(
            strengths, [one["unchanged"], *(step["value"] for step in one["values"])], marker="o", label=one["kind"]
        )
    axes.set(xlabel="strength: deviations, or the share that is missing", ylabel=kinds[0]["metric"])
    axes.legend(frameon=False)


def _importance(axes: Axes, inputs: Sequence[Mapping[str, Any]]) -> None:
    first = list(inputs)[:MOST_BARS][::-1]
    places = range(len(first))
    axes.barh(places, [one["importance"] for one in first], xerr=[one["deviation"] for one in first], color=BLUE)
    axes.set_yticks(places, [one["input"] for one in first])
    axes.set(xlabel="how much worse without it")
