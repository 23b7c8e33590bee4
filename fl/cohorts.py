"""Who is available, and who is asked: policies as plain functions, handed to the round loop.

    available(round, clients) -> those of them that could be asked now
    choose(round, clients, size, seed) -> the cohort, ascending

Both work on any ascending sequence of handles. Devices with batteries, time zones and bandwidth will come in as other
functions of these shapes. A device that was asked may still be gone by the time it should train: ``drops_out``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from fl.errors import BadInput
from fl.seeds import generator

Available: TypeAlias = Callable[[int, Sequence[int]], Sequence[int]]
Choose: TypeAlias = Callable[[int, Sequence[int], int, int], list[int]]


def everyone(round: int, clients: Sequence[int]) -> Sequence[int]:
    """All of them, always; a range stays a range, so that a population of a million costs nothing."""
    return clients


def uniform(round: int, clients: Sequence[int], size: int, seed: int) -> list[int]:
    """``size`` distinct clients, all equally likely (fewer where fewer are available), sorted.

    Memory and time are those of the cohort, not of the population (Floyd's sampling in NumPy).

    >>> uniform(1, range(10**9), 3, seed=0) == uniform(1, range(10**9), 3, seed=0)
    True
    """
    drawn = generator(seed, purpose="cohort", round=round).choice(
        len(clients), size=min(size, len(clients)), replace=False, shuffle=False
    )
    return sorted(clients[int(index)] for index in drawn)


def drops_out(round: int, client: int, *, fraction: float, seed: int) -> bool:
    """Whether ``client`` is gone for all of ``round``, asked once or again: true for ``fraction`` of all, on average.

    >>> sum(drops_out(1, client, fraction=0.3, seed=0) for client in range(1000))
    295
    """
    return fraction > 0 and bool(generator(seed, purpose="dropout", round=round, client=client).random() < fraction)


def check_cohort_size(cohort_size: int | None, num_clients: int) -> int:
    """``cohort_size``, by default min(10, num_clients); BadInput unless it is from 1 to ``num_clients``."""
    size = min(10, num_clients) if cohort_size is None else cohort_size
    if not 1 <= size <= num_clients:
        raise BadInput(key="cohort_size", got=size, allowed=f"1 to num_clients={num_clients}")
    return size
