"""One request under way."""

from __future__ import annotations

from dataclasses import dataclass

from fl.parameters import Array
from fl.serving.router import Lane, Router


@dataclass(eq=False, slots=True)
class Visit:
    """One request under way.

    id, user, context   X-Request-Id, which is made where it is missing; X-User-Id; X-Context
    name                of what is served
    lane                who answers; ``router``, of the release that is open
    inputs, outputs     of the model; None until it has answered
    status, seconds     of the answer, which was given at the time ``at``
    number              of its record, where there is a log
    """

    id: str
    user: str | None
    context: str | None
    name: str
    lane: Lane
    router: Router | None
    inputs: Array | None = None
    outputs: Array | None = None
    status: int = 500
    seconds: float = 0.0
    at: float = 0.0
    number: int = 0

    def move(self, lane: Lane) -> None:
        """Let ``lane`` answer in place of the one that was to."""
        self.lane.busy -= 1
        lane.busy += 1
        self.lane = lane

    def headers(self, *, with_id: bool) -> list[tuple[bytes, bytes]]:
        """Of the answer."""
        found = [(b"x-meadow-version", self.lane.model.version.encode())]
        if with_id:
            found.append((b"x-request-id", self.id.encode("latin-1")))
        if self.router:
            found.append((b"x-meadow-arm", self.lane.arm.encode()))
        return found
