"""Answers computed ahead: every row of a source asked of one version, each batch kept whole or not at all.

A batch asks first which of its keys have an answer of this version already: those are left alone, and so a run that was
killed is started again, goes on where it was, and no row is there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl.errors import BadInput
from fl.serving import rows
from fl.serving.model import Model, Unanswerable
from fl.serving.predictions import Answered, Predictions, SetAside
from fl.serving.row_source import Row

MOST_NAMED = 5
MOST_KEY = 500
"""Characters of a key: what the column of a database holds."""


@dataclass
class Progress:
    """Rows so far: all that were read, those answered now, those that had an answer, those that have none."""

    read: int = 0
    answered: int = 0
    known: int = 0
    aside: int = 0


@dataclass(eq=False)
class Precompute:
    """One run over a source.

    key         the column whose values name rows, each once; None: a row goes by its number
    put_aside   rows that cannot be answered are kept with the reason; otherwise the first batch with one is refused
    tell        is told how far it is, after every batch
    """

    model: Model
    predictions: Predictions
    key: str | None = None
    put_aside: bool = False
    tell: Callable[[Progress], None] = lambda progress: None
    progress: Progress = field(default_factory=Progress)
    _seen: dict[str, int] = field(default_factory=dict)

    def run(self, batches: Iterable[Sequence[Row]]) -> Progress:
        """Answer all of it. Raises BadInput, naming rows and columns, for what may not be put aside."""
        for number, batch in enumerate(batches):
            if not number:
                self._check(batch)
            self._batch(batch)
            self.tell(self.progress)
        return self.progress

    def _check(self, batch: Sequence[Row]) -> None:
        """A column that is not there at all is another mistake than a cell that is empty."""
        there = {name for row in batch for name in row.cells}
        if self.key is not None and there and self.key not in there:
            raise BadInput(key="--key", got=self.key, allowed=f"a column of the input: {', '.join(sorted(there))}")
        absent = [name for name in self._columns() if name not in there]
        if absent and there:
            told = ", ".join(absent[:MOST_NAMED])
            raise BadInput(key="--input", got=f"no column {told}", allowed=f"the columns {', '.join(self._columns())}")

    def _columns(self) -> tuple[str, ...]:
        signature = self.model.signature
        named = signature.feature_names and len(signature.input_shape) == 1
        return signature.feature_names if named else ()

    def _batch(self, batch: Sequence[Row]) -> None:
        bad: list[SetAside] = []
        asked: list[tuple[str, Row]] = []
        for row in batch:
            key, trouble = self._key(row)
            if trouble:
                bad.append(SetAside(key, row.number, trouble))
            else:
                asked.append((key, row))
        known = self.predictions.known(self.model.hash, [key for key, _ in asked]) if asked else set()
        new = [(key, row) for key, row in asked if key not in known]
        answers, unanswerable = self._answers(new)
        bad += unanswerable
        if bad and not self.put_aside:
            raise BadInput(key="--input", got=_named(bad), allowed="rows that can be answered, or --put-aside")
        self.predictions.put(self.model.version, self.model.hash, answers, bad)
        self.progress.read += len(batch)
        self.progress.known += len(known)
        self.progress.answered += len(answers)
        self.progress.aside += len(bad)

    def _key(self, row: Row) -> tuple[str, str]:
        """The row's key, and what is wrong with it. One without a key of its own goes by its number."""
        instead = f"row {row.number}"
        if row.trouble:
            return instead, f"row {row.number}: {row.trouble}"
        if self.key is None:
            return str(row.number), ""
        value = row.cells.get(self.key)
        if value is None or isinstance(value, list | dict) or len(str(value)) > MOST_KEY:
            return instead, f"row {row.number}, column {self.key}: {value!r:.40} is no key"
        key = str(value)
        first = self._seen.setdefault(key, row.number)
        if first != row.number:
            return instead, f"row {row.number}, column {self.key}: {key!r:.40} is the key of row {first} too"
        return key, ""

    def _answers(self, asked: Sequence[tuple[str, Row]]) -> tuple[list[Answered], list[SetAside]]:
        """The whole batch in one call; where something is wrong in it, each row by itself."""
        if not asked:
            return [], []
        try:
            outputs = self._outputs([row for _, row in asked])
        except Unanswerable:
            if len(asked) == 1:
                return self._alone(*asked[0])
            alone = [self._alone(key, row) for key, row in asked]
            return [one for found, _ in alone for one in found], [one for _, found in alone for one in found]
        told = rows.answers_of(outputs, self.model.signature)
        return [Answered(key, row.number, answer) for (key, row), answer in zip(asked, told, strict=True)], []

    def _alone(self, key: str, row: Row) -> tuple[list[Answered], list[SetAside]]:
        try:
            (answer,) = rows.answers_of(self._outputs([row]), self.model.signature)
        except Unanswerable as error:
            return [], [SetAside(key, row.number, str(error))]
        return [Answered(key, row.number, answer)], []

    def _outputs(self, asked: Sequence[Row]) -> Any:
        first = asked[0].number
        values = rows.values_of([self._inputs(row) for row in asked], self.model, first=first)
        outputs = self.model.answer(self.model.inputs(values, stored=True, first=first))
        if not np.isfinite(outputs).all():
            raise Unanswerable(f"row {first}: the model's answer is no finite number")
        return outputs

    def _inputs(self, row: Row) -> Any:
        """What the model takes of a row: its columns by their names, or all but the key in their order."""
        columns = self._columns()
        if columns:
            return {name: row.cells.get(name) for name in columns}
        cells = [cell for name, cell in row.cells.items() if name != self.key]
        return cells[0] if len(cells) == 1 and isinstance(cells[0], list) else cells


def _named(bad: Sequence[SetAside]) -> str:
    more = f"; and {len(bad) - MOST_NAMED} more in this batch" if len(bad) > MOST_NAMED else ""
    return "; ".join(one.reason for one in bad[:MOST_NAMED]) + more
