"""A release: how versions take over from the one that an alias names, and what everybody who takes part speaks of.

A release policy (fl/deployment) is pure: from what was counted to a Decision. A router (behind HTTP, or over the fleet
of devices) is handed the policy, applies its Routing, counts Evidence, and asks it again; a registry keeps release and
state, so that a restarted router goes on where it was. They meet here and nowhere else.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

from fl.decisions import Action, Decision
from fl.errors import BadInput

CHAMPION, CHALLENGER = "champion", "challenger"
"""Names of arms: the version that serves, and what is tried; further ones are challenger-2, challenger-3 ..."""

TARGETS = ("http", "devices")

LATENCY_EDGES = tuple(10 ** (k / 10) for k in range(-40, 21))
"""Edges of the histogram of latencies, seconds: 61 of them, from 0.0001 to 100, ten a decade; so it has 62 bins."""

State: TypeAlias = Mapping[str, Any]
"""What a policy remembers: JSON values. Of an ended release ``ended`` says how ("promoted", "rolled back", "finished"),
and ``winner`` which arm serves from then on."""


Pieces: TypeAlias = tuple[list[float], list[str]]
"""The arms along [0, 1), where users stand: the end of each piece, and whose it is."""


def arm_names(challengers: int) -> tuple[str, ...]:
    """The names of the arms of a release with so many challengers, the champion first.

    >>> arm_names(2)
    ('champion', 'challenger', 'challenger-2')
    """
    return (CHAMPION, CHALLENGER, *(f"{CHALLENGER}-{k}" for k in range(2, challengers + 1)))[: challengers + 1]


@dataclass(frozen=True)
class Arm:
    """One of the versions between which a release decides; ``version`` is its full hash in the registry."""

    name: str
    version: str


@dataclass(frozen=True)
class Release:
    """What somebody ordered; it never changes.

    target    "http" or "devices"
    serves    the alias that moves where the release ends with a promotion
    arms      the champion first, then one challenger or more
    options   the policy's own, every one written out
    started   ISO 8601; ``by``: who ordered it
    """

    id: str
    policy: str
    target: str
    serves: str
    arms: tuple[Arm, ...]
    options: Mapping[str, Any]
    seed: int
    started: str
    by: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arms, the champion first."""
        return tuple(arm.name for arm in self.arms)

    def version(self, arm: str) -> str:
        """The version of an arm."""
        return next(a.version for a in self.arms if a.name == arm)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Release:
        """The release of which ``to_dict`` made ``values``. Raises KeyError or TypeError for anything else."""
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "arms": tuple(Arm(**arm) for arm in known["arms"])})


@dataclass(frozen=True)
class Routing:
    """What a router applies now.

    shares           arm -> fraction of users if ``sticky`` (of requests, where they name no user), else of requests.
                     Every arm of the release is there; they sum to 1
    mirrors          arms that get a copy of a request; nobody sees their answers, nor waits for them
    mirrored_share   fraction of requests that are copied
    closed           nobody is answered: 503 with Retry-After
    replicas         arm -> how many replicas it is to have, where the policy cares
    shares_by_context   shares for requests of a context, in place of ``shares``
    flagged          ask ``Policy.arm_for`` first; where it says None, the shares count
    """

    shares: Mapping[str, float]
    mirrors: tuple[str, ...] = ()
    mirrored_share: float = 1.0
    sticky: bool = True
    closed: bool = False
    replicas: Mapping[str, int] | None = None
    shares_by_context: Mapping[str, Mapping[str, float]] | None = None
    flagged: bool = False
    _pieces: dict[str | None, Pieces] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for context, shares in ((None, self.shares), *(self.shares_by_context or {}).items()):
            if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
                raise BadInput(key="shares", got=dict(shares), allowed="fractions that sum to 1")
            self._pieces[context] = layout(tuple(shares.items()))

    def pieces(self, context: str | None) -> Pieces:
        """Which users of a context are whose."""
        return self._pieces.get(context) or self._pieces[None]


@dataclass(frozen=True)
class Figures:
    """What was counted of one arm in some time. Everything adds up: those of two spans are the sum of both.

    requests, errors   answered by it, mirrored ones included; of these, failed or timed out
    users              whom it answered for the first time in this release
    latency_counts     requests in each bin of LATENCY_EDGES
    rewards ...        feedback to its answers, joined by request id, in [0, 1]: how many, sum, sum of squares
    user_rewards ...   of these, the first feedback of each user alone: independent of each other, as a test needs them
    compared, agreed   mirrored answers held against the champion's
    by_context         context -> (rewards, their sum)
    """

    requests: int = 0
    errors: int = 0
    users: int = 0
    latency_counts: tuple[int, ...] = (0,) * (len(LATENCY_EDGES) + 1)
    rewards: int = 0
    reward_sum: float = 0.0
    reward_squares: float = 0.0
    user_rewards: int = 0
    user_reward_sum: float = 0.0
    user_reward_squares: float = 0.0
    compared: int = 0
    agreed: int = 0
    by_context: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def __add__(self, other: Figures) -> Figures:
        added = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("latency_counts", "by_context")
        }
        contexts = {
            context: (
                self.by_context.get(context, (0, 0.0))[0] + other.by_context.get(context, (0, 0.0))[0],
                self.by_context.get(context, (0, 0.0))[1] + other.by_context.get(context, (0, 0.0))[1],
            )
            for context in sorted({*self.by_context, *other.by_context})
        }
        latencies = tuple(a + b for a, b in zip(self.latency_counts, other.latency_counts, strict=True))
        return Figures(**added, latency_counts=latencies, by_context=contexts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for ``from_dict``."""
        return dict(vars(self))  # not asdict, which copies every bin by itself

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Figures:
        """The figures of which ``to_dict`` made ``values``, also after JSON made lists of its tuples."""
        contexts = {context: (int(n), float(total)) for context, (n, total) in values["by_context"].items()}
        return cls(**{**values, "latency_counts": tuple(values["latency_counts"]), "by_context": contexts})


@dataclass(frozen=True)
class Evidence:
    """What was counted between ``since`` and ``now``, seconds of the caller's clock, and no more often than once.

    A step's evidence begins where the last one's ended: policies add up what they need in their state, and so nothing
    but the last moments is lost when a router restarts. ``arms`` may lack arms of which nothing was counted.
    ``replicas``: how many of each arm are ready now; empty where the router has none: then all are ready at once.
    """

    arms: Mapping[str, Figures]
    since: float
    now: float
    replicas: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long was counted, at least 0."""
        return max(0.0, self.now - self.since)

    def of(self, arm: str) -> Figures:
        """The figures of an arm, all 0 if nothing was counted of it."""
        return self.arms.get(arm) or Figures()


class Policy(Protocol):
    """A release policy: pure functions of state and evidence, that never read a clock."""

    def begin(self) -> State:
        """The state before anything was counted."""

    def routing(self, state: State) -> Routing:
        """What the router is to apply in this state."""

    def step(self, state: State, evidence: Evidence) -> tuple[State, Decision]:
        """The next state and why: HOLD is nothing to note (a bandit moves shares all the time), GO_ON is;
        PROMOTE, ROLL_BACK and STOP end the release.


        After PROMOTE ``state["winner"]`` is the arm whose version takes over; after ROLL_BACK it is the champion.
        """

    def arm_for(self, state: State, user: str, context: str | None) -> str | None:
        """Where ``Routing.flagged``: the arm of a user, by a flag; None leaves it to the shares."""


def promoted(state: State, arm: str, reason: str) -> tuple[State, Decision]:
    """The end of a release whose winner is ``arm``."""
    return {**state, "ended": "promoted", "winner": arm}, Decision(Action.PROMOTE, reason)


def rolled_back(state: State, reason: str) -> tuple[State, Decision]:
    """The end of a release that leaves everything as it was."""
    return {**state, "ended": "rolled back", "winner": CHAMPION}, Decision(Action.ROLL_BACK, reason)


def finished(state: State, reason: str) -> tuple[State, Decision]:
    """The end of a release that was to find something out, and to move nothing."""
    return {**state, "ended": "finished", "winner": CHAMPION}, Decision(Action.STOP, reason)


def everything_to(arm: str, names: tuple[str, ...]) -> dict[str, float]:
    """Shares that give everybody to one of the arms ``names``."""
    return {name: 1.0 if name == arm else 0.0 for name in names}


def latency_bin(seconds: float) -> int:
    """The bin of LATENCY_EDGES that a latency falls in; 0 is below the first edge.

    >>> latency_bin(0.00005), latency_bin(0.0001), latency_bin(1000.0)
    (0, 1, 61)
    """
    return bisect_right(LATENCY_EDGES, seconds)


def assigned(routing: Routing, *, salt: str, user: str, context: str | None = None) -> str:
    """The arm of a user: always the same one, while no share changes.

    salt   the release's id, so that one release's challenged users are not the next one's
    user   who is to stick to an arm; the request's id if it names no user, or if the routing is not sticky

    A user leaves an arm only if its share shrinks: with one or two challengers always, with k of them as long as none
    has more than 1/k. (For three arms whose shares may be anything, no rule without a memory can promise it.)
    """
    return arm_at(routing, lambda: point(salt=salt, user=user), context)


def arm_at(routing: Routing, where: Callable[[], float], context: str | None = None) -> str:
    """The arm that whoever stands at ``where`` () in [0, 1) has; not asked where one arm has everybody.

    >>> arm_at(Routing({"champion": 0.75, "challenger": 0.25}), lambda: 0.1)
    'challenger'
    """
    ends, names = routing.pieces(context)
    if len(names) == 1:
        return names[0]
    return names[min(bisect_right(ends, where()), len(names) - 1)]


def point(*, salt: str, user: str) -> float:
    """Where a user stands in [0, 1), by SHA-256: everywhere alike, and elsewhere under another salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{user}".encode()).digest()[:8], "big") / 2**64


@lru_cache(maxsize=1024)
def layout(shares: tuple[tuple[str, float], ...]) -> Pieces:
    """The arms along [0, 1).

    Each of k challengers grows inside a slot of its own, 1/k wide, the even ones from its left end and the odd ones
    from its right; what does not fit grows on into what is free, from the same side. The champion has the rest.
    """
    challengers = sorted((n for n, _ in shares if n != CHAMPION), key=lambda name: (len(name), name))
    share, width = dict(shares), 1 / max(1, len(challengers))
    pieces: list[tuple[float, float, str]] = []
    for k, name in enumerate(challengers):
        size = min(share[name], width)
        start = k * width if k % 2 == 0 else (k + 1) * width - size
        pieces.append((start, start + size, name))
    for k, name in enumerate(challengers):
        left = share[name] - width
        for begin, end in _gaps(pieces)[:: 1 if k % 2 == 0 else -1]:
            if left <= 0:
                break
            size = min(left, end - begin)
            pieces.append((begin, begin + size, name) if k % 2 == 0 else (end - size, end, name))
            left -= size
    if share.get(CHAMPION, 0.0) > 0:
        pieces += [(begin, end, CHAMPION) for begin, end in _gaps(pieces)]
    pieces = sorted(piece for piece in pieces if piece[1] > piece[0])
    return [end for _, end, _ in pieces], [name for _, _, name in pieces]


def _gaps(pieces: list[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """What of [0, 1) no piece covers; gaps of rounding's size are none."""
    edges = [(0.0, 0.0), *sorted((b, e) for b, e, _ in pieces if e > b), (1.0, 1.0)]
    between = [(edges[i][1], edges[i + 1][0]) for i in range(len(edges) - 1)]
    return [(begin, end) for begin, end in between if end - begin > 1e-12]
