"""The asker: sends every row as a request, gathers the answers in a file, and asks again for what does not come.

OUTPUT          JSON lines: key, version, hash and prediction, or key and error; each key once
OUTPUT.asker    the asker's name while answers are missing: started again, it is the same asker, and asks for those
                alone that are missing
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl.errors import BadInput, StorageFailed
from fl.files import append, make_parents, read_json, write_json
from fl.serving.on_demand.queues import Broker, answers_queue, queue_names

GATHER = 200
"""Answers that are written at once."""


@dataclass(eq=False)
class Asker:
    """One asking.

    again_seconds     without any new answer, after which what is missing is asked again; twice as long each time
    patience_seconds  without any new answer, after which it is given up
    """

    broker: Broker
    name: str
    output: Path
    again_seconds: float = 10.0
    patience_seconds: float = 120.0
    tell: Callable[[int, int], None] = lambda answered, asked: None
    _asker: str = ""
    _answered: set[str] = field(default_factory=set)
    _resumed: bool = False

    def ask(self, asked: Mapping[str, Any]) -> int:
        """Ask for each row by its key, until every one has its answer; returns how many were answered before.

        Raises StorageFailed where the answers do not come, BadInput where the output holds something else.
        """
        make_parents(self.output)
        self._resume()
        before = len(self._answered & asked.keys())
        if asked.keys() <= self._answered:
            return before
        self._send(asked, again=bool(self._answered) or self._resumed)
        last = sent = time.monotonic()
        wait = self.again_seconds
        while missing := len(asked.keys() - self._answered):
            if self._gather(asked):
                last = sent = time.monotonic()
                wait = self.again_seconds
                self.tell(len(asked) - missing, len(asked))
                continue
            now = time.monotonic()
            if now - last > self.patience_seconds:
                why = f"{missing} of {len(asked)} answers did not come within {self.patience_seconds:g} s"
                raise StorageFailed(path=str(self.output), why=f"{why}; the same command goes on")
            if now - sent > wait:
                self._send(asked, again=True)
                sent = time.monotonic()
                wait *= 2  # who does not answer is not helped by a longer queue
        self._note.unlink(missing_ok=True)
        return before

    @property
    def _note(self) -> Path:
        return self.output.with_name(f"{self.output.name}.asker")

    def _resume(self) -> None:
        """Who asked for what is in the output, and what is missing. A torn last line is as if it had not come."""
        there = self.output.exists()
        self._resumed = there and self._note.exists()
        if there:
            content = self.output.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            try:
                self._answered = {str(json.loads(line)["key"]) for line in whole.splitlines()}
            except (ValueError, KeyError, TypeError) as error:
                allowed = "a file that fl broker ask wrote, or one that is not there"
                raise BadInput(key="--output", got=str(self.output), allowed=allowed) from error
            if whole != content:
                with self.output.open("r+b") as file:
                    file.truncate(len(whole))
        if self._resumed:
            self._asker = str(read_json(self._note)["asker"])
            return
        self._asker = secrets.token_hex(8)
        write_json(self._note, {"asker": self._asker}, site="asked")
        append(self.output, b"", site="answers", durable=False)

    def _send(self, asked: Mapping[str, Any], *, again: bool) -> None:
        bodies = [
            {"id": f"{self._asker}:{key}", "asker": self._asker, "row": row, "again": again}
            for key, row in asked.items()
            if key not in self._answered
        ]
        self.broker.send(queue_names(self.name)[0], bodies)

    def _gather(self, asked: Mapping[str, Any]) -> int:
        """Write down the answers that are there, and then let go of them; returns how many were new."""
        taken = self.broker.take(answers_queue(self.name, self._asker), most=GATHER, wait_seconds=0.5)
        lines = []
        for one in taken:
            asker, _, key = str(one.body.get("id")).partition(":")
            if asker == self._asker and key in asked and key not in self._answered:
                self._answered.add(key)
                known = {name: cell for name, cell in one.body.items() if name != "id"}
                lines.append(json.dumps({"key": key, **known}) + "\n")
        if lines:
            append(self.output, "".join(lines).encode(), site="answers", durable=True)
        self.broker.done(taken)
        return len(lines)
