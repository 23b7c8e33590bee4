"""Strategy.start as Flower has it, and at the end of each round the driver is told, so that the round is a version.

It stands in for Flower's own in a foreign app's process: the same calls of the strategy in the same order, the same
Result. It also refuses replies that would poison the model (guard.py), and after a restart goes on behind the last
round that became a version: with its arrays, the strategy's state, the generators and the Result as they were.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import INFO
from types import ModuleType
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from . import state
from .frames import Buffer
from .grid import AppGrid
from .guard import guarded
from .records import Array, decode, encode, npy_of
from .refused import REFUSED

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass
class Recorder:
    """What the driver knows, and is told, of the rounds of this process.

    seeds    fl/seeds.py
    before   rounds of earlier calls of ``start``: the rounds of a run are counted through
    resume   the last committed round with its state and arrays, until it is reached again
    """

    grid: AppGrid
    seeds: ModuleType
    resume: Mapping[str, Any] | None = None
    before: int = 0
    finished: list[Result] = field(default_factory=list)

    def begun(self, strategy: Strategy, arrays: ArrayRecord, num_rounds: int) -> None:
        """The app has called ``start``, with these arrays."""
        nodes = len(self.grid.get_node_ids())
        fraction = float(getattr(strategy, "fraction_train", 1.0) or 0.0)
        least = int(getattr(strategy, "min_train_nodes", 0) or 0)
        header = {
            "op": "begin",
            "num_rounds": self.before + num_rounds,
            "cohort_size": min(nodes, max(least, int(nodes * fraction))),
            "strategy": type(strategy).__name__,
        }
        self.tell(header, arrays)

    def tell(self, header: Mapping[str, Any], arrays: ArrayRecord, kept: bytes = b"") -> None:
        """A frame about a round: ``kept``, then the arrays."""
        described = [[name, a.dtype, list(a.shape)] for name, a in arrays.items()]
        buffers: list[Buffer] = [kept, *(npy_of(array) for array in arrays.values())]
        self.grid.tell({**header, "arrays": described}, buffers)


@dataclass
class Progress:
    """One call of ``start``: where it is."""

    strategy: Strategy
    first_state: state.Pickled
    arrays: ArrayRecord
    result: Result = field(default_factory=Result)
    round: int = 0


def installed(recorder: Recorder) -> None:
    """Let every Strategy of this process start here, unless it has a ``start`` of its own."""
    original = Strategy.start

    def start(
        self: Strategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """As Flower's own, whose docstring holds."""
        if grid is not recorder.grid:  # the app has put something of its own around it
            return original(self, grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        log(INFO, "Starting %s strategy:", self.__class__.__name__)
        self.summary()
        return _start(
            recorder,
            Progress(self, state.digests(state.pickled(self)), initial_arrays),
            num_rounds,
            timeout,
            ConfigRecord() if train_config is None else train_config,
            ConfigRecord() if evaluate_config is None else evaluate_config,
            evaluate_fn,
        )

    Strategy.start = start  # type: ignore[method-assign]


def _start(
    recorder: Recorder,
    progress: Progress,
    num_rounds: int,
    timeout: float,
    train_config: ConfigRecord,
    evaluate_config: ConfigRecord,
    evaluate_fn: EvaluateFn | None,
) -> Result:
    recorder.begun(progress.strategy, progress.arrays, num_rounds)
    if recorder.resume is not None:
        _restore(recorder, progress, num_rounds)
    else:
        began = time.perf_counter()
        measured = evaluate_fn(0, progress.arrays) if evaluate_fn else None
        if measured is not None:
            progress.result.evaluate_metrics_serverapp[0] = measured
        if recorder.before == 0:
            took = time.perf_counter() - began
            facts = {"metrics": _numbers(measured), "seconds": {"evaluate": took, "total": took}}
            _commit(recorder, progress, {**_NOTHING, **facts})
    while progress.round < num_rounds:
        progress.round += 1
        _round(recorder, progress, timeout, train_config, evaluate_config, evaluate_fn)
    return _done(recorder, progress, num_rounds)


_NOTHING: Mapping[str, Any] = {
    "metrics": {},
    "train_metrics": {},
    "client_values": {},
    "aggregated": {},
    "cohort": [],
    "clients": {},
    "failed": [],
    "refused": [],
    "bytes": {"down": 0, "up": 0},
}


def _round(
    recorder: Recorder,
    progress: Progress,
    timeout: float,
    train_config: ConfigRecord,
    evaluate_config: ConfigRecord,
    evaluate_fn: EvaluateFn | None,
) -> None:
    strategy, grid, number, result = progress.strategy, recorder.grid, progress.round, progress.result
    grid.begin_round(recorder.before + number)
    began = time.perf_counter()
    seconds = {"train": 0.0, "aggregate": 0.0, "evaluate": 0.0}
    with _timed(seconds, "train"):
        asked = list(strategy.configure_train(number, progress.arrays, train_config, grid))
        replies = guarded(strategy, asked, grid.send_and_receive(messages=asked, timeout=timeout))
    with _timed(seconds, "aggregate"):
        arrays, train_metrics = strategy.aggregate_train(number, replies)
    facts = {**_counts(asked, replies, grid), "bytes": {"down": _bytes(asked), "up": _bytes(replies)}}
    if arrays is not None:
        result.arrays = progress.arrays = arrays
    if train_metrics is not None:
        log(INFO, "\t└──> Aggregated MetricRecord: %s", train_metrics)
        result.train_metrics_clientapp[number] = train_metrics
    del replies
    with _timed(seconds, "evaluate"):
        asked = list(strategy.configure_evaluate(number, progress.arrays, evaluate_config, grid))
        replies = grid.send_and_receive(messages=asked, timeout=timeout)
        aggregated = strategy.aggregate_evaluate(number, replies)
        facts["bytes"]["down"] += _bytes(asked)
        values = _values(replies)
        if aggregated is not None:
            log(INFO, "\t└──> Aggregated MetricRecord: %s", aggregated)
            result.evaluate_metrics_clientapp[number] = aggregated
        measured = None
        if evaluate_fn:
            measured = evaluate_fn(number, progress.arrays)
            log(INFO, "\t└──> MetricRecord: %s", measured)
            if measured is not None:
                result.evaluate_metrics_serverapp[number] = measured
    facts |= {
        "metrics": _numbers(measured),
        "train_metrics": _numbers(train_metrics),
        "client_values": values,
        "aggregated": _numbers(aggregated),
        "seconds": {**seconds, "total": time.perf_counter() - began},
    }
    _commit(recorder, progress, facts)


def _commit(recorder: Recorder, progress: Progress, facts: Mapping[str, Any]) -> None:
    """Tell the driver that the round is over, with all that is needed to go on from there."""
    kept = {
        "strategy": state.changes(state.pickled(progress.strategy), progress.first_state),
        "generators": recorder.seeds.process_wide_state(),
        "result": _packed(progress.result, arrays=False),
        "aggregated": bool(len(progress.result.arrays)),
        "finished": [_packed(result) for result in recorder.finished],
    }
    header = {"op": "round", "round": recorder.before + progress.round, **facts}
    recorder.tell(header, progress.arrays, pickle.dumps(kept, protocol=5))


def _restore(recorder: Recorder, progress: Progress, num_rounds: int) -> None:
    """Where this call of ``start`` stood when the last version was made; done, if that was in a later call."""
    assert recorder.resume is not None, "asked only when there is something"
    committed, kept = int(recorder.resume["round"]), recorder.resume["kept"]
    if len(kept["finished"]) > len(recorder.finished):
        progress.result = _unpacked(kept["finished"][len(recorder.finished)])
        progress.round = num_rounds
        return
    progress.result = _unpacked(kept["result"])
    progress.arrays, progress.round = recorder.resume["arrays"], committed - recorder.before
    if kept["aggregated"]:
        progress.result.arrays = progress.arrays
    state.restore(progress.strategy, kept["strategy"])
    recorder.seeds.restore_process_wide(kept["generators"])
    recorder.resume = None


def _done(recorder: Recorder, progress: Progress, num_rounds: int) -> Result:
    recorder.finished.append(progress.result)
    recorder.before += num_rounds
    recorder.grid.begin_round(0)
    return progress.result


def _packed(result: Result, *, arrays: bool = True) -> tuple[Any, ...]:
    histories = (
        result.train_metrics_clientapp,
        result.evaluate_metrics_clientapp,
        result.evaluate_metrics_serverapp,
    )
    plain = [{number: (type(record), dict(record)) for number, record in history.items()} for history in histories]
    head, buffers = encode(RecordDict({"arrays": result.arrays if arrays else ArrayRecord()}))
    return plain, head, [bytes(buffer) for buffer in buffers]


def _unpacked(packed: tuple[Any, ...]) -> Result:
    plain, head, buffers = packed
    result = Result()
    result.arrays = decode(head, buffers).array_records["arrays"]
    result.train_metrics_clientapp, result.evaluate_metrics_clientapp, result.evaluate_metrics_serverapp = (
        {number: kind(values) for number, (kind, values) in history.items()} for history in plain
    )
    return result


def _counts(asked: Sequence[Message], replies: Sequence[Message], grid: AppGrid) -> dict[str, Any]:
    first = grid.get_node_ids()[0]
    failed: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    cohort: list[int] = []
    for reply in replies:
        client = reply.metadata.src_node_id - first
        if reply.has_error():
            place = refused if reply.error.code == REFUSED else failed
            place.append({"client": client, "reason": str(reply.error.reason)[:500]})
        else:
            cohort.append(client)
    clients = {
        "asked": len(asked),
        "answered": len(cohort),
        "failed": len(failed),
        "refused": len(refused),
        "late": len(asked) - len(replies),
    }
    return {"cohort": sorted(cohort), "failed": failed, "refused": refused, "clients": clients}


def _values(replies: Sequence[Message]) -> dict[str, list[float]]:
    """Each number that clients told of themselves, over the clients."""
    found: dict[str, list[float]] = {}
    for reply in replies:
        if reply.has_content():
            for record in reply.content.values():
                if isinstance(record, MetricRecord):
                    for name, value in _numbers(record).items():
                        found.setdefault(name, []).append(value)
    return found


def _numbers(record: Mapping[str, Any] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in (record or {}).items():  # an app's evaluate_fn may return any dict
        if not isinstance(value, list | str | bytes):
            with suppress(TypeError, ValueError, RuntimeError):
                found[name] = float(value)
    return found


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of arrays; what several messages share counts for each, and is measured once."""
    sizes: dict[int, int] = {}
    for message in messages:
        if message.has_content() and id(message.content) not in sizes:
            records = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
            sizes[id(message.content)] = sum(len(npy_of(array)) for record in records for array in record.values())
    return sum(sizes[id(message.content)] for message in messages if message.has_content())


def arrays_of(described: Sequence[Sequence[Any]], buffers: Sequence[Buffer]) -> ArrayRecord:
    """The arrays of a frame about a round."""
    record = ArrayRecord()
    for (name, dtype, shape), npy in zip(described, buffers, strict=True):
        record[name] = Array(dtype, tuple(shape), "numpy.ndarray", npy)
    return record


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began
