"""Every error of the project.

    MeadowError                       something Meadow found and can name
    ├── BadInput                      exit status 2: a key, what it got, what is allowed
    │   └── MissingExtra              an optional package is not installed; names the extra
    ├── StoppedByFaults               exit status 3: too few clients answered
    ├── StorageFailed                 exit status 3: the disk is full, read-only, or broken
    ├── AppFailed                     exit status 3: a foreign app's own code came to grief
    ├── NotAccepted                   exit status 4: a version does not fulfil what was asked for
    ├── Interrupted                   exit status 130: Ctrl-C or SIGTERM
    ├── RefusedUpdate                 what a client sent, or tried to send, is not what the boundary allows
    ├── ClientFailed                  a client could not do its task
    ├── TrialFailed                   a trial of a search ended its process
    └── CorruptFile                   a file whose bytes are not the ones its hash names

Each error holds its fields as attributes and survives pickling, because it may cross from an actor to the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def _rebuild(cls: type[MeadowError], fields: dict[str, Any]) -> MeadowError:
    return cls(**fields)


class MeadowError(Exception):
    """Base of all. Subclasses take keyword fields and build the message from them."""

    exit_status = 1

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self.__dict__.update(fields)
        super().__init__(self.message())

    def message(self) -> str:
        """The text a user sees; subclasses compose it from their fields."""
        return ", ".join(f"{k}={v}" for k, v in self.fields.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields)


class BadInput(MeadowError):
    """A value that cannot be used: ``key`` as the user writes it, ``got``, and what is ``allowed``.

    >>> print(BadInput(key="client.learning_rate", got=-1, allowed="a number above 0"))
    client.learning_rate: got -1, allowed: a number above 0
    """

    exit_status = 2
    key: str
    got: Any
    allowed: str

    def __init__(self, *, key: str, got: Any, allowed: str) -> None:
        super().__init__(key=key, got=got, allowed=allowed)

    def message(self) -> str:
        return f"{self.key}: got {self.got}, allowed: {self.allowed}"


class MissingExtra(BadInput):
    """An optional package is needed and absent. ``package`` is what was wanted, ``extra`` what installs it."""

    package: str
    extra: str

    def __init__(self, *, key: str, package: str, extra: str) -> None:
        self.got, self.allowed = f"no package {package}", f"pip install 'meadow-fl[{extra}]'"
        MeadowError.__init__(self, key=key, package=package, extra=extra)

    def message(self) -> str:
        return f"{self.key}: needs the package {self.package}, install it with: {self.allowed}"


class StoppedByFaults(MeadowError):
    """The run ends early with what it has: ``answered`` of ``asked`` clients answered in ``round``."""

    exit_status = 3
    round: int
    asked: int
    answered: int
    reasons: tuple[str, ...]

    def __init__(self, *, round: int, asked: int, answered: int, reasons: Iterable[str] = ()) -> None:
        super().__init__(round=round, asked=asked, answered=answered, reasons=tuple(reasons))

    def message(self) -> str:
        why = "; ".join(self.reasons[:3]) or "no reason was given"
        return f"round {self.round}: {self.answered} of {self.asked} clients answered ({why})"


class StorageFailed(MeadowError):
    """``path`` could not be written, and ``why``. What was committed before is whole."""

    exit_status = 3
    path: str
    why: str

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(path=path, why=why)

    def message(self) -> str:
        return f"{self.path} could not be written: {self.why}; what was committed before is whole"


class AppFailed(MeadowError):
    """A foreign app's own code came to grief: ``what`` of it, and ``why``. Its traceback has been shown."""

    exit_status = 3
    what: str
    why: str

    def __init__(self, *, what: str, why: str) -> None:
        super().__init__(what=what, why=why)

    def message(self) -> str:
        return f"{self.what}: {self.why}"


class NotAccepted(MeadowError):
    """``version`` may not go out, for all of ``reasons``."""

    exit_status = 4
    version: str
    reasons: tuple[str, ...]

    def __init__(self, *, version: str, reasons: Iterable[str]) -> None:
        super().__init__(version=version, reasons=tuple(reasons))

    def message(self) -> str:
        return f"{self.version} is not accepted: {'; '.join(self.reasons)}"


class Interrupted(MeadowError):
    """The user or the system asked the run to stop."""

    exit_status = 130
    signal: str

    def __init__(self, *, signal: str) -> None:
        super().__init__(signal=signal)

    def message(self) -> str:
        return f"stopped by {self.signal}"


class RefusedUpdate(MeadowError):
    """``client`` sent, or tried to send, ``what``, which is ``why`` not allowed."""

    client: int
    what: str
    why: str

    def __init__(self, *, client: int, what: str, why: str) -> None:
        super().__init__(client=client, what=what, why=why)

    def message(self) -> str:
        return f"client {self.client}: {self.what} refused: {self.why}"


class ClientFailed(MeadowError):
    """``client`` could not do its task; ``reason`` is bounded text, never data."""

    client: int
    reason: str

    def __init__(self, *, client: int, reason: str) -> None:
        super().__init__(client=client, reason=reason)

    def message(self) -> str:
        return f"client {self.client} failed: {self.reason}"


class TrialFailed(MeadowError):
    """``trial`` of a search came to nothing, and not by its own word: ``reason``."""

    trial: str
    reason: str

    def __init__(self, *, trial: str, reason: str) -> None:
        super().__init__(trial=trial, reason=reason)

    def message(self) -> str:
        return f"trial {self.trial} failed: {self.reason}"


class CorruptFile(MeadowError):
    """``path`` holds other bytes than the hash it is stored under, or cannot be read as what it claims to be."""

    path: str
    why: str

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(path=path, why=why)

    def message(self) -> str:
        return f"{self.path}: {self.why}"
