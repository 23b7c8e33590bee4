"""How much faster ours is meant to be: figures fixed before anything was measured, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.bench.measure import Row
from experiments.bench.systems import APP_FLOOR, KEPT_FLOOR, RAY_FLOOR
from experiments.bench.workloads import COHORT, POPULATION

MIB = 2**20


@dataclass(frozen=True)
class Target:
    """On a workload, ``ours`` against the best of the ``peers`` that ran: ``value`` of theirs over that of ours.

    ``floor``: the system that does the same work with nothing round it but what it may not leave out.
    """

    workload: str
    ours: str
    peers: tuple[str, ...]
    what: str
    at_least: float

    @property
    def floor(self) -> str:
        """What there is to reach where ours runs like that."""
        return {RAY: RAY_FLOOR, APP: APP_FLOOR}.get(self.ours, KEPT_FLOOR)


@dataclass(frozen=True)
class Verdict:
    """A figure to reach, what was measured (NaN: it was not), whether it is reached, and what the floor reaches."""

    figure: str
    wanted: str
    got: float
    reached: bool
    floor: float = math.nan


VALUES: dict[str, Callable[[Row], float]] = {
    "a round": lambda row: row.round_seconds,
    "to the end of round 1": lambda row: row.first_seconds,
    "the whole run": lambda row: row.wall_seconds,
}

BEST, FLOWER = ("fedjax", "pfl"), ("flower",)
AUTO, RAY, APP = "ours, auto", "ours, ray", "ours, Flower app, auto"
TARGETS = (
    Target("softmax", AUTO, BEST, "a round", 4.0),
    Target("softmax", RAY, BEST, "a round", 2.0),
    Target("2NN", AUTO, BEST, "a round", 3.0),
    Target("2NN", RAY, BEST, "a round", 2.5),
    Target("CNN", AUTO, ("pfl",), "a round", 1.0),
    Target("CNN", RAY, ("pfl",), "a round", 1.0),
    Target("softmax, FLUTE's shape", AUTO, ("pfl",), "the whole run", 1.5),
    Target("softmax", AUTO, FLOWER, "a round", 50.0),
    Target("2NN", AUTO, FLOWER, "a round", 25.0),
    Target("CNN", AUTO, FLOWER, "a round", 2.0),
    Target("2NN", RAY, FLOWER, "to the end of round 1", 2.0),
    Target("2NN", AUTO, FLOWER, "to the end of round 1", 4.0),
    Target("2NN", APP, FLOWER, "a round", 5.0),
    Target("a client that does nothing", AUTO, FLOWER, "a round", 50.0),
    Target("a client that does nothing", APP, FLOWER, "a round", 50.0),
    Target("1,000 updates of the CNN added up", "ours, every reply kept", ("numpy",), "a round", 1 / 1.5),
)

SLOWEST_GROWTH, MOST_SETUP_SECONDS, MOST_DRIVER_MIB, MOST_EXTRA_MIB = 1.2, 20.0, 1024.0, 100.0


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What became of the figures whose workload and systems are among ``rows``."""
    return [*_against_peers(rows), *_over_scale(rows)]


def _against_peers(rows: Sequence[Row]) -> list[Verdict]:
    found = {(row.workload.name, row.system): row for row in rows}
    out = []
    for target in TARGETS:
        mine = found.get((target.workload, target.ours))
        peers = [row for name in target.peers if (row := found.get((target.workload, name)))]
        if mine is None or not peers:
            continue
        value = VALUES[target.what]
        best = min((value(row) for row in peers if not row.failed), default=math.nan)
        got = best / value(mine)
        against = " and ".join(row.system for row in peers)
        figure = f"{target.workload}: {target.ours} against {against}, {target.what}"
        wanted, bare = f"at least {target.at_least:.3g} times as fast", found.get((target.workload, target.floor))
        floor = best / value(bare) if bare else math.nan
        out.append(Verdict(figure, wanted, got, got >= target.at_least, floor))
    return out


def _over_scale(rows: Sequence[Row]) -> list[Verdict]:
    """The largest population against the smallest, and the largest cohort against the usual one."""
    out = []
    scale = [row for row in rows if row.workload.views and not row.failed]
    for system in dict.fromkeys(row.system for row in scale):
        mine = [row for row in scale if row.system == system]
        populations = sorted((row for row in mine if row.workload.cohort == COHORT), key=lambda r: r.workload.clients)
        cohorts = sorted((row for row in mine if row.workload.clients == POPULATION), key=lambda r: r.workload.cohort)
        if len(populations) > 1:
            out += _of_populations(system, populations[0], populations[-1])
        usual = [row for row in cohorts if row.workload.cohort == COHORT]
        if usual and cohorts[-1].workload.cohort > COHORT:
            extra = (cohorts[-1].first_bytes - usual[0].first_bytes) / MIB
            what = f"{system}: driver with {cohorts[-1].workload.cohort:,} a round, above that with {COHORT}"
            out.append(Verdict(what, f"at most {MOST_EXTRA_MIB:g} MiB", extra, extra <= MOST_EXTRA_MIB))
    return out


def _of_populations(system: str, few: Row, many: Row) -> list[Verdict]:
    size, growth = f"{many.workload.clients:,}", many.round_seconds / few.round_seconds
    memory = many.first_bytes / MIB
    against = f"{system}: a round of {COHORT} out of {size} against {few.workload.clients:,}"
    wanted = f"at most {SLOWEST_GROWTH:g} times the time"
    setup, most = many.setup_seconds, MOST_SETUP_SECONDS
    return [
        Verdict(against, wanted, growth, growth <= SLOWEST_GROWTH),
        Verdict(f"{system}: set-up of {size} clients", f"under {most:g} s", setup, setup < most),
        Verdict(
            f"{system}: driver of {size} clients", f"under {MOST_DRIVER_MIB:g} MiB", memory, memory < MOST_DRIVER_MIB
        ),
    ]
