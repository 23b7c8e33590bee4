"""Who is available, and who is asked: policies as plain functions, handed to the round loop.

    available(round, clients) -> those of them that could be asked now
    choose(round, clients, size, seed) -> the cohort, ascending

Both work on any ascending sequence of handles. Devices with batteries, time zones and bandwidth will come in as other
functions of these shapes. A device that was asked may still be gone by the time it should train: ``drops_out``. Some
may be held out of training altogether, to see how a model does for those it never learned from: ``unseen_clients``.
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


def unseen_clients(
    chosen: float | list[int] | tuple[int, ...] | None, num_clients: int, *, seed: int
) -> tuple[int, ...]:
    """The clients, ascending, that are never trained: those named, or a share of all that is drawn by the seed.

    chosen   a share above 0 and below 1, rounded to whole clients, one at least; or client ids; None: nobody

    Raises BadInput by ``unseen_clients`` where somebody is named who is not there, or nobody would be left.

    >>> unseen_clients(0.3, 10, seed=0), unseen_clients([7, 2], 10, seed=0)
    ((4, 7, 8), (2, 7))
    """
    if chosen is None:
        return ()
    words = "a share above 0 and below 1, or a list of client ids"
    if isinstance(chosen, float) and 0 < chosen < 1:
        size = max(0, min(max(1, int(chosen * num_clients + 0.5)), num_clients - 1))
        drawn = generator(seed, purpose="unseen").choice(num_clients, size=size, replace=False, shuffle=False)
        away = sorted(int(client) for client in drawn)
    elif isinstance(chosen, list | tuple):
        away = sorted(set(chosen))
        if not all(type(client) is int and 0 <= client < num_clients for client in chosen):
            raise BadInput(key="unseen_clients", got=list(chosen), allowed=f"{words}, from 0 to {num_clients - 1}")
    else:
        raise BadInput(key="unseen_clients", got=chosen, allowed=words)
    if not 0 < len(away) < num_clients:
        allowed = f"{words}, with somebody unseen and somebody left to train"
        raise BadInput(key="unseen_clients", got=f"{len(away)} of {num_clients} clients", allowed=allowed)
    return tuple(away)


def check_cohort_size(cohort_size: int | None, num_clients: int, *, unseen: int = 0) -> int:
    """``cohort_size``, by default min(10, all); BadInput unless it is from 1 to ``num_clients`` less ``unseen``."""
    most = num_clients - unseen
    size = min(10, most) if cohort_size is None else cohort_size
    if not 1 <= size <= most:
        less = f" less {unseen} of unseen_clients" if unseen else ""
        raise BadInput(key="cohort_size", got=size, allowed=f"1 to num_clients={num_clients}{less}")
    return size
