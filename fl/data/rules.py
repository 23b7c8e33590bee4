"""What a table must be like: rules, inferred from data that are trusted, edited by a person, and kept as YAML.

    columns:
      age:
        type: whole                   only whole numbers; left out: any
        range: [28.0, 77.0]           no value below or above
        set: [0.0, 1.0]               no other value
        unique: true                  no value twice at a client
        missing_share: 0.1            of a client's values at the most
        drift: 0.3                    distance of a client's histogram to the reference, 0 (equal) to 1, at the most
        reference: {edges: [...], shares: [...], mean: 53.5, deviation: 9.6}
    label: {smallest_share: 0.1, leak: 0.99}
    rows: {repeated_share: 0.0, leaked_share: 0.0, shared_share: 0.05}

Every rule is about one client at a time. A rule that is left out is not checked; an unknown one is refused.

    smallest_share   of a client's examples that the rarest class has, at the least
    leak             how well one column alone may tell the label, as a share of right answers (for a regression, as
                     its correlation); at this or more the label is taken to be given away
    repeated_share   rows that a client has more than once;  leaked_share   rows of its validation and test parts that
                     it trains on;  shared_share   of the rows of two clients, those that both have
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl.data import analytics
from fl.data.analytics import Ask
from fl.errors import BadInput
from fl.messages import ALL_COLUMNS, Query
from fl.metrics import Counts
from fl.sketches import Rows

COLUMN_RULES = ("type", "range", "set", "unique", "missing_share", "drift", "reference")
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "label": ("smallest_share", "leak"),
    "rows": ("repeated_share", "leaked_share", "shared_share"),
}
REFERENCE = ("edges", "shares", "mean", "deviation")
LEAK = 0.99
ROWS_TOLD = 1024
"""Hashes in a client's sketch of its rows."""
SPARE = 0.1
"""What is added to a share, to a distance, or to both ends of a range, of its width, that were seen in trusted data:
the next data differ a little."""
MOST_SHARED = 0.5
"""Two clients that share more are the same client twice, in trusted data too."""
FEW = 10
"""Different values at the most for a set to be inferred."""


def infer_rules(ask: Ask, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Rules that the profiled data keep, client by client, with a little to spare. Nothing is inferred about leaks of
    the label: whatever the data, ``LEAK`` is the bound.
    """
    columns = profile["columns"]
    numbers = [column["number"] for column in columns]
    edges = {column["number"]: column["histogram"]["edges"] for column in columns}
    named = {f"edges/{c}": tuple(e) for c, e in edges.items()}
    moments = each_client(ask, "moments", numbers, {})
    histograms = each_client(ask, "histogram", numbers, named)
    rules: dict[str, Any] = {"columns": {}}
    for column in columns:
        name = str(column["number"])
        most = max(s[name].missing / max(1, s[name].count + s[name].missing) for s in moments.values())
        shares = shares_of(column["histogram"]["counts"])
        drawn = [s[name].counts for s in histograms.values() if any(s[name].counts)]
        farthest = max((distance(shares_of(counts), shares) for counts in drawn), default=0.0)
        rule: dict[str, Any] = {"missing_share": _share(most), "drift": _share(farthest)}
        rule["reference"] = {
            "edges": list(column["histogram"]["edges"]),
            "shares": [round(float(share), 6) for share in shares],
            "mean": column["mean"],
            "deviation": column["deviation"],
        }
        if column["whole"] and column["count"]:
            rule["type"] = "whole"
            members = _members(column["histogram"])
            if members and len(members) <= FEW:
                rule["set"] = members
        if "set" not in rule and column["min"] is not None:
            rule["range"] = _range(column["min"], column["max"])
        rules["columns"][column["name"]] = {key: rule[key] for key in COLUMN_RULES if key in rule}
    rules["label"] = {"leak": LEAK}
    if columns[-1]["task"] == "classification":
        counted = [np.array(s[str(numbers[-1])].counts) for s in _classes(ask, columns[-1]).values()]
        least = min(float((counts / counts.sum()).min()) for counts in counted)
        rules["label"]["smallest_share"] = round(least / 2, 4)
    rules["rows"] = _row_rules(ask)
    return rules


def _range(low: float, high: float) -> list[float]:
    """With ``SPARE`` of its width on both sides; never across 0, where nothing was seen beyond it."""
    spare = SPARE * (high - low)
    least, most = low - spare, high + spare
    return [max(0.0, least) if low >= 0 else least, min(0.0, most) if high <= 0 else most]


def _members(histogram: Mapping[str, Any]) -> list[float]:
    """The whole numbers that occur, where the histogram has a bin for each; else none."""
    edges, counts = histogram["edges"], histogram["counts"]
    if any(high - low != 1 for low, high in itertools.pairwise(edges)):
        return []
    return [edge + 0.5 for edge, count in zip(edges[:-1], counts, strict=True) if count]


def _classes(ask: Ask, label: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    classes = int(label["max"]) + 1 if not label["class_names"] else len(label["class_names"])
    edges = tuple(float(edge) - 0.5 for edge in range(classes + 1))
    return dict(each_client(ask, "histogram", [label["number"]], {f"edges/{label['number']}": edges}))


def _row_rules(ask: Ask) -> dict[str, float]:
    repeated, leaked = 0.0, 0.0
    answers = ask(Query("repeats", (0,), by_client=True))
    for report in answers.reports:
        found = report.statistics[ALL_COLUMNS]
        assert isinstance(found, Counts)
        repeated = max(repeated, found.counts[0] / max(1, report.num_examples))
        leaked = max(leaked, found.counts[1] / max(1, report.num_examples))
    both = [share for _, _, share in shared_rows(ask)]
    return {
        "repeated_share": _share(repeated) if repeated else 0.0,
        "leaked_share": _share(leaked) if leaked else 0.0,
        "shared_share": min(MOST_SHARED, _share(max(both, default=0.0))),
    }


def shared_rows(ask: Ask) -> list[tuple[int, int, float]]:
    """Each pair of clients that have rows in common, and the share of the smaller one's rows that are."""
    answers = ask(Query("rows", (0,), {"capacity": (float(ROWS_TOLD),)}, by_client=True))
    sketches = {c: s for c, found in answers.by_client().items() if isinstance(s := found[ALL_COLUMNS], Rows)}
    holders: dict[int, list[int]] = {}
    for client, sketch in sketches.items():
        for one in sketch.hashes:
            holders.setdefault(one, []).append(client)
    pairs = {(a, b) for held in holders.values() for i, a in enumerate(held) for b in held[i + 1 :]}
    return [(a, b, sketches[a].shared(sketches[b])) for a, b in sorted(pairs)]


def each_client(
    ask: Ask, kind: str, columns: Sequence[int], numbers: Mapping[str, tuple[float, ...]]
) -> dict[int, dict[str, Any]]:
    """Every answering client's statistics of the columns, in client order."""
    found: dict[int, dict[str, Any]] = {}
    for answers in analytics.column_answers(ask, kind, columns, numbers, by_client=True):
        for client, statistics in answers.by_client().items():
            found.setdefault(client, {}).update(statistics)
    return dict(sorted(found.items()))


def shares_of(counts: Sequence[float]) -> np.ndarray[Any, Any]:
    """Counts as shares of their sum."""
    numbers = np.asarray(counts, np.float64)
    return numbers / max(1.0, float(numbers.sum()))


def distance(a: Sequence[float] | np.ndarray[Any, Any], b: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Total variation: the share that would have to move to make one the other, 0 to 1."""
    return float(np.abs(np.asarray(a) - np.asarray(b)).sum() / 2)


def _share(seen: float) -> float:
    return round(min(1.0, seen + SPARE), 4)


def check_rules(rules: Any, *, file: str) -> dict[str, Any]:
    """The rules as they were read, or BadInput that names what is wrong with them."""
    if not isinstance(rules, Mapping) or not isinstance(rules.get("columns"), Mapping):
        raise BadInput(key=file, got="no section columns", allowed="rules as fl data validate --infer writes them")
    for section in rules:
        if section != "columns" and section not in SECTIONS:
            raise BadInput(key=file, got=f"section {section}", allowed=", ".join(("columns", *SECTIONS)))
    for section, known in SECTIONS.items():
        for rule, bound in _entries(rules.get(section), f"{file}: {section}", known):
            _number(bound, f"{file}: {section}.{rule}", 0, 1)
    for name, column in rules["columns"].items():
        for rule, bound in _entries(column, f"{file}: columns.{name}", COLUMN_RULES):
            _check_column_rule(rule, bound, f"{file}: columns.{name}.{rule}")
    return {section: dict(rules.get(section) or {}) for section in ("columns", *SECTIONS)}


def _entries(section: Any, key: str, known: tuple[str, ...]) -> list[tuple[str, Any]]:
    if section is None:
        return []
    if not isinstance(section, Mapping):
        raise BadInput(key=key, got=section, allowed=f"rules by name: {', '.join(known)}")
    for rule in section:
        if rule not in known:
            raise BadInput(key=key, got=rule, allowed=", ".join(known))
    return list(section.items())


def _check_column_rule(rule: str, bound: Any, key: str) -> None:
    if rule == "type" and bound not in ("whole", "real"):
        raise BadInput(key=key, got=bound, allowed="whole, real")
    if rule == "unique" and not isinstance(bound, bool):
        raise BadInput(key=key, got=bound, allowed="true, false")
    if rule in ("missing_share", "drift"):
        _number(bound, key, 0, 1)
    if rule in ("range", "set"):
        if not isinstance(bound, list) or not bound:
            raise BadInput(key=key, got=bound, allowed="a list of numbers")
        for number in bound:
            _number(number, key)
        if rule == "range" and (len(bound) != 2 or bound[0] > bound[1]):
            raise BadInput(key=key, got=bound, allowed="two numbers, the lower first")
    if rule == "reference":
        entries = dict(_entries(bound, key, REFERENCE))
        if "edges" not in entries or len(entries["edges"]) != len(entries.get("shares", [])) + 1:
            raise BadInput(key=key, got="edges and shares that do not fit", allowed="one edge more than shares")


def _number(value: Any, key: str, low: float = -np.inf, high: float = np.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"a number from {low:g} to {high:g}" if np.isfinite(high) else "a number"
        raise BadInput(key=key, got=value, allowed=bounds)
