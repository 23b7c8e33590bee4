"""`fl formats`: versions by formats as one table, each cell measured by the format's own reader, or refused with why.

A cell holds what is asked for, in this order: size of the file, time from the file to the first answer, time a row,
largest difference to the model on held-back examples, and the score of the file's own answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from experiments.export import Opened
    from fl.registry import Registry

SHOWN = ("bytes", "load", "row", "difference", "score")


def measure(
    names: Mapping[str, str], *, formats: Sequence[str], registry: Path, score: bool = False
) -> list[dict[str, Any]]:
    """A row for each version (by what it is called in the table) and format: figures, or ``refused`` with the reason.

    score   also of the file's own answers to held-back examples: accuracy, or for a regression the mean absolute error

    Raises BadInput where a version, or a format, is none; a format whose packages are missing is told in its rows.
    """
    from experiments.export import listed, opened
    from fl.packaging.export import FORMATS, check_formats
    from fl.registry import Registry

    wanted = listed(formats) or list(FORMATS)
    for name in wanted:
        try:
            check_formats([name], key="--format")
        except MissingExtra:
            continue
    store = Registry.existing(registry)
    versions = {label: opened(name, registry) for label, name in names.items()}
    return [
        {"model": label, "version": found.version.name, "format": kind, **_cell(store, found, kind, score)}
        for label, found in versions.items()
        for kind in wanted
    ]


def table(rows: Sequence[Mapping[str, Any]], *, shown: Sequence[str]) -> str:
    """``rows`` as Markdown: a line a format, a column a model; reasons of what was refused are numbered below."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    formats = list(dict.fromkeys(row["format"] for row in rows))
    cells = {(row["format"], row["model"]): row for row in rows}
    reasons: list[str] = []
    lines = [f"| | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for kind in formats:
        told = [_in_words(cells[kind, model], shown, reasons) for model in models]
        lines.append(f"| `{kind}` | {' | '.join(told)} |")
    notes = [f"{i}. {reason}" for i, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def show(rows: Sequence[Mapping[str, Any]], *, shown: Sequence[str], as_json: bool) -> None:
    """Print the table, or a JSON list with an object a cell."""
    print(json.dumps(list(rows), indent=2) if as_json else table(rows, shown=shown))


def labelled(versions: Sequence[str]) -> dict[str, str]:
    """What a version is called in the table -> its name, from LABEL=VERSION or VERSION as typed."""
    found: dict[str, str] = {}
    for text in versions:
        label, equals, name = text.partition("=")
        if label in found or not label:
            raise BadInput(key="VERSION", got=text, allowed="VERSION or LABEL=VERSION, each with a label of its own")
        found[label] = name if equals else text
    return found


def chosen(shown: str) -> list[str]:
    """The figures to show, as typed with commas; BadInput for one that there is not."""
    names = [name.strip() for name in shown.split(",") if name.strip()]
    for name in names:
        if name not in SHOWN:
            raise BadInput(key="--show", got=name, allowed=", ".join(SHOWN))
    return [name for name in SHOWN if name in names]


def _cell(store: Registry, found: Opened, kind: str, score: bool) -> dict[str, Any]:
    """One version in one format, written into a folder that is gone afterwards."""
    from fl.packaging.export import FORMATS, export

    with TemporaryDirectory(prefix="meadow-formats-") as folder:
        try:
            (done,) = export(
                found.module,
                signature=found.signature,
                parameters=found.parameters,
                examples=found.examples,
                formats=[kind],
                output=Path(folder),
                name="model",
                manifest={"model_sha256": found.version.model_sha256},
                measure=True,
            )
        except MissingExtra as error:
            return {"refused": f"not installed here: {error.allowed}"}
        except BadInput as error:
            return {"refused": _reason(str(error.got), kind)}
        figures: dict[str, Any] = {
            "bytes": done.bytes,
            "load": done.load_seconds,
            "row": done.row_seconds,
            "difference": done.largest_difference,
            "tolerance": done.tolerance,
            "examples": done.examples,
        }
        if score:
            figures |= _score(store, found, FORMATS[kind].read(done.path, found.module), most=FORMATS[kind].examples)
        return figures


def _reason(got: str, kind: str) -> str:
    """Why a format was refused, without what the table says already."""
    words = got.removeprefix(f"{kind}, ")
    return words.removeprefix("which cannot express this model (").removesuffix(")") if "(" in words else words


def _score(store: Registry, found: Opened, predict: Any, *, most: int) -> dict[str, Any]:
    """What the file's answers are worth on as many held-back examples as its reader is asked about."""
    from experiments.evaluation import held_back
    from fl.evaluation.answers import answers
    from fl.packaging.predict import Asked

    examples = held_back(store, found.version)
    metric, values = answers(Asked(predict), examples.x[:most], examples.y[:most], found.signature).score
    return {"metric": metric, "score": float(values.mean()), "scored": len(values)}


def _in_words(cell: Mapping[str, Any], shown: Sequence[str], reasons: list[str]) -> str:
    if reason := cell.get("refused"):
        if reason not in reasons:
            reasons.append(reason)
        return f"refused ({reasons.index(reason) + 1})"
    return ", ".join(_WORDS[name](cell[name]) for name in shown if name in cell)


def _size(count: float) -> str:
    return _in_unit(count, (("MB", 1e6), ("kB", 1e3), ("B", 1.0)), digits=3)


def _time(seconds: float) -> str:
    return _in_unit(seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)), digits=2)


def _in_unit(value: float, units: Sequence[tuple[str, float]], *, digits: int) -> str:
    """``value`` in the largest of ``units`` that it reaches, or else the last, rounded to so many digits.

    >>> _in_unit(0.00096, (("s", 1.0), ("ms", 1e-3)), digits=2)
    '0.96 ms'
    """
    unit, size = next((one for one in units if value >= one[1]), units[-1])
    return f"{float(f'{value / size:.{digits}g}'):g} {unit}"


_WORDS: dict[str, Callable[[float], str]] = {
    "bytes": _size,
    "load": _time,
    "row": _time,
    "difference": lambda value: f"{value:.0e}".replace("e-0", "e-") if value else "0",
    "score": lambda value: f"{value:.4f}".lstrip("0"),
}
