"""The command `fl learn`: a version goes on learning from a stream of labelled events, and becomes versions."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.versions import REGISTRY, Folder, Json, Name
from fl import interrupts
from fl.errors import BadInput, NotAccepted

if TYPE_CHECKING:
    from fl.registry import Registry, Version
    from fl.serving.online.learner import Learner, Outcome
    from fl.serving.row_source import Row

CARRIED = ("config", "seed", "dataset", "signature", "model", "selection")
"""What a version that learned has from the one that it came from."""


def learn(
    version: Name,
    source: Annotated[
        str, typer.Option("--input", metavar="FILE|-|URL", help="JSON lines, - for standard input, or a broker's URL.")
    ],
    label: Annotated[str, typer.Option("--label", help="The column of what the model should have said.")] = "label",
    alias: Annotated[
        str | None, typer.Option("--alias", help="champion or challenger: names each new version; servers follow.")
    ] = None,
    chunk: Annotated[int, typer.Option("--chunk", min=2, help="Events that are judged and learned together.")] = 50,
    every: Annotated[
        int, typer.Option("--every", min=1, help="A version after so many chunks that were learned.")
    ] = 10,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-9, help="Of plain SGD.")] = 0.01,
    stop_after: Annotated[
        int | None, typer.Option("--stop-after", min=1, help="Refused chunks in a row; then the end, with status 4.")
    ] = None,
    refused: Annotated[
        Path | None, typer.Option("--refused", metavar="FILE", help="What was refused and why, as JSON lines.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Go on with this run of fl learn.")] = None,
    queue: Annotated[str, typer.Option("--queue", help="Of a broker.")] = "meadow.events",
    until_idle: Annotated[
        float, typer.Option("--until-idle", min=0.1, help="Of a broker: end when nothing came for so many seconds.")
    ] = 60.0,
    registry: Folder = REGISTRY,
    as_json: Json = False,
) -> None:
    """Let a version learn from a stream of labelled events, each predicted first; bad data are refused.

    A chunk whose events are no events, whose labels the model denies, or that makes it worse on what is held back is
    not learned from. Where the error rises slowly, the model goes back to before the rise, and the alias with it.
    """
    import importlib.util

    from fl.errors import MissingExtra

    if importlib.util.find_spec("river") is None:
        raise MissingExtra(key="fl learn", package="river", extra="monitor")
    _check(source)
    if refused is not None:
        from fl.files import make_parents

        make_parents(refused)
    work = _Work.begin(version, registry, run, label=label, learning_rate=learning_rate, alias=alias)
    stream = (
        _from_broker(source, queue, chunk, until_idle) if "://" in source else _from_lines(source, chunk, work.read)
    )
    in_a_row = 0
    with interrupts.handled(), contextlib.ExitStack() as closing:
        file = closing.enter_context(refused.open("a")) if refused else None
        for rows in stream:
            outcome = work.chunk(rows)
            if file:
                file.writelines(_line(one.number, one.reason, one.cells) for one in outcome.refused)
                file.flush()
            in_a_row = in_a_row + 1 if outcome.reason and outcome.back_to is None else 0
            if work.unversioned >= every:
                work.commit()
            if stop_after is not None and in_a_row >= stop_after:
                break
    if work.unversioned:
        work.commit()
    work.end()
    if as_json:
        print(json.dumps(work.told(), indent=2))
    else:
        told = work.told()
        print(
            f"{told['version']}: {told['learned']} events learned, {told['refused']} refused, {told['back']} times back"
        )
    if stop_after is not None and in_a_row >= stop_after:
        raise NotAccepted(version=f"the stream {source}", reasons=[f"{in_a_row} chunks in a row were refused"])


def _line(number: int, reason: str, cells: Any) -> str:
    return json.dumps({"event": number, "reason": reason, "cells": dict(cells)}) + "\n"


@dataclass(eq=False)
class _Work:
    """A learner, and the versions that it becomes."""

    store: Registry
    run_id: str
    newest: Version
    learner: Learner
    reader: Any
    alias: str | None
    read: int = 0
    unversioned: int = 0
    refused: int = 0
    back: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, name: str, registry: Path, run: str | None, *, label: str, learning_rate: float, alias: str | None
    ) -> _Work:
        from experiments.export import opened
        from fl.models.arrays import load_parameters
        from fl.registry.aliases import check_alias
        from fl.serving.model import Model
        from fl.serving.online.events import Ranges, Reader
        from fl.serving.online.learner import Learner, Training

        if alias is not None:
            check_alias(alias)
        found = opened(name, registry)
        store = found.store
        going_on = store.latest(run) if run is not None and any(r["run_id"] == run for r in store.runs()) else None
        if going_on is not None:
            if "learned" not in going_on.manifest.get("record", {}):
                raise BadInput(key="--run", got=run, allowed="a run of fl learn")
            found = opened(going_on.name, registry)
        kept = store.examples(found.version.run_id)
        assert kept is not None, "opened refuses a version without examples"
        load_parameters(found.module, found.parameters)
        model = Model(found.version.name, found.version.hash, found.signature, lambda inputs: inputs)
        shaped = kept[0].reshape(len(kept[0]), *found.signature.input_shape)
        reader = Reader(model, Ranges.of(shaped), label)
        record = found.version.manifest.get("record") or {} if going_on else {}
        learner = Learner(
            found.module.eval(),
            found.signature,
            (shaped, kept[1]),
            Training(learning_rate),
            seed=int(found.version.manifest["seed"] or 0),
            learned=int(record.get("learned", 0)),
        )
        if going_on:
            return cls(store, going_on.run_id, going_on, learner, reader, alias, int(record["read"]))
        run_id = store.claim_run_id(run or f"{found.version.run_id}-learning")
        store.start_run(run_id, {"learns_from": found.version.name})
        store.keep_examples(run_id, *kept)
        work = cls(store, run_id, found.version, learner, reader, alias)
        work.newest = work._commit(0)
        return work

    def chunk(self, rows: list[Row]) -> Outcome:
        """Learn from rows, or refuse them; and take the alias back where the learner goes back behind a version."""
        outcome = self.learner.learn([self.reader.read(row) for row in rows])
        self.read += len(rows)
        self.refused += len(outcome.refused)
        for one in outcome.refused:
            self.reasons[one.reason] = self.reasons.get(one.reason, 0) + 1
        if outcome.learned:
            self.unversioned += 1
        if outcome.reason:
            first, last = rows[0].number, rows[-1].number
            print(f"events {first} to {last}: {outcome.reason}", file=sys.stderr, flush=True)
        if outcome.back_to is not None:
            self.back += 1
            self._take_back(outcome)
        return outcome

    def commit(self, reason: str = "") -> None:
        """Make the state of now a version, with what is known of it, and let the alias name it."""
        self.newest = self._commit(self.store.latest(self.run_id).round + 1)  # type: ignore[union-attr]
        self.unversioned = 0
        self._name(reason or f"learned {self.learner.learned} events of a stream")

    def end(self) -> None:
        """Say that the run is over."""
        self.store.finish_run(self.run_id, {"status": "finished"})

    def told(self) -> dict[str, Any]:
        """What came of it."""
        counts = {"read": self.read, "learned": self.learner.learned, "refused": self.refused, "back": self.back}
        return {"version": self.newest.name, "run": self.run_id, **counts, "reasons": self.reasons}

    def _commit(self, round: int) -> Version:
        manifest = self.newest.manifest
        learned, progressive = self.learner.learned, self.learner.progressive()
        fields = {name: manifest[name] for name in CARRIED}
        record = {"learned": learned, "read": self.read, "refused": self.refused, "progressive": progressive}
        version = self.store.commit(
            self.learner.parameters,
            fields
            | {"run_id": self.run_id, "round": round, "parent": self.newest, "metrics": self.learner.tested()}
            | {"record": record, "cohort": []},
        )
        found = f"{learned} events learned, {self.refused} refused, {self.back} times back"
        self.store.attach(version, "learn", {"found": found, **record, "reasons": self.reasons})
        return version

    def _take_back(self, outcome: Outcome) -> None:
        """The newest version that knows nothing of what was taken back is the one to go on from."""
        lineage = [v for v in self.store.lineage(self.newest) if v.run_id == self.run_id]
        good = next(v for v in lineage if v.manifest["record"]["learned"] <= self.learner.learned)
        if good.hash != self.newest.hash:
            self.newest = good
            self.commit(f"rolled back: {outcome.reason}")  # so that whoever goes on later goes on from here

    def _name(self, reason: str) -> None:
        if self.alias is None:
            return
        try:
            self.store.promote(self.newest, self.alias, reason=reason, by="fl learn")
        except NotAccepted as error:  # the stream goes on; the version waits for whoever accepts it
            print(f"{self.newest.name} is not made {self.alias}: {error}", file=sys.stderr, flush=True)


def _check(source: str) -> None:
    """Raise BadInput for a source that cannot be read, before a run begins for it."""
    if "://" in source:
        from fl.serving.on_demand.queues import Broker

        Broker(source).close()
    elif source != "-" and not Path(source).is_file():
        raise BadInput(key="--input", got=source, allowed="a file of JSON lines, - or a broker's URL")


def _from_lines(source: str, size: int, skip: int) -> Iterator[list[Row]]:
    """Chunks of a file of JSON lines behind the first ``skip`` events, or of standard input."""
    from fl.serving.row_source import of_json_lines

    with contextlib.ExitStack() as closing:
        lines: Iterable[str] = sys.stdin
        if source != "-":
            lines = closing.enter_context(Path(source).open(encoding="utf-8"))
        rows = of_json_lines(lines)
        if source != "-":
            rows = itertools.islice(rows, skip, None)
        while found := list(itertools.islice(rows, size)):
            yield found


def _from_broker(url: str, queue: str, size: int, idle_seconds: float) -> Iterator[list[Row]]:
    """Chunks as they come; a message is done when its chunk was judged."""
    from fl.serving.on_demand.queues import Broker
    from fl.serving.row_source import Row

    with contextlib.closing(Broker(url)) as broker:
        broker.recover()
        number = 0
        while taken := broker.take(queue, most=size, wait_seconds=idle_seconds):
            yield [Row(number + place, dict(one.body)) for place, one in enumerate(taken, start=1)]
            number += len(taken)
            broker.done(taken)
