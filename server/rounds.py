"""The round loop: ask, gather, aggregate, commit, tell the observers.

It calls any Flower Strategy through its four public methods, and adds what Flower's own loop lacks: it starts at any
round, closes every round, keeps a version of each, stops early, and resumes. Every draw of randomness in it has the
address (seed, purpose, round), so a stock strategy that uses the process-wide generators is reproducible too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl import interrupts, wire
from fl.decisions import Action
from fl.errors import StoppedByFaults
from fl.metrics import Statistics
from fl.parameters import Parameters, cast, not_finite, num_bytes
from fl.seeds import process_wide
from server.background import Background
from server.commits import Recorder, facts_of
from server.exchange import exchanged
from server.guard import Declared, guarded, sound_reports
from server.over_clients import over_clients
from server.policies import AvailableGrid, Policies, may_commit, may_go_on
from server.records import CLIENT_COUNTS, PHASES, Closing, Observer, RoundRecord
from server.replies import Tally, reports, tally
from server.stock import needs_of
from server.strategy import AlgorithmStrategy, wait_for_nodes

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = {}

LOWER_IS_BETTER = ("loss", "mse", "rmse", "mae", "perplexity")


@dataclass(frozen=True)
class RoundOptions:
    """How a run's rounds go; see conf/ for what each means to a user."""

    num_rounds: int
    cohort_size: int
    evaluate_every: int | None = 1
    evaluate_clients_every: int | None = None
    quorum: float = 0.5
    round_retries: int = 2
    max_update_norm: float | None = None
    stop_metric: str | None = None
    patience: int = 10
    min_delta: float = 0.0


@dataclass
class Totals:
    """What a run has made durable; readable at any moment, also after it was cut short. Round -1: nothing yet."""

    parameters: Parameters
    round: int = -1
    model_sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[Mapping[str, float]] = field(default_factory=list)
    clients: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLIENT_COUNTS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: {"down": 0, "up": 0})
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    quarantined: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    stopped: str = ""

    def include(self, record: RoundRecord) -> None:
        """Take a committed round into account."""
        self.round, self.model_sha256, self.metrics = record.round, record.model_sha256, dict(record.metrics)
        if record.metrics:
            self.history.append(record.metrics)
        for mine, its in ((self.clients, record.clients), (self.bytes, record.bytes)):
            for name, value in its.items():
                mine[name] += value
        for name, took in record.seconds.items():
            self.seconds[name] += took
        for failure in record.failed:
            if failure["client"] in record.quarantined:
                self.quarantined.setdefault(failure["client"], {**failure, "round": record.round})


class Clock:
    """Seconds a phase of one round; the phases of a round add up to its total."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block as part of phase ``name``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def read(self) -> dict[str, float]:
        """The phases so far, and the total since the clock was made."""
        return {**self.seconds, "total": time.perf_counter() - self._began}


@dataclass
class RoundLoop:
    """What the rounds of one run are made of.

    evaluate          measures parameters on the server's test set
    evaluates_beside  that may happen while the next round trains: it draws no random numbers
    grown             the model's arrays change their shapes from round to round: what keeps some from being its arrays
    pack_state        takes hold of the strategy's state, which the next round changes
    recorded          makes rounds versions, durably and in their order, and writes of them
    observer          told of phases, and of rounds once they are versions
    may_wait_bytes    of parameters of rounds that are trained and not committed; 0: one round, whatever its size
    frozen            names of arrays that no round changes, whatever a strategy makes of their zero updates
    known             node -> client, of real SuperNodes, which say themselves whose devices they are
    """

    grid: Grid
    strategy: Strategy
    options: RoundOptions
    policies: Policies
    seed: int
    evaluate: Callable[[Parameters], Statistics]
    evaluates_beside: bool
    grown: Callable[[Parameters], str | None] | None
    pack_state: Callable[[], bytes | None]
    recorded: Recorder
    observer: Observer
    may_wait_bytes: int = 2**26
    frozen: tuple[str, ...] = ()
    known: dict[int, int] = field(default_factory=dict)
    background: Background[Closing, tuple[RoundRecord, Parameters]] = field(init=False)

    def __post_init__(self) -> None:
        self.background = Background(self._commit)

    def begin(self, totals: Totals, *, origin: Mapping[str, Any], **more: Any) -> None:
        """Round 0: version 0 as it was seeded, before any training. ``origin``: as a Closing has it."""
        with self._settled(totals):
            self._close(totals, 0, totals.parameters, Clock(), origin=origin, cohort=(), **more)

    def run(self, totals: Totals, *, until: int) -> None:
        """Every round after ``totals.round``, up to ``until``: the run may pause there, and go on to the same bits.

        Raises StoppedByFaults or Interrupted; ``totals`` is how far it came.
        """
        parameters = totals.parameters
        with self._settled(totals):
            for round in range(totals.round + 1, min(until, self.options.num_rounds) + 1):
                if self._stop_early(totals):
                    return
                parameters = self._round(totals, parameters, round)

    def over(self, totals: Totals) -> bool:
        """Whether there are no rounds left to train."""
        return bool(totals.stopped) or totals.round >= self.options.num_rounds

    def _round(self, totals: Totals, start: Parameters, round: int) -> Parameters:
        clock = Clock()
        parameters, counted, down = self.train(start, round, clock)
        arrays = wire.array_record(parameters)
        clients, bytes_evaluated = self.evaluate_clients(arrays, round, clock)
        self._close(
            totals,
            round,
            parameters,
            clock,
            clients=counted.counts,
            bytes={"down": down + bytes_evaluated, "up": counted.bytes_up},
            cohort=counted.cohort,
            train_metrics=counted.train_metrics(),
            update_norms=[row["update-norm"] for row in counted.rows if "update-norm" in row],
            refused=counted.refused,
            failed=counted.failed,
            quarantined=counted.quarantined,
            **clients,
        )
        return parameters

    def train(self, start: Parameters, round: int, clock: Clock) -> tuple[Parameters, Tally, int]:
        """Ask cohorts until one meets the quorum: the new parameters, the counts, and the bytes sent."""
        down = 0
        before: list[Tally] = []
        for attempt in range(self.options.round_retries + 1):
            config = ConfigRecord({"version": round - 1, "attempt": attempt})
            arrays = wire.array_record(start)
            with self._random("configure_train", round, attempt):
                grid = self._available(round)
                messages = list(self.strategy.configure_train(round, arrays, config, grid))
            down += sum_bytes(messages)
            check = partial(guarded, declared=self._declared(start, version=round - 1), known=self.known)
            replies = self._ask(messages, round, "train", clock, check)
            counted = tally(messages, replies, version=round - 1)
            decision = may_commit(
                asked=counted.asked,
                answered=counted.answered,
                quorum=self.options.quorum,
                attempt=attempt,
                retries=self.options.round_retries,
            )
            if decision.action is Action.GO_ON:
                with clock.phase("aggregate"), self._random("aggregate_train", round, attempt):
                    aggregated, _ = self.strategy.aggregate_train(round, replies)
                if aggregated is not None:
                    parameters = self._in_dtype(aggregated, start) | {name: start[name] for name in self.frozen}
                    if name := not_finite(parameters):
                        why = f"their aggregate diverged: array {name!r} holds a NaN or an infinity"
                        answers = {"asked": counted.asked, "answered": counted.answered}
                        raise StoppedByFaults(round=round, **answers, reasons=[why])
                    return parameters, _with_failed_tries(counted, before), down
            before.append(counted)
        last = before[-1]
        reasons = [str(item["reason"]) for item in [*last.failed, *last.refused]]
        raise StoppedByFaults(round=round, asked=last.asked, answered=last.answered, reasons=reasons)

    def evaluate_clients(self, arrays: ArrayRecord, round: int, clock: Clock) -> tuple[dict[str, Any], int]:
        """What clients report of a round's parameters, if it is due, and the bytes sent; devices pick them up."""
        if not self._due(self.options.evaluate_clients_every, round):
            return {}, 0
        config = ConfigRecord({"version": round})
        with self._random("configure_evaluate", round, 0):
            messages = list(self.strategy.configure_evaluate(round, arrays, config, self._available(round)))
        averaged = not isinstance(self.strategy, AlgorithmStrategy)
        check = partial(sound_reports, averaged=averaged, known=self.known)
        replies, unsound = self._ask(messages, round, "evaluate", clock, check)
        with clock.phase("evaluate"), self._random("aggregate_evaluate", round, 0):
            self.strategy.aggregate_evaluate(round, replies)
        found = over_clients(reports(replies, round=round))
        return {**found, "refused_reports": unsound}, sum_bytes(messages)

    def _close(
        self,
        totals: Totals,
        round: int,
        parameters: Parameters,
        clock: Clock,
        *,
        origin: Mapping[str, Any] = _NOTHING,
        **more: Any,
    ) -> None:
        """The end of every round, 0 included: it is measured, committed and told of beside the training of the next.

        Rounds that wait are committed together, and in their order: none is durable before the one before it.
        """
        due = self._due(self.options.evaluate_every, round) or round in (0, self.options.num_rounds)
        beside = due and self.evaluates_beside and self.options.stop_metric is None
        measured: dict[str, Any] = {} if beside else {"metrics": {}, "confusion": None}
        if due and not beside:
            with clock.phase("evaluate"):
                measured = facts_of(self.evaluate(parameters))
        with interrupts.deferred():
            with clock.phase("commit"):
                self._settle(totals, wait=False)
                state = self.pack_state()
            facts = {
                "round": round,
                "clients": dict.fromkeys(CLIENT_COUNTS, 0),
                "bytes": {"down": 0, "up": 0},
                **more,
                **measured,
                "seconds": clock.read(),
            }
            self.background.most = max(1, self.may_wait_bytes // max(1, num_bytes(parameters)))
            self.background.start(Closing(round, parameters, state, facts, origin))
            if self.options.stop_metric is not None:
                self._settle(totals, wait=True)

    def _commit(self, closings: Sequence[Closing]) -> Iterator[tuple[RoundRecord, Parameters]]:
        """In another thread. Rounds before one that raises have become versions, and are told of."""
        for record, one in zip(self.recorded.commit(closings), closings, strict=True):
            self.observer.on_round(record)
            yield record, one.parameters

    @contextmanager
    def _settled(self, totals: Totals) -> Iterator[None]:
        """However the block ends, what was committed in it is durable and told of afterwards."""
        try:
            yield
        finally:
            with interrupts.deferred():
                self._settle(totals, wait=True)

    def _settle(self, totals: Totals, *, wait: bool) -> None:
        """Take into account what was committed since, with ``wait`` all there is; raises what a commit raised."""
        for record, totals.parameters in self.background.results(wait=wait):
            totals.include(record)

    def _declared(self, start: Parameters, *, version: int) -> Declared:
        """What clients may send that train from ``start``; our own strategy may want arrays beside the model's."""
        return Declared(
            model=start,
            extra=self.strategy.extra_like(start) if isinstance(self.strategy, AlgorithmStrategy) else {},
            grown=self.grown,
            version=version,
            max_norm=self.options.max_update_norm,
            needs=needs_of(self.strategy),
        )

    def _ask(
        self,
        messages: Sequence[Message],
        round: int,
        phase: str,
        clock: Clock,
        check: Callable[[Sequence[Message], Sequence[Message]], T],
    ) -> T:
        """What ``check`` makes of the replies, which a real SuperLink gives in any order."""
        with clock.phase(phase):
            replies = exchanged(
                self.grid,
                messages,
                timeout=self.policies.deadline(round),
                progress=partial(self.observer.on_phase, round, phase),
            )
            return check(messages, replies)

    def _available(self, round: int) -> Grid:
        nodes = wait_for_nodes(self.grid, self.options.cohort_size)
        allowed = self.policies.available(round, nodes)
        return self.grid if len(allowed) == len(nodes) else AvailableGrid(self.grid, allowed)

    def _random(self, purpose: str, round: int, attempt: int) -> Any:
        if isinstance(self.strategy, AlgorithmStrategy):  # all its draws have addresses
            return nullcontext()
        return process_wide(self.seed, purpose=f"{purpose}/{attempt}", round=round)

    def _in_dtype(self, arrays: ArrayRecord, like: Parameters) -> Parameters:
        """The aggregate as the model has it: some stock strategies compute in other dtypes."""
        found = wire.arrays_of(arrays)
        named = dict(zip(like, found.values(), strict=True)) if found.keys() != like.keys() else found
        if self.grown is not None:
            return {name: named[name] for name in like}
        return {name: cast(named[name], value).reshape(value.shape) for name, value in like.items()}

    def _due(self, every: int | None, round: int) -> bool:
        return every is not None and (round % every == 0 or round == self.options.num_rounds)

    def _stop_early(self, totals: Totals) -> bool:
        metric = self.options.stop_metric
        if metric is None:
            return False
        decision = may_go_on(
            [m[metric] for m in totals.history if metric in m],
            patience=self.options.patience,
            min_delta=self.options.min_delta,
            higher_is_better=metric not in LOWER_IS_BETTER,
        )
        totals.stopped = decision.reason if decision.action is Action.STOP else ""
        return bool(totals.stopped)


def sum_bytes(messages: Sequence[Message]) -> int:
    """Bytes of the arrays that ``messages`` carry down; a payload they share is measured once."""
    sizes: dict[int, int] = {}
    for message in messages:
        key = id(message.content)
        if key not in sizes:
            sizes[key] = wire.record_bytes(message.content)
    return sum(sizes[id(message.content)] for message in messages)


def _with_failed_tries(counted: Tally, before: Sequence[Tally]) -> Tally:
    """The counts of a round that was tried more than once: answers that did not meet the quorum count as late."""
    if not before:
        return counted
    return Tally(
        asked=counted.asked + sum(t.asked for t in before),
        rows=counted.rows,
        failed=[*(item for t in before for item in t.failed), *counted.failed],
        refused=[*(item for t in before for item in t.refused), *counted.refused],
        bytes_up=counted.bytes_up + sum(t.bytes_up for t in before),
        quarantined=sorted({client for t in (*before, counted) for client in t.quarantined}),
    )
