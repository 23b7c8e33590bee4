"""The rounds of a foreign app as versions: what its Strategy.start tells becomes a commit, a line, an event.

RUN/state/000007.bin   what the app needs to go on behind round 7; only the app itself reads it
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clients.foreign_state import States
from experiments.run_folder import forget_what_is_damaged
from fl import interrupts
from fl.files import write_bytes
from fl.foreign.frames import Buffer
from fl.metrics import quantiles
from fl.parameters import Parameters
from fl.plain import plain
from fl.registry import Registry, Version
from fl.signature import Signature
from server.background import Background
from server.records import CLIENT_COUNTS, PHASES, Observer, RoundRecord, RunRecord, RunSummary
from server.tracking.files import FilesObserver

UNKNOWN_SIGNATURE = Signature(task="classification", input_shape=(), input_dtype="float32", num_outputs=1)
"""Of a foreign model nothing is known but its parameters."""

NO_VERSIONS = "the app has a loop of its own, not Strategy.start: no versions, no resume"


@dataclass
class Versions:
    """The versions of one run of an app. ``config`` is what the run was started with."""

    registry: Registry
    run_id: str
    run_dir: Path
    config: Mapping[str, Any]
    engine: str
    states: States
    observer: Observer
    began: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    _last: RoundRecord | None = None
    _resumed: int | None = None
    started: bool = False
    _ready: float = 0.0
    _clients: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLIENT_COUNTS, 0))
    _bytes: dict[str, int] = field(default_factory=lambda: {"down": 0, "up": 0})
    _seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def __post_init__(self) -> None:
        self._commits: Background[Callable[[], RoundRecord], RoundRecord] = Background(
            lambda jobs: (do() for do in jobs)
        )

    def resume(self) -> tuple[dict[str, Any], list[Buffer]] | None:
        """What the ServerApp needs to go on behind the last version; None where there is none."""
        from server.history import record_of

        round = forget_what_is_damaged(
            [self.states.store], self.registry, self.run_id, self.run_dir, state_path=state_path
        )
        self.states.resume(round)
        if round < 0:
            return None
        last = self.registry.version(f"{self.run_id}:{round}")
        self._resumed = last.round
        for version in self.registry.versions(self.run_id):
            self._include(record_of(version))
        kept = state_path(self.run_dir, last.round).read_bytes()
        described, buffers = _npy(self.registry.parameters(last))
        return {"round": last.round, "arrays": described}, [kept, *buffers]

    def begin(self, header: Mapping[str, Any], buffers: Sequence[Buffer]) -> None:
        """The app has called ``start``. Of several calls the first one begins the run."""
        if self.started:
            return
        with interrupts.deferred():  # all observers have begun, or none
            self.started, self._ready = True, time.time()
            self.registry.start_run(self.run_id, {"run_dir": str(self.run_dir), "dataset": self._name})
            shapes = [shape for _, _, shape in header["arrays"]]
            self._tell_start(
                num_rounds=int(header["num_rounds"]),
                cohort_size=int(header["cohort_size"]),
                num_parameters=sum(math.prod(shape) for shape in shapes),
            )
            if self._last is not None:
                self.observer.on_round(self._last)

    def round(self, header: Mapping[str, Any], buffers: Sequence[Buffer]) -> None:
        """Make a round of the app a version, durably."""
        number = int(header["round"])
        if self._resumed is not None and number <= self._resumed:
            return  # told again by an app that began again
        self.settle()
        self._commits.start(partial(self._commit, header, buffers, self.states.prepare_commit(number)))

    def settle(self) -> None:
        """Wait until the last round told is a version, and tell the observers; raises what its commit raised."""
        with interrupts.deferred():
            for record in self._commits.results(wait=True):
                self._include(record)
                self.observer.on_round(record)

    def _commit(
        self, header: Mapping[str, Any], buffers: Sequence[Buffer], write_states: Callable[[], None]
    ) -> RoundRecord:
        """The commit itself, in a thread of its own, beside the next round."""
        number = int(header["round"])
        kept, *arrays = buffers
        names = [name for name, _, _ in header["arrays"]]
        parameters = {name: np.load(io.BytesIO(npy)) for name, npy in zip(names, arrays, strict=True)}
        began = time.perf_counter()
        facts = self._facts(header)
        write_states()
        path = state_path(self.run_dir, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, bytes(kept), site="strategy_state")
        version = self._commit_version(parameters, number, facts, kept_sha256=hashlib.sha256(kept).hexdigest())
        state_path(self.run_dir, number - 2).unlink(missing_ok=True)
        facts["seconds"]["overlapped"] = time.perf_counter() - began
        return RoundRecord(round=number, version=version.name, model_sha256=version.model_sha256, **facts)

    def end(self, stopped: BaseException | None, messages: Mapping[str, int]) -> None:
        """The summary, whatever ended the run. ``messages``: what became of them; of rounds more is known."""
        self.settle()
        if not self.started:
            self.observer = FilesObserver()  # there is nothing to look at but the summary
            self._tell_start(num_rounds=0, cohort_size=0, num_parameters=0)
            self._clients = dict(messages)
        versions = self.registry.versions(self.run_id) if self.started else []
        best = self.registry.best(self.run_id) if versions else None
        status = _status(stopped)
        if self.started:
            self.registry.finish_run(self.run_id, {"status": status})
        last, now = self._last, time.time()
        extra = {**self.extra, "phases": self._seconds} | ({} if self.started else {"versions": NO_VERSIONS})
        self.observer.on_end(
            RunSummary(
                status=status,
                reason=str(stopped or ""),
                rounds_completed=last.round if last else 0,
                model_sha256=last.model_sha256 if last else "",
                final=dict(last.metrics) if last else {},
                best=best.name if best else None,
                seconds={
                    "setup": (self._ready or now) - self.began,
                    "rounds": now - (self._ready or now),
                    "total": now - self.began,
                },
                bytes=self._bytes,
                clients=self._clients,
                extra=extra,
            )
        )

    @property
    def _name(self) -> str:
        return str(self.config["app"])

    def _tell_start(self, *, num_rounds: int, cohort_size: int, num_parameters: int) -> None:
        self.observer.on_start(
            RunRecord(
                run_id=self.run_id,
                run_dir=self.run_dir,
                registry_dir=self.registry.folder,
                config=self.config,
                signature=UNKNOWN_SIGNATURE,
                dataset=self._name,
                num_clients=int(self.config["num_clients"]),
                cohort_size=cohort_size,
                num_rounds=num_rounds,
                first_round=self._last.round if self._last else 0,
                engine=self.engine,
                num_parameters=num_parameters,
                exportable=False,
            )
        )

    def _facts(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """What a frame tells of its round, as a RoundRecord has it."""
        client_metrics = {
            name: {**quantiles(values), **_mean(header["aggregated"], name)}
            for name, values in sorted(header["client_values"].items())
        }
        return {
            "metrics": header["metrics"],
            "train_metrics": header["train_metrics"],
            "client_metrics": client_metrics,
            "clients": {**dict.fromkeys(CLIENT_COUNTS, 0), **header["clients"]},
            "bytes": header["bytes"],
            "seconds": {**dict.fromkeys(PHASES, 0.0), **header["seconds"]},
            "refused": header["refused"],
            "failed": header["failed"],
            "cohort": header["cohort"],
        }

    def _commit_version(
        self, parameters: Parameters, number: int, facts: Mapping[str, Any], *, kept_sha256: str
    ) -> Version:
        own = {"metrics": facts["metrics"], "cohort": facts["cohort"]}
        fields = {
            "run_id": self.run_id,
            "round": number,
            "config": self.config,
            "seed": self.config["seed"],
            "dataset": {"name": self._name},
            "model": {"target": self.config["serverapp"]},
            "selection": selection(facts["metrics"]),
            "strategy_state_sha256": kept_sha256,
            "record": plain({name: value for name, value in facts.items() if name not in own}),
            **own,
        }
        if number == 0:
            fields["parent"] = None
        return self.registry.commit(parameters, fields)

    def _include(self, record: RoundRecord) -> None:
        self._last = record
        for mine, its in ((self._clients, record.clients), (self._bytes, record.bytes)):
            for name, value in its.items():
                mine[name] = mine.get(name, 0) + value
        for name, took in record.seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + took


def state_path(run_dir: Path, round: int) -> Path:
    """Where lies what the app needs to go on behind a round."""
    return run_dir / "state" / f"{round:06d}.bin"


def selection(metrics: Mapping[str, float]) -> dict[str, str]:
    """By which metric a version of an app is best: an accuracy where there is one, else a loss, else its first.

    >>> selection({"test_loss": 0.3, "test_acc": 0.9})
    {'metric': 'test_acc', 'direction': 'max'}
    """
    for word, direction in (("acc", "max"), ("loss", "min"), ("err", "min"), ("", "max")):
        for name in metrics:
            if word in name.lower():
                return {"metric": name, "direction": direction}
    return {"metric": "accuracy", "direction": "max"}


def _npy(parameters: Parameters) -> tuple[list[Any], list[Buffer]]:
    described, buffers = [], []
    for name, value in parameters.items():
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        described.append([name, str(value.dtype), list(value.shape)])
        buffers.append(file.getvalue())
    return described, list(buffers)


def _mean(aggregated: Mapping[str, float], name: str) -> dict[str, float]:
    """What the app made of a metric that clients told: mostly their mean, weighted by examples."""
    return {"aggregated": aggregated[name]} if name in aggregated else {}


def _status(stopped: BaseException | None) -> str:
    from fl.errors import Interrupted

    if stopped is None:
        return "finished"
    return "interrupted" if isinstance(stopped, Interrupted | KeyboardInterrupt) else "failed"
