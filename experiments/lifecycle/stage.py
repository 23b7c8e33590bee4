"""What a stage is, what it is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl.decisions import Decision

Settings = Mapping[str, Any]
UNKNOWN = None
"""The hash of what can change without being seen: a stage that reads it always runs."""


@dataclass(frozen=True)
class Done:
    """A stage that is done: its ``folder``, its ``evidence``, what it ``measured``, and its files with their hashes."""

    folder: Path
    evidence: Mapping[str, Any]
    files: Mapping[str, str]
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a stage is given.

    settings   the settings that it said it reads, and no others: reading another is a KeyError
    folder     new and empty, to write into; it replaces the stage's old folder when all is done
    before     the stages that it depends on
    root       the pipeline's folder, for what has to outlive an interrupt
    inputs     the hash of all that the result depends on
    """

    settings: Settings
    folder: Path
    before: Mapping[str, Done]
    root: Path
    inputs: str


@dataclass(frozen=True)
class Result:
    """What a stage gives back.

    evidence   JSON values that depend on the inputs alone: no time, no folder of this machine that may move
    found      the same in a line, for people
    checks     the quality checks that were made, in words, and whether each held; one that did not ends the pipeline
    decision   where the stage decides whether the pipeline goes on
    measured   JSON values that come out differently each time, such as seconds; outside every compared hash
    """

    evidence: Mapping[str, Any]
    found: str
    checks: Mapping[str, bool] = field(default_factory=dict)
    decision: Decision | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A decision on what a stage found, and the ``evidence`` that says what it was held against."""

    evidence: Mapping[str, Any]
    decision: Decision


@dataclass(frozen=True)
class Quality:
    """What CRISP-ML(Q) asks of every stage: what it must achieve, what may go wrong, how that would be noticed."""

    requirement: str
    risk: str
    check: str


def nothing(settings: Settings) -> dict[str, str | None]:
    """No source outside the pipeline."""
    return {}


def always(settings: Settings, evidence: Mapping[str, Any]) -> bool:
    """Nothing outside the stage's folder can get lost."""
    return True


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline.

    name      of its folder and its evidence
    after     the stages whose outputs it reads, or a file of one, STAGE/FILE, where it reads no other
    reads     the settings that it reads: dotted keys or whole sections; with a minus in front, what it does not
    code      the modules and packages whose source makes it what it is
    run       does it
    quality   see ``Quality``
    sources   from the settings that it reads: what it reads besides the stages before it, each by a name with a hash
              of its content, or UNKNOWN. Raises BadInput where there is no such thing
    holds     from those settings and its evidence: whether what it made outside its folder is still there
    edited    files of its folder that people may edit: to it they are inputs, which it finds in ``root``/``name``
    judge     decides on its evidence by the settings ``judged_by``, which it does not read: when they change, only the
              decision is made again, and what it measured stands. Must take no time and read nothing else
    """

    name: str
    after: tuple[str, ...]
    reads: tuple[str, ...]
    code: tuple[str, ...]
    run: Callable[[Work], Result]
    quality: Quality
    sources: Callable[[Settings], Mapping[str, str | None]] = nothing
    holds: Callable[[Settings, Mapping[str, Any]], bool] = always
    edited: tuple[str, ...] = ()
    judge: Callable[[Settings, Mapping[str, Any]], Judgement] | None = None
    judged_by: tuple[str, ...] = ()

    @property
    def before(self) -> tuple[str, ...]:
        """The stages that it depends on, by name."""
        return tuple(dict.fromkeys(one.partition("/")[0] for one in self.after))
