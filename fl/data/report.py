"""A profile as one HTML page: plots drawn in SVG, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fl.files import write_bytes

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d2733;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem} h2{font-size:1.15rem;margin-top:2.2rem} p{color:#4a5663}
.column{display:grid;grid-template-columns:17rem 24rem 1fr;gap:1.2rem;border-top:1px solid #dde3e8;padding:1rem 0}
h3{margin:0;font-size:1.05rem} .kind{color:#5b6770;font-size:.85rem} table{border-collapse:collapse;font-size:.85rem}
td{padding:.05rem .9rem .05rem 0;font-variant-numeric:tabular-nums} td:first-child{color:#5b6770}
.facts{display:flex;gap:.6rem;margin-top:.3rem}
.label{background:#f3f8f4} svg{overflow:visible} text{font:11px system-ui,sans-serif;fill:#4a5663}
"""
BAR, LABEL_BAR = "#4c78a8", "#54a24b"
WIDTH, HEIGHT = 370, 120
MOST_SHOWN = 8
ERRORS = {"count": "total_error", "mean": "mean_error", "deviation": "deviation_error"}
READ_OFF = {"count_error": "a bar", "rank_error": "a rank"}
"""What a private profile says of its own errors: beside a number, and in lines of their own."""


def write_report(profile: Mapping[str, Any], path: Path, *, title: str, facts: Mapping[str, Any]) -> None:
    """Write the page. ``facts`` are shown below the title as they are."""
    write_bytes(path, page(profile, title=title, facts=facts).encode(), site="report")


def page(profile: Mapping[str, Any], *, title: str, facts: Mapping[str, Any]) -> str:
    """The text of the page."""
    epsilon = profile["epsilon"]
    told = (
        f"Differentially private with &epsilon; = {epsilon:g} for the whole page, by example: noise lies on every "
        "count, and all numbers are read off the bins. With a probability of "
        f"{profile['probability']:.0%}, for the whole page at once, each is within its &plusmn;: a bar's count, "
        "all counts, a mean, a deviation, and how many values a quantile may be away from its own rank."
        if epsilon
        else "Counts, means, deviations, quantiles, histograms and correlations are exact; a value is told as frequent "
        f"where a client has it {profile['at_least']} times or more, so its count may be too low by what is stated."
    )
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1><p>{escape(', '.join(f'{k} {_text(v)}' for k, v in facts.items()))}</p>",
        f"<p>Made of merged statistics alone: no row left its client. {told}</p>",
        "<h2>Columns</h2>",
        *(_column(column) for column in profile["columns"]),
    ]
    if profile["correlation"]:
        parts += [
            "<h2>Correlation</h2>",
            matrix(profile["correlation"], [c["name"] for c in profile["columns"]], label="correlation"),
        ]
    return "\n".join([*parts, "</html>\n"])


def _column(column: Mapping[str, Any]) -> str:
    label = column["role"] == "label"
    kind = ", ".join(str(k) for k in (column.get("type"), "the label" if label else None) if k)
    names = column.get("class_names") or []
    rows: list[tuple[str, Any]] = [
        (name.replace("_", " "), _give_or_take(column[name], column.get(ERRORS.get(name, ""))))
        for name in ("count", "missing", "min", "max", "mean", "median", "deviation")
        if column.get(name) is not None
    ]
    if "distinct" in column:
        about = f" ± {column['distinct_error']:.1%}" if column["distinct_error"] else ""
        rows.append(("distinct", f"{column['distinct']:,}{about}"))
    rows += [(name, column["quantiles"][name]) for name in column["quantiles"] if name != "median"]
    top = [(_value(one["value"], names), one["count"]) for one in column.get("top", [])[:MOST_SHOWN]]
    if column.get("top_lost"):
        top.append(("each may be more by", column["top_lost"]))
    rows += [(told, f"± {_text(column[error])}") for error, told in READ_OFF.items() if error in column]
    half = (len(rows) + 1) // 2
    head = f"<h3>{escape(column['name'])}</h3><span class=kind>{escape(kind)}</span>"
    facts = f"{head}<div class=facts>{_table(rows[:half])}{_table(rows[half:])}</div>"
    drawn = _bars(column["histogram"], LABEL_BAR if label else BAR)
    parts = "".join(f"<div>{part}</div>" for part in (facts, drawn, _table(top)))
    return f"<div class='column{' label' if label else ''}'>{parts}</div>"


def _value(value: float, names: Sequence[str]) -> str:
    return str(names[int(value)]) if names and value.is_integer() and 0 <= value < len(names) else _text(value)


def _give_or_take(value: Any, error: Any) -> Any:
    return value if error is None else f"{_text(value)} ± {_text(error)}"


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}<td>{escape(_text(value))}" for name, value in rows)
    return f"<table>{cells}</table>"


def _bars(histogram: Mapping[str, Sequence[float]], colour: str) -> str:
    edges, counts = histogram["edges"], histogram["counts"]
    most, span = max([1.0, *counts]), edges[-1] - edges[0]
    bars = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        x, tall = (low - edges[0]) / span * WIDTH, max(0.0, count) / most * HEIGHT
        wide = max(0.5, (high - low) / span * WIDTH - 1)
        tip = f"<title>{_text(low)} to {_text(high)}: {_text(count)}</title>"
        bars.append(
            f"<rect x={x:.1f} y={HEIGHT - tall:.1f} width={wide:.1f} height={tall:.1f} fill='{colour}'>{tip}</rect>"
        )
    ends = (
        f"<text x=0 y={HEIGHT + 14}>{_text(edges[0])}</text>"
        f"<text x={WIDTH} y={HEIGHT + 14} text-anchor=end>{_text(edges[-1])}</text>"
        f"<line x1=0 x2={WIDTH} y1={HEIGHT} y2={HEIGHT} stroke='#9aa5ae'/>"
    )
    return f"<svg width={WIDTH} height={HEIGHT + 18} role=img aria-label=distribution>{''.join(bars)}{ends}</svg>"


def matrix(correlation: Sequence[Sequence[float | None]], names: Sequence[str], *, label: str) -> str:
    """A square a pair: blue for -1, white for 0, red for 1, grey where there is no correlation."""
    side, margin = max(8, min(34, 760 // len(names))), 130
    size = margin + side * len(names)
    drawn = []
    for i, row in enumerate(correlation):
        y = margin + i * side
        drawn.append(f"<text x={margin - 6} y={y + side / 2 + 4:.0f} text-anchor=end>{escape(names[i])}</text>")
        x = margin + i * side + side / 2 + 4
        drawn.append(
            f"<text x={x:.0f} y={margin - 6} transform='rotate(-60 {x:.0f} {margin - 6})'>{escape(names[i])}</text>"
        )
        for j, r in enumerate(row):
            told = "none" if r is None else f"{r:.2f}"
            tip = f"<title>{escape(names[i])}, {escape(names[j])}: {told}</title>"
            place = f"x={margin + j * side} y={y} width={side - 1} height={side - 1}"
            drawn.append(f"<rect {place} fill='{_colour(r)}'>{tip}</rect>")
            if r is not None and side >= 28:
                middle = f"x={margin + j * side + side / 2:.0f} y={y + side / 2 + 4:.0f}"
                drawn.append(f"<text {middle} text-anchor=middle>{told}</text>")
    return f"<svg width={size} height={size} role=img aria-label={escape(label)}>{''.join(drawn)}</svg>"


def _colour(r: float | None) -> str:
    if r is None:
        return "#e3e6e8"
    faded = round(255 - 150 * min(1.0, abs(r)))
    return f"rgb(255,{faded},{faded})" if r > 0 else f"rgb({faded},{faded},255)"


def _text(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
