"""The page of a profile: whole by itself, true to its numbers, and safe whatever a column is called."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from fl.data.report import page, write_report
from fl.errors import StorageFailed

COLUMN = {
    "name": "<b>age</b>",
    "role": "input",
    "type": "whole",
    "count": 30,
    "missing": 2,
    "min": 1.0,
    "max": 3.0,
    "mean": 2.25,
    "median": 2.0,
    "deviation": 0.5,
    "quantiles": {"p5": 1.0, "median": 2.0},
    "distinct": 3,
    "distinct_error": 0.016,
    "top": [{"value": 2.0, "count": 20}],
    "top_lost": 4,
    "histogram": {"edges": [0.5, 1.5, 2.5, 3.5], "counts": [5, 20, 5]},
}
LABEL = {**COLUMN, "name": "ill", "role": "label", "class_names": ["no", "yes", "perhaps"], "top_lost": 0}
PROFILE = {"epsilon": None, "at_least": 5, "columns": [COLUMN, LABEL], "correlation": [[1.0, -0.5], [None, 1.0]]}


class Seen(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.bars, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "rect":
            self.bars.append(found)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_page_shows_the_numbers_and_fetches_nothing():
    text = page(PROFILE, title="T", facts={"clients": 4})
    seen = Seen(text)
    assert {"<b>age</b>", "clients 4", "2.25", "3 ± 1.6%", "each may be more by", "0.5 to 1.5: 5"} <= set(seen.words)
    assert "perhaps" in seen.words, "a label's value is told by its class"
    assert "<b>age" not in text
    assert seen.links == [] and "<script" not in text and "http" not in text


def test_bars_are_as_tall_as_their_counts_and_correlations_have_their_colour():
    bars = Seen(page(PROFILE, title="T", facts={})).bars
    heights = [float(bar["height"]) for bar in bars[:3]]
    assert heights == [30.0, 120.0, 30.0]
    assert [bar["fill"] for bar in bars[6:]] == ["rgb(255,105,105)", "rgb(180,180,255)", "#e3e6e8", "rgb(255,105,105)"]


def test_noise_is_stated_beside_every_number():
    names = ("total_error", "mean_error", "deviation_error", "count_error", "rank_error")
    errors = {name: i + 0.5 for i, name in enumerate(names)}
    private = {**PROFILE, "epsilon": 2.0, "probability": 0.95, "columns": [{**COLUMN, **errors}]}
    text = page({**private, "correlation": None}, title="T", facts={})
    assert "&epsilon; = 2 for the whole page" in text and "probability of 95%" in text
    assert {"30 ± 0.5", "2.25 ± 1.5", "0.5 ± 2.5", "a bar", "± 3.5", "a rank", "± 4.5"} <= set(Seen(text).words)


def test_a_report_that_cannot_be_written_is_a_named_error(tmp_path):
    with pytest.raises(StorageFailed, match=r"report\.html could not be written"):
        write_report(PROFILE, tmp_path / "nowhere" / "report.html", title="T", facts={})
