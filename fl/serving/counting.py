"""What is counted of each arm of a release: added up where requests are answered, and taken away step by step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import final

from fl.releases import LATENCY_EDGES, Figures, latency_bin

MOST_USERS = 1_000_000
"""Users that are told apart; of those beyond, nobody counts as new."""


@final
class Count:
    """Figures of one arm that still grow."""

    __slots__ = ("agreed", "by_context", "compared", "errors", "latencies", "rewards", "user_rewards", "users")

    def __init__(self) -> None:
        self.errors = self.users = self.compared = self.agreed = 0
        self.latencies = [0] * (len(LATENCY_EDGES) + 1)
        self.rewards: list[float] = [0, 0.0, 0.0]
        self.user_rewards: list[float] = [0, 0.0, 0.0]
        self.by_context: dict[str, list[float]] = {}

    def answered(self, seconds: float, *, failed: bool = False, times: int = 1) -> None:
        """Answered after ``seconds``, or not."""
        self.latencies[latency_bin(seconds)] += times
        self.errors += failed * times

    def rewarded(self, reward: float, *, context: str | None, first_of_user: bool) -> None:
        """Feedback came to one of its answers."""
        for sums in (self.rewards, *([self.user_rewards] if first_of_user else ())):
            sums[0] += 1
            sums[1] += reward
            sums[2] += reward * reward
        if context is not None:
            known = self.by_context.setdefault(context, [0, 0.0])
            known[0] += 1
            known[1] += reward

    def figures(self) -> Figures:
        """What has been counted."""
        return Figures(
            requests=sum(self.latencies),
            errors=self.errors,
            users=self.users,
            latency_counts=tuple(self.latencies),
            rewards=int(self.rewards[0]),
            reward_sum=self.rewards[1],
            reward_squares=self.rewards[2],
            user_rewards=int(self.user_rewards[0]),
            user_reward_sum=self.user_rewards[1],
            user_reward_squares=self.user_rewards[2],
            compared=self.compared,
            agreed=self.agreed,
            by_context={context: (int(n), total) for context, (n, total) in self.by_context.items()},
        )


@final
class Seen:
    """Which users were met, as hashes of 8 bytes: those of this server, and what others are known to have met."""

    def __init__(self, salt: str) -> None:
        self._salt, self._known = salt.encode(), set[bytes]()
        self._new: list[bytes] = []

    def first(self, *words: str) -> bool:
        """Whether ``words`` come for the first time."""
        digest = hashlib.blake2b("\0".join(words).encode(errors="surrogatepass"), key=self._salt[:64], digest_size=8)
        key = digest.digest()
        if key in self._known or len(self._known) >= MOST_USERS:
            return False
        self._known.add(key)
        self._new.append(key)
        return True

    def learn(self, content: bytes) -> None:
        """What another server met: hashes one after the other."""
        self._known.update(content[start : start + 8] for start in range(0, len(content) - 7, 8))

    def take_new(self) -> bytes:
        """What came for the first time since the last call."""
        new, self._new = self._new, []
        return b"".join(new)


def added(parts: Iterable[dict[str, Figures]]) -> dict[str, Figures]:
    """Figures by arm, of several servers or spans, as those of one."""
    found: dict[str, Figures] = {}
    for part in parts:
        for arm, figures in part.items():
            found[arm] = found[arm] + figures if arm in found else figures
    return found
