"""Rules held against private columns by query rounds: every violation at once, with the client and the column.

Each client answers for itself, since it is a client that is at fault; what it sends are counts, moments and a sketch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fl.data.analytics import Ask
from fl.data.rules import distance, each_client, shared_rows, shares_of
from fl.data.units import change_of_unit
from fl.errors import BadInput
from fl.messages import ALL_COLUMNS, Query
from fl.metrics import Counts, Statistic
from fl.moments import CoMoments, Moments

LEAST_FOR_LEAK = 20
"""Examples of a client below which nothing is said about leaks of its label."""


@dataclass(frozen=True)
class Violation:
    """``rule`` is broken by ``client`` (None: by all, or by the data as such) in ``column`` (None: in whole rows)."""

    client: int | None
    column: str | None
    rule: str
    found: str
    allowed: str


@dataclass(frozen=True)
class Checked:
    """What rules are held against: ``columns`` by number with their rules, and each client's answers so far."""

    ask: Ask
    names: tuple[str, ...]
    columns: Mapping[int, Mapping[str, Any]]
    label: Mapping[str, Any]
    rows: Mapping[str, Any]
    num_classes: int | None
    moments: Mapping[int, Mapping[str, Any]]
    clients: Sequence[int] | None = None

    def called(self, client: int) -> int:
        """What a client goes by."""
        return client if self.clients is None else self.clients[client]

    def having(self, *rules: str) -> list[int]:
        """Numbers of the columns that have one of these rules."""
        return [c for c, column in self.columns.items() if any(column.get(rule) not in (None, False) for rule in rules)]


def validate(
    ask: Ask,
    *,
    rules: Mapping[str, Any],
    names: Sequence[str],
    num_classes: int | None,
    clients: Sequence[int] | None = None,
) -> list[Violation]:
    """All violations of ``rules`` (see fl/data/rules.py), those of the data as such first, then by client and column.

    names         of all columns, the label's last;  ``num_classes`` of the label, None for a regression
    clients       what each client that is asked goes by, where others are left out; else its number
    """
    known = {name: c for c, name in enumerate(names)}
    found = [
        *(
            Violation(None, n, "schema", "it is not in the data", "every column of the rules")
            for n in rules["columns"]
            if n not in known
        ),
        *(
            Violation(None, n, "schema", "it is in no rule", "no other columns")
            for n in names
            if n not in rules["columns"]
        ),
    ]
    columns = {known[name]: dict(rule or {}) for name, rule in rules["columns"].items() if name in known}
    if not columns:
        raise BadInput(key="rules", got="no column of these data", allowed=", ".join(names))
    first = ask(Query("moments", (0,), by_client=True))
    found += [Violation(c, None, "readable", reason, "an answer") for c, reason in sorted(first.failures.items())]
    moments = each_client(ask, "moments", sorted(columns), {})
    checked = Checked(ask, tuple(names), columns, rules["label"], rules["rows"], num_classes, moments, clients)
    by_client = [v for check in CHECKS for v in check(checked)]
    order = {name: c for c, name in enumerate((None, *names))}
    found += sorted(by_client, key=lambda v: (-1 if v.client is None else v.client, order[v.column]))
    return [v if v.client is None else replace(v, client=checked.called(v.client)) for v in found]


def _values(checked: Checked) -> Iterator[Violation]:
    """type, missing_share."""
    for client, c, column, m in _each(checked, checked.moments, checked.having("type", "missing_share")):
        assert isinstance(m, Moments)
        name, rows = checked.names[c], max(1, m.count + m.missing)
        if column.get("type") == "whole" and m.whole < m.count:
            yield Violation(
                client, name, "type", f"{m.count - m.whole} of {m.count} values have fractions", "whole numbers"
            )
        bound = column.get("missing_share")
        if bound is not None and m.missing / rows > bound:
            yield Violation(client, name, "missing_share", f"{m.missing / rows:.3g}", f"{bound:g} at the most")


def _members(checked: Checked) -> Iterator[Violation]:
    """range, set."""
    columns = checked.having("range", "set")
    numbers = {
        f"{rule}/{c}": tuple(float(n) for n in checked.columns[c][rule])
        for c in columns
        for rule in ("range", "set")
        if checked.columns[c].get(rule) is not None
    }
    found = each_client(checked.ask, "outside", columns, numbers) if columns else {}
    for client, c, column, counted in _each(checked, found, columns):
        assert isinstance(counted, Counts)
        below, above, strangers = counted.counts
        name, count = checked.names[c], checked.moments[client][str(c)].count
        if below or above:
            low, high = column["range"]
            told = f"{below} below and {above} above, of {count} values"
            yield Violation(client, name, "range", told, f"{low:g} to {high:g}")
        if strangers:
            members = ", ".join(f"{n:g}" for n in column["set"])
            yield Violation(client, name, "set", f"{strangers} other of {count} values", members)


def _drift(checked: Checked) -> Iterator[Violation]:
    """drift, and with it a change of unit, where mean and deviation look like one."""
    columns = [c for c in checked.having("drift") if checked.columns[c].get("reference")]
    numbers = {f"edges/{c}": tuple(float(e) for e in checked.columns[c]["reference"]["edges"]) for c in columns}
    found = each_client(checked.ask, "histogram", columns, numbers) if columns else {}
    for client, c, column, drawn in _each(checked, found, columns):
        if not sum(drawn.counts):
            continue
        reference, m = column["reference"], checked.moments[client][str(c)]
        far, name = distance(shares_of(drawn.counts), reference["shares"]), checked.names[c]
        told = change_of_unit(m, reference)
        out = m.low < reference["edges"][0] or m.high > reference["edges"][-1]
        if told is not None and (far > column["drift"] or out):
            yield Violation(client, name, "unit", told, f"a mean near {reference['mean']:.4g}")
        if far > column["drift"]:
            yield Violation(client, name, "drift", f"distance {far:.2f}", f"{column['drift']:g} at the most")


def _label(checked: Checked) -> Iterator[Violation]:
    """smallest_share, leak of a classification's label: what each column alone tells about it, by its bins."""
    classes, label = checked.num_classes, len(checked.names) - 1
    if classes is None:
        yield from _linear_leak(checked)
        return
    edges = {
        c: rule["reference"]["edges"] for c, rule in checked.columns.items() if rule.get("reference") and c != label
    }
    numbers: dict[str, tuple[float, ...]] = {"classes": (float(classes),)}
    numbers |= {f"edges/{c}": tuple(float(e) for e in _inner(e)) for c, e in edges.items()}
    numbers[f"edges/{label}"] = ()
    found = each_client(checked.ask, "labels", [*edges, label], numbers)
    tables = {
        client: {int(c): np.array(s.counts).reshape(-1, classes) for c, s in f.items()} for client, f in found.items()
    }
    least, leak = checked.label.get("smallest_share"), checked.label.get("leak")
    for client, held in tables.items():
        counts = held[label].sum(axis=0)
        share = counts / max(1, counts.sum())
        if least is not None and share.min() < least:
            told = f"class {int(share.argmin())} has {share.min():.3g}"
            yield Violation(client, checked.names[label], "smallest_share", told, f"{least:g} at the least")
    together: list[tuple[int | None, int, Any]] = [(None, c, sum(held[c] for held in tables.values())) for c in edges]
    for who, c, table in [*together, *((client, c, held[c]) for client, held in tables.items() for c in edges)]:
        right = _told(table)
        if leak is not None and right is not None and right >= leak:
            yield Violation(
                who, checked.names[c], "leak", f"it alone tells {right:.3g} of the labels", f"below {leak:g}"
            )


def _inner(edges: Sequence[float]) -> Sequence[float]:
    return edges[1:-1] if len(edges) > 2 else edges


def _told(table: Any) -> float | None:
    """The share of examples whose class is that of most others in their bin; None where that says nothing, because
    there are few, or one class has nearly all.

    An example's own class is not counted for it: a bin with one example in it tells nothing.
    """
    counts = np.sort(np.asarray(table), axis=1)
    total = int(counts.sum())
    if total < LEAST_FOR_LEAK or np.asarray(table).sum(axis=0).max() > 0.95 * total:
        return None
    first, second = counts[:, -1], counts[:, -2] if counts.shape[1] > 1 else 0 * counts[:, -1]
    return float(np.where(first - 1 > second, first, 0).sum() / total)


def _linear_leak(checked: Checked) -> Iterator[Violation]:
    label, leak = len(checked.names) - 1, checked.label.get("leak")
    for c in [c for c in checked.columns if leak is not None and c != label]:
        answers = checked.ask(Query("comoments", (c, label), by_client=True))
        for client, statistics in sorted(answers.by_client().items()):
            pair = statistics[ALL_COLUMNS]
            assert isinstance(pair, CoMoments)
            r = abs(pair.correlation[0, 1])
            if pair.count[1] >= LEAST_FOR_LEAK and r >= leak:
                yield Violation(client, checked.names[c], "leak", f"its correlation is {r:.4g}", f"below {leak:g}")


def _rows(checked: Checked) -> Iterator[Violation]:
    """unique, repeated_share, leaked_share: of a client's own rows."""
    unique = checked.having("unique")
    for i, block in enumerate([unique[i : i + 31] for i in range(0, len(unique), 31)] or [[]]):
        answers = checked.ask(Query("repeats", tuple(block) or (0,), by_client=True))
        for report in answers.reports:
            client, n = report.clients[0], max(1, report.num_examples)
            for c in block:
                again = _count(report.statistics[str(c)])
                if again:
                    yield Violation(
                        client, checked.names[c], "unique", f"{again} values occur again", "each value once"
                    )
            for place, rule in enumerate(("repeated_share", "leaked_share")):
                bound, share = checked.rows.get(rule), _count(report.statistics[ALL_COLUMNS], place) / n
                if i == 0 and bound is not None and share > bound:
                    yield Violation(client, None, rule, f"{share:.3g}", f"{bound:g} at the most")


def _copies(checked: Checked) -> Iterator[Violation]:
    """shared_share: of two clients with the same rows the later one is at fault."""
    bound = checked.rows.get("shared_share")
    for first, later, share in [] if bound is None else shared_rows(checked.ask):
        if bound is not None and share > bound:
            told = f"{share:.3g} of its rows are those of client {checked.called(first)}"
            yield Violation(later, None, "shared_share", told, f"{bound:g} at the most")


CHECKS = (_values, _members, _drift, _label, _rows, _copies)


def _each(
    checked: Checked, found: Mapping[int, Mapping[str, Any]], columns: Sequence[int]
) -> Iterator[tuple[int, int, Mapping[str, Any], Any]]:
    for client, statistics in found.items():
        for c in columns:
            yield client, c, checked.columns[c], statistics[str(c)]


def _count(statistic: Statistic, place: int = 0) -> int:
    assert isinstance(statistic, Counts)
    return statistic.counts[place]
