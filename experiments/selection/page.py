"""Trials, errors, shortlist and ensembles as one HTML page: plots drawn in SVG, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fl.data.report import STYLE, matrix
from fl.files import write_bytes

MORE = """
th{text-align:left;padding:.05rem .9rem .05rem 0;font-weight:600} .good{color:#2a7d3f} .bad{color:#a33}
td:first-child{color:#1d2733} .verdict{font-size:1.05rem;color:#1d2733}
"""
WIDTH, HEIGHT = 520, 120


def write_page(path: Path, report: Mapping[str, Any], *, title: str) -> None:
    """Write the page of ``report``: what ``analyse`` gives, with ``trials`` and ``verdict`` where there are some."""
    write_bytes(path, page(report, title=title).encode(), site="report")


def page(report: Mapping[str, Any], *, title: str) -> str:
    """The text of the page."""
    metric, examples = report["metric"], report["examples"]
    names = [one["name"] for one in report["models"]]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}{MORE}</style>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p class=verdict>{escape(line)}</p>" for line in report.get("verdict", [])),
        f"<p>Of the server's test examples {examples['chosen_on']} chose the shortlist and fitted what is stacked; the "
        f"figures below are of the other {examples['told_on']}.</p>",
    ]
    if "trials" in report:
        parts += ["<h2>Every trial</h2>", _trials(report["trials"], str(report["trial_metric"]))]
    parts += [
        "<h2>Models</h2>",
        _table(
            ("model", metric, "loss", "missed where chosen", "shortlisted"),
            [
                (one["name"], one[metric], one["loss"], one["missed"], one["name"] in report["shortlist"])
                for one in report["models"]
            ],
        ),
        "<h2>Who errs differently</h2><p>The share of examples that exactly one of two models misses.</p>",
        matrix(report["disagreement"], names, label="disagreement"),
        "<h2>How many models miss an example</h2>",
        _bars(report["missed_by"]),
    ]
    if report["hardest"]:
        parts.append("<h2>The hardest examples</h2>")
        hard = [
            (one["example"], one["target"], len(one["missed_by"]), ", ".join(one["missed_by"]))
            for one in report["hardest"]
        ]
        parts.append(_table(("test example", "target", "missed by", "models"), hard))
    parts.append("<h2>Ensembles</h2>")
    parts += [f"<p>{_ensemble(one)}</p>" for one in report["ensembles"]]
    return "\n".join([*parts, "</html>\n"])


def _ensemble(one: Mapping[str, Any]) -> str:
    head = f"<b>{escape(one['name'])}</b>, {escape(one['kind'])} of {escape(', '.join(one['members']))}: "
    if "absent" in one:
        return head + escape(one["absent"])
    return f"{head}<span class={'good' if one['beats'] else 'bad'}>{escape(one['verdict'])}</span>"


def _trials(trials: Sequence[Mapping[str, Any]], metric: str) -> str:
    rows = [
        (one["name"], one["state"], one["rounds"], one["value"], one.get("version"), " ".join(one["overrides"]))
        for one in trials
    ]
    return _table(("trial", "", "rounds", f"validation {metric}", "version", "settings"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(_text(value))}" for value in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _bars(counts: Sequence[int]) -> str:
    """A bar a number of models: how many examples exactly so many miss."""
    most, wide = max([1, *counts]), WIDTH / max(1, len(counts))
    bars = []
    for i, count in enumerate(counts):
        tall = count / most * HEIGHT
        middle = f"x={(i + 0.45) * wide:.1f} text-anchor=middle"
        bars.append(
            f"<rect x={i * wide:.1f} y={HEIGHT - tall:.1f} width={0.9 * wide:.1f} height={tall:.1f} fill='#4c78a8'/>"
            f"<text {middle} y={HEIGHT + 14}>{i}</text><text {middle} y={HEIGHT - tall - 4:.1f}>{count}</text>"
        )
    return f"<svg width={WIDTH} height={HEIGHT + 30} role=img aria-label='missed by'>{''.join(bars)}</svg>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
