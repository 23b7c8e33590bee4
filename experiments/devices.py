"""`fl devices serve`: the simulated devices of a run answer their users, while its rounds go on or after them.

RUN/devices/serving/       every device's own model, as it answers by it
RUN/devices/served.sqlite  a row an answer, on the devices' side
RUN/serving.json           what may be known of that: sums over all devices, asked by query rounds
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_file import CONFIG
from experiments.device_versions import Source
from experiments.past_run import PastRun, open_past_run
from experiments.prepare import PREPARED
from experiments.printing import print_table
from experiments.run_folder import RUN
from fl.decisions import Action, Decision
from fl.errors import BadInput
from fl.files import write_json

if TYPE_CHECKING:
    from experiments.device_releases import Orders
    from fl.data.analytics import Ask

SERVING = "serving.json"
EDGES = tuple(2.0**power for power in range(-16, 3))
"""Seconds: 15 microseconds to four seconds, doubling."""
SECONDS_TO_BEGIN = 600.0
COMMAND = "import sys; from experiments.cli import main; main()"


def simulate_and_serve(overrides: Sequence[str], *, rate: float, seconds: float) -> None:
    """One run, whose devices answer their users in a process of their own meanwhile; its folder is the last line."""
    from experiments.run import simulate as run
    from experiments.simulate import simulate

    print(simulate(overrides, run=lambda settings: _beside(settings, run, rate=rate, seconds=seconds)))


def _beside(
    settings: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Path], *, rate: float, seconds: float
) -> Path:
    words = ["devices", "serve", "--run", str(settings["run_dir"]), "--rate", str(rate), "--seconds", str(seconds)]
    users = subprocess.Popen([sys.executable, "-c", COMMAND, *words])
    try:
        folder = run(settings)
        status = users.wait()
    finally:
        if users.poll() is None:
            users.terminate()
            with suppress(subprocess.TimeoutExpired):
                users.wait(timeout=10)
            users.kill()
            users.wait()
    if status:
        raise BadInput(key="fl devices serve", got=f"exit status {status}", allowed="0; it says above what was wrong")
    return folder


def serve_run(run_dir: Path, *, rate: float, seconds: float, follow: str | None) -> dict[str, Any]:
    """Let the devices of the run in ``run_dir`` answer until its rounds are over, and ``seconds`` longer.

    rate     questions a second, of all users together
    follow   an alias or a version to answer by; None: the newest version of the run. Releases of an alias over devices
             are led from here

    Returns what is written to serving.json.
    """
    from clients.fleet import Fleet, serve
    from clients.state import StateStore

    if not 0 < rate <= 1e5:
        raise BadInput(key="--rate", got=rate, allowed="questions a second, above 0")
    past = _begun(run_dir)
    source = Source(past.registry, past.run_id, follow)
    clients = range(past.centre.num_clients)
    began = time.time()
    over = _Over(source, seconds)
    with _orders(past, source, follow) as orders:
        fleet = Fleet(
            past.setting,
            clients,
            orders.assign,
            known=source.known,
            models=StateStore(past.run_dir / "devices" / "serving"),
        )
        serve(fleet, clients, seed=past.setting.seed, rate=rate, over=over, beside=orders.look)
    found = figures(_asker(past), since=began, newest=source.newest) | {"unanswered": fleet.unanswered}
    write_json(past.run_dir / SERVING, found, site="report")
    return found


def _orders(past: PastRun, source: Source, follow: str | None) -> Orders:
    from experiments.device_releases import Orders
    from fl.deployment.policies import policy_for

    return Orders(source, past.registry.folder, alias=follow or "", ask=_asker(past), policy_for=policy_for, told=_tell)


def _tell(release: str, decision: Decision) -> None:
    if decision.action is not Action.HOLD:
        print(f"{release}: {decision.action.value}: {decision.reason}", file=sys.stderr, flush=True)


def figures(ask: Ask, *, since: float, newest: int) -> dict[str, Any]:
    """What devices answered since then, of all of them together, by two query rounds."""
    from fl.messages import SERVED, Query
    from fl.metrics import Histogram, Sums

    numbers = {"since": (since,), "edges": EDGES}
    (sums,) = ask(Query("served", (0,), numbers)).pooled().values()
    rounds = tuple(float(number) - 0.5 for number in range(newest + 2))
    (by_version,) = ask(Query("served_versions", (0,), {**numbers, "edges": rounds})).pooled().values()
    assert isinstance(sums, Sums) and isinstance(by_version, Histogram)
    told = dict(zip(SERVED, sums.values, strict=False))
    answers, rewards = max(1.0, told["answers"]), max(1.0, told["rewards"])
    return {
        "answers": int(told["answers"]),
        "failed": int(told["errors"]),
        "devices": int(told["users"]),
        "personal_share": told["personal"] / answers,
        "reward": told["reward"] / rewards,
        "global_reward": told["base_reward"] / rewards,
        "versions_behind": told["behind"] / answers,
        "versions_seen": sum(count > 0 for count in by_version.counts),
        "answers_by_version": {str(number): count for number, count in enumerate(by_version.counts) if count},
        "median_seconds": _median(sums.values[len(SERVED) :]),
    }


def show(found: Mapping[str, Any]) -> None:
    """The figures as a table."""
    rows = [
        ("answers", found["answers"]),
        ("of them failed", found["failed"]),
        ("questions without an answer", found["unanswered"]),
        ("devices that answered", found["devices"]),
        ("by a device's own model", f"{found['personal_share']:.1%}"),
        ("right, as answered", f"{found['reward']:.4f}"),
        ("right, had the global model answered", f"{found['global_reward']:.4f}"),
        ("global versions they came from", found["versions_seen"]),
        ("versions behind, on average", f"{found['versions_behind']:.2f}"),
        ("seconds an answer took, at most, half of them", f"{found['median_seconds']:.2g}"),
    ]
    print_table(("", ""), rows)


class _Over:
    """Whether it is time to stop: so many seconds after the rounds were over. The registry is asked twice a second."""

    def __init__(self, source: Source, seconds: float) -> None:
        self._source, self._seconds = source, seconds
        self._asked, self._ends = 0.0, float("inf")

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._ends == float("inf") and now - self._asked > 0.5:
            self._asked = now
            if self._source.over:
                self._ends = now + self._seconds
        return now >= self._ends


def _begun(run_dir: Path) -> PastRun:
    """The run, once it has its data and its first version."""
    ends = time.monotonic() + SECONDS_TO_BEGIN
    told = False
    while True:
        if (run_dir / CONFIG).is_file() and (run_dir / RUN).is_file() and (run_dir / PREPARED).is_file():
            past = open_past_run(run_dir.resolve(), states=run_dir.resolve() / "devices" / "serving")
            if past.registry.latest(past.run_id) is not None:
                return past
        elif not told:
            print(f"waiting for the run in {run_dir} to begin", file=sys.stderr, flush=True)
            told = True
        if time.monotonic() > ends:
            raise BadInput(key="--run", got=str(run_dir), allowed="the folder of a run of `fl simulate` that begins")
        time.sleep(0.2)


def _asker(past: PastRun) -> Ask:
    from experiments.asking import ask_here

    return ask_here(
        past.partitions,
        signature=past.setting.signature,
        num_clients=past.centre.num_clients,
        seed=past.setting.seed,
    )


def _median(counts: Sequence[float]) -> float:
    """The upper edge of the bin that holds the middle one."""
    seen, half = 0.0, sum(counts) / 2
    for edge, count in zip((*EDGES, EDGES[-1]), counts, strict=True):
        seen += count
        if seen >= half:
            return edge
    return EDGES[-1]
