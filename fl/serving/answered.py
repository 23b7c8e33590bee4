"""Answers that feedback may still come to: by request id, for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, final

from fl.inference_log.records import Columns
from fl.serving.model import Unanswerable

MOST_LABELS = 64
"""Of one request whose labels are remembered."""


class Answered(NamedTuple):
    """Who was answered, and what.

    release   the open release, "" without one; ``arm`` of it
    places    numbers of the labels that were answered, row by row; None where there are none, or too many
    """

    model: str
    version: str
    release: str
    arm: str
    user: str | None
    context: str | None
    places: Sequence[int] | None


KEPT = ("id", "status", *Answered._fields)
"""Columns that are kept of requests until there is feedback."""


@final
@dataclass(eq=False)
class Answers:
    """The last ``most`` answers; an older one is forgotten, and one that had its feedback stays, so as to say so.

    An answer is looked up only where there is feedback, so until then the columns that it came in stand in a queue: a
    place in a table of tens of thousands is out of the processor's cache, and took longer to fill than all else that is
    done of an answer. Ordered tables, because the oldest key of a plain one is found by stepping over all that were
    removed before it.
    """

    most: int = 50_000
    _fresh: deque[Columns] = field(default_factory=deque)
    _waiting: int = 0
    _by_id: OrderedDict[str, Answered] = field(default_factory=OrderedDict)
    _rewarded: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def add(self, columns: Columns) -> None:
        """Remember those of the requests with these columns that were answered, the oldest first."""
        kept = {name: columns[name] for name in KEPT}
        kept["places"] = [None if some is None or len(some) > MOST_LABELS else some for some in columns["places"]]
        self._fresh.append(kept)
        self._waiting += len(kept["id"])
        while self._waiting - len(self._fresh[0]["id"]) >= self.most:
            self._waiting -= len(self._fresh.popleft()["id"])

    def find(self, number: str) -> Answered | None:
        """The answer to a request, by its id, None if it is unknown, forgotten, or had its feedback."""
        self._sort_in()
        return self._by_id.get(number)

    def _sort_in(self) -> None:
        while self._fresh:
            columns = self._fresh.popleft()
            answers = map(Answered._make, zip(*(columns[name] for name in Answered._fields), strict=True))
            for number, status, answer in zip(columns["id"], columns["status"], answers, strict=True):
                if status == 200:
                    self._by_id[number] = answer
                    self._by_id.move_to_end(number)
        self._waiting = 0
        while len(self._by_id) > self.most:
            self._by_id.popitem(last=False)

    def settle(self, number: str) -> None:
        """Its feedback has come; it counts once."""
        self._sort_in()
        self._by_id.pop(number, None)
        if len(self._rewarded) >= self.most:
            self._rewarded.popitem(last=False)
        self._rewarded[number] = None

    def settled(self, number: str) -> bool:
        """Whether its feedback has come already."""
        return number in self._rewarded


def reward_of(label: object, answer: Answered, names: Sequence[str]) -> float:
    """The share of an answer's rows whose label is ``label``: a name, or a list of names, one a row.

    Raises Unanswerable for a label that there is not, or where the answer has none.
    """
    if answer.places is None:
        raise Unanswerable("label: this answer has no label that was kept; send a reward")
    labels = label if isinstance(label, list) else [label]
    if len(labels) != len(answer.places):
        raise Unanswerable(f"label: {len(labels)} labels, the answer has {len(answer.places)}")
    for one in labels:
        if isinstance(one, bool) or not isinstance(one, str | int) or str(one) not in names:
            raise Unanswerable(f"label: got {one!r}, allowed: {', '.join(names[:20])}")
    same = [names[place] == str(one) for place, one in zip(answer.places, labels, strict=True)]
    return sum(same) / len(same)
