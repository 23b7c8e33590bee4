"""Differential privacy by client: what the noise of a run's rounds bought, as epsilon at a delta.

    round     mean of n updates of norm <= C, plus N(0, (z C / n)^2): a client that was left at zero would have moved
              it by C / n at most, so a round it took part in is a Gaussian mechanism of noise multiplier z
    rounds    those of multipliers z_1 .. z_k are together one of mu = (sum 1 / z_i^2)^0.5, exactly
              (Dong, Roth & Su 2022)
    epsilon   the least with  delta >= Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)
              (Balle & Wang 2018, theorem 8)

Nothing is taken off for the chance not to be drawn: cohorts are drawn with a fixed size, by a seed that the run's
configuration holds, and the versions name them. What is accounted is therefore every round that a client was asked in,
and the figure is that of the client that was asked most often. Amplification by sampling would need draws that nobody
knows, each client's on its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

MODULE = "flwr.serverapp.strategy."
FIXED = tuple(f"{MODULE}DifferentialPrivacy{side}SideFixedClipping" for side in ("Server", "Client"))
MOST_DELTA = 1e-5

ASSUMPTIONS = (
    "it is about the parameters of the versions: figures that clients report about them carry no noise",
    "the noise is drawn by the run's seed, which whoever is to be kept from knowing must not have",
    "a neighbour is the same run in which one client's updates count as zero; the server itself is trusted",
    "cohorts are known: nothing is taken off for clients that were not drawn",
)

FAR = -30.0
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Round:
    """A round of training: who was ``asked``, how many ``answered`` (None: nobody wrote it down)."""

    asked: Sequence[int]
    answered: int | None


def spent(
    rounds: Sequence[Round],
    *,
    strategy: Mapping[str, Any],
    weighting: str,
    cohort_size: int,
    num_clients: int,
    earlier: bool = False,
) -> dict[str, Any]:
    """``epsilon`` at ``delta`` of a run with central differential privacy, and what it rests on; or {"absent": why}.

    strategy    the section of the settings;   weighting   of updates: only "uniform" bounds what one of them moves
    earlier     whether the run started from parameters that other clients' data had gone into

    delta is the lower of 1e-5 and num_clients^-1.1.
    """
    if why := _impossible(strategy, weighting=weighting, earlier=earlier):
        return {"absent": why}
    if any(one.answered is None for one in rounds):
        return {"absent": "not every round says how many answered"}
    noise = float(strategy["noise_multiplier"])
    square: dict[int, float] = defaultdict(float)
    took_part: dict[int, int] = defaultdict(int)
    for one in rounds:
        for client in one.asked:  # of fewer answers each moves the mean by more, and the noise is as it was
            square[client] += (cohort_size / (noise * one.answered)) ** 2 if one.answered else 0.0
            took_part[client] += 1
    mu = math.sqrt(max(square.values(), default=0.0))
    delta = min(MOST_DELTA, num_clients**-1.1)
    return {
        "epsilon": gaussian_epsilon(mu, delta),
        "delta": delta,
        "epsilon_replaced": gaussian_epsilon(2 * mu, delta),
        "noise_multiplier": noise,
        "clipping_norm": float(strategy["clipping_norm"]),
        "rounds": len(rounds),
        "most_rounds_of_a_client": max(took_part.values(), default=0),
        "sampling_fraction": cohort_size / num_clients,
        "mu": mu,
        "assumptions": list(ASSUMPTIONS),
    }


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon of a Gaussian mechanism with sensitivity / deviation ``mu``, at ``delta`` in (0, 1).

    >>> round(gaussian_epsilon(1.0, 1e-5), 4), gaussian_epsilon(0.0, 1e-5)
    (4.3772, 0.0)
    """
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_delta(mu, middle) <= delta else (middle, high)
    return high


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The least delta of a Gaussian mechanism with sensitivity / deviation ``mu`` > 0, at ``epsilon`` >= 0."""
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return max(0.0, _NORMAL.cdf(a) - math.exp(epsilon + _log_cdf(b)))


def _log_cdf(x: float) -> float:
    """log Phi(x); far out by its series, where Phi(x) itself is 0 in floating point."""
    if x > FAR:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2)))
    return -0.5 * x * x - math.log(-x) - 0.5 * math.log(2 * math.pi) + math.log1p(-1 / (x * x) + 3 / x**4)


def _impossible(strategy: Mapping[str, Any], *, weighting: str, earlier: bool) -> str | None:
    """Why nothing can be said of what was spent."""
    target = str(strategy.get("_target_"))
    if "DifferentialPrivacy" not in target:
        return "the strategy adds no noise: strategy=dp_server_fixed does"
    if target not in FIXED:
        return "a clipping norm that adapts spends some on its own, which is not accounted: strategy=dp_server_fixed is"
    inner = str((strategy.get("strategy") or {}).get("_target_"))
    if inner != f"{MODULE}FedAvg":
        return f"{inner.rpartition('.')[2]} inside keeps what no noise was added to: only FedAvg is accounted"
    if not float(strategy["noise_multiplier"]) > 0:
        return "the noise multiplier is 0"
    if weighting != "uniform":
        return (
            "clients weigh by their number of examples, so one can move the mean by more than the noise is made for: "
            "server.weighting=uniform bounds that"
        )
    if earlier:
        return "the run started from a version of another run, and what that spent is not known here"
    return None
