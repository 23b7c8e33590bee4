"""Messages <-> Flower records; the one file of fl/ that imports flwr.

    down    arrays   ArrayRecord   the global model
            shared   ArrayRecord   the algorithm's own arrays, where it has any
            config   ConfigRecord  server-round, version, reply, and what a stock strategy adds
    up      reply="parameters" (stock Flower strategies)   one reply a client
              arrays   ArrayRecord   local parameters: global plus delta
              metrics  MetricRecord  num-examples, train_loss, and what is merely looked at
            reply="sum" (our own algorithms)               one reply a work unit
              sum      ArrayRecord   sum of weight times delta over the unit's clients
              extra    ArrayRecord   sum of the algorithm's extra arrays, where it has any
              clients  MetricRecord  a list a column: client, weight, num_examples, norm, base_version ...
    query                                                one reply a work unit, or a client
              query       ConfigRecord  kind, columns, part, by-client, recipe, and ``numbers/NAME`` lists
              metrics     MetricRecord  client: the first; clients: all; num-examples
              statistics  ConfigRecord  the statistics that merge
    evaluation
              metrics     MetricRecord  num-examples and the plain numbers, which stock strategies average
              statistics  ConfigRecord  the same as statistics that merge

A client that failed or was refused answers with a Flower Error that says why.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from typing import Any

import flwr.app
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl.errors import ClientFailed, RefusedUpdate
from fl.messages import EvaluateTask, EvaluationReport, OwnTraining, Query, QueryReport, TrainTask, Update
from fl.metrics import Confusion, Counts, Histogram, Mean, Statistic, Statistics, Sums, values
from fl.moments import CoMoments, Moments
from fl.parameters import Parameters, add, num_bytes
from fl.sketches import Distinct, HeavyHitters, Rows

CLIENT = "client"
NUM_EXAMPLES = "num-examples"
REFUSED = 6
FAILED = 2
UNAVAILABLE = 5
"""Flower's error codes for what we send: a failed precondition, an exception, an absent device."""

QUARANTINED = 100
"""A code of our own: a client that is not let train any more. Flower knows no such thing, and has codes up to 8."""

FIRST_NODE = 2
"""Flower keeps node ids 0 and 1 to itself; client 0 is node 2."""

MAX_CLIENTS = 2**32
"""Handles of simulated clients lie below it. A SuperLink draws those of its nodes from 2**64."""

MAX_REASON = 500
"""Characters of a reason that may leave a client: a message, never a dump."""


class Array(flwr.app.Array):
    """Flower's Array over a NumPy array, encoded only where somebody asks for the bytes.

    Flower's own encodes to npy when made and decodes at every look: per array and client that is most of what a
    round costs. The name stays ``Array`` because Flower writes it into the header of what it sends.
    """

    def __init__(self, ndarray: np.ndarray[Any, Any]) -> None:
        self.dtype = str(ndarray.dtype)
        self.shape = tuple(ndarray.shape)
        self.stype = "numpy.ndarray"
        self.__dict__["values"] = ndarray

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """npy bytes, as Flower's own would hold."""
        buffer = io.BytesIO()
        np.save(buffer, self.__dict__["values"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> np.ndarray[Any, Any]:
        """A writable copy, as Flower's own gives."""
        return np.array(self.__dict__["values"], copy=True)

    def view(self) -> np.ndarray[Any, Any]:
        """The values themselves. Not to be written to."""
        values: np.ndarray[Any, Any] = self.__dict__["values"]
        return values


def array_record(arrays: Mapping[str, np.ndarray[Any, Any]]) -> ArrayRecord:
    """Named arrays as a record, without copying or encoding them."""
    record = ArrayRecord()
    for name, value in arrays.items():
        record[name] = Array(value)
    return record


def arrays_of(record: ArrayRecord) -> Parameters:
    """The named arrays of a record; views of ours, decoded copies of Flower's. Not to be written to."""
    return {name: v.view() if isinstance(v, Array) else v.numpy() for name, v in record.items()}


def node_of(client: int) -> int:
    """Flower's handle for a client."""
    return client + FIRST_NODE


def client_of(node: int) -> int:
    """The client behind Flower's handle."""
    return node - FIRST_NODE


def is_simulated(node: int) -> bool:
    """Whether a handle says which client is behind it; that of a real SuperNode is a random number."""
    return FIRST_NODE <= node < MAX_CLIENTS


def sender(reply: Message) -> int:
    """The client a reply is from: the first of a unit, or the one that says so itself (handles of real nodes are
    random numbers), or else the one behind the handle.
    """
    if reply.has_content():
        for record in reply.content.metric_records.values():
            if CLIENT in record:
                return int(_number(record[CLIENT]))
    return client_of(reply.metadata.src_node_id)


# --- down -------------------------------------------------------------------------------------------------------


def train_content(parameters: ArrayRecord, shared: Parameters, *, round: int, version: int) -> RecordDict:
    """What our own strategy sends to every client of a cohort: one object, shared by all its messages."""
    config = ConfigRecord({"server-round": round, "version": version, "reply": "sum"})
    content = RecordDict({"arrays": parameters, "config": config})
    if shared:
        content["shared"] = array_record(shared)
    return content


OWN = "own-"


def evaluate_content(
    parameters: ArrayRecord, *, round: int, personal: bool = True, part: str = "test", own: OwnTraining | None = None
) -> RecordDict:
    """A request to measure ``parameters``, version ``round``, on clients' own ``part``, after ``own`` training."""
    config = ConfigRecord({"server-round": round, "version": round, "personal": personal and own is None, "part": part})
    config.update({OWN + name: value for name, value in (vars(own) if own else {}).items() if value is not None})
    return RecordDict({"arrays": parameters, "config": config})


NUMBERS = "numbers/"


def query_content(query: Query) -> RecordDict:
    """A query, as every client that is asked gets it."""
    config = ConfigRecord({"server-round": query.round, "kind": query.kind, "part": query.part, "recipe": query.recipe})
    config["columns"], config["by-client"] = list(query.columns), query.by_client
    for name, numbers in query.numbers.items():
        config[NUMBERS + name] = list(numbers)
    return RecordDict({"query": config})


def read_query(content: RecordDict) -> Query:
    """The inverse of ``query_content``."""
    config = _config(content)
    return Query(
        kind=str(config["kind"]),
        columns=tuple(config["columns"]),
        numbers={key.removeprefix(NUMBERS): tuple(v) for key, v in config.items() if key.startswith(NUMBERS)},
        part=str(config["part"]),
        by_client=bool(config["by-client"]),
        recipe=str(config["recipe"]),
        round=int(config["server-round"]),
    )


def read_train_task(content: RecordDict) -> tuple[TrainTask, str]:
    """The task in a message, and the kind of reply it wants: "parameters" or "sum"."""
    config = _config(content)
    shared = arrays_of(content.array_records["shared"]) if "shared" in content.array_records else {}
    task = TrainTask(
        round=int(config["server-round"]),
        version=int(config.get("version", int(config["server-round"]) - 1)),
        parameters=arrays_of(_model(content)),
        shared=shared,
        options={k: float(v) for k, v in config.items() if isinstance(v, int | float) and not isinstance(v, bool)},
    )
    return task, reply_asked_for(content)


def reply_asked_for(content: RecordDict) -> str:
    """The kind of reply that a training message wants: "parameters" or "sum"."""
    return str(_config(content).get("reply", "parameters"))


def read_evaluate_task(content: RecordDict) -> EvaluateTask:
    """The evaluation task in a message."""
    config = _config(content)
    round = int(config["server-round"])
    own = {key.removeprefix(OWN): value for key, value in config.items() if key.startswith(OWN)}
    return EvaluateTask(
        round=round,
        version=int(config.get("version", round)),
        parameters=arrays_of(_model(content)),
        personal=bool(config.get("personal", True)),
        part=str(config.get("part", "test")),
        own=OwnTraining(**own) if own else None,
    )


def _config(content: RecordDict) -> dict[str, Any]:
    return {k: v for record in content.config_records.values() for k, v in record.items()}


def _model(content: RecordDict) -> ArrayRecord:
    records = content.array_records
    return records["arrays"] if "arrays" in records else next(iter(records.values()))


# --- up ---------------------------------------------------------------------------------------------------------


def parameters_reply(update: Update, task: TrainTask, **more: float) -> RecordDict:
    """One client's reply for a stock strategy: its local parameters, and its numbers."""
    numbers = {f"train_{name}": value for name, value in values(update.statistics).items()}
    metrics = MetricRecord(
        {CLIENT: update.client, NUM_EXAMPLES: int(update.num_examples), **numbers, **seen(update), **more}
    )
    arrays = update.delta if update.whole else add(task.parameters, update.delta)
    return RecordDict({"arrays": array_record(arrays), "metrics": metrics})


def reply_like(content: RecordDict, *, whole: bool) -> RecordDict:
    """What is laid out as every device's reply to ``content``, where that asked for parameters; it holds no arrays."""
    config = _config(content)
    update = Update(0, 0, 0, delta={}, num_examples=1, statistics={"loss": Mean(0.0, 1.0)}, whole=whole)
    more = {"norm_bit": 1} if "clipping_norm" in config else {}
    return parameters_reply(update, TrainTask(round=0, version=0, parameters={}), **more)


def seen(update: Update) -> dict[str, float]:
    """What is looked at and never trained on: norm, base version and time of an update."""
    norm = {} if update.whole else {"update-norm": update.norm}
    return {**norm, "base-version": float(update.base_version), "train-seconds": float(update.seconds)}


def sum_reply(total: Parameters, extra: Parameters, rows: Iterable[Mapping[str, float]], bytes_up: int) -> RecordDict:
    """A unit's reply for our own strategy: sums, and one row of numbers a client, in client order."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(float(value))
    metrics = MetricRecord({"bytes-up": bytes_up})
    for name, column in columns.items():
        metrics[name] = column
    content = RecordDict({"sum": array_record(total), "clients": metrics})
    if extra:
        content["extra"] = array_record(extra)
    return content


def update_row(update: Update, weight: float) -> dict[str, float]:
    """One client's numbers in a unit's reply."""
    row = {CLIENT: float(update.client), "weight": weight, NUM_EXAMPLES: float(update.num_examples), **seen(update)}
    for name, statistic in update.statistics.items():
        if isinstance(statistic, Mean):
            row |= {f"{name}.total": statistic.total, f"{name}.weight": statistic.weight}
    return row


def report_reply(report: EvaluationReport) -> RecordDict:
    """One client's evaluation."""
    metrics = MetricRecord({CLIENT: report.client, NUM_EXAMPLES: int(report.num_examples), **values(report.statistics)})
    return RecordDict({"metrics": metrics, "statistics": _encode(report.statistics)})


def read_report(reply: Message, *, round: int) -> EvaluationReport:
    """The inverse of ``report_reply``, of the message that carried it."""
    return report_of(reply.content, client=sender(reply), round=round)


def report_of(content: RecordDict, *, client: int, round: int) -> EvaluationReport:
    """The report in a reply of ``client``."""
    num_examples = int(_number(content.metric_records["metrics"][NUM_EXAMPLES]))
    statistics = _decode(content.config_records["statistics"])
    return EvaluationReport(client=client, round=round, num_examples=num_examples, statistics=statistics)


def query_reply(report: QueryReport) -> RecordDict:
    """The answer of a unit's clients, or of one of them, to a query."""
    metrics = MetricRecord({CLIENT: report.clients[0], "clients": list(report.clients)})
    metrics[NUM_EXAMPLES] = int(report.num_examples)
    return RecordDict({"metrics": metrics, "statistics": _encode(report.statistics)})


def read_query_report(reply: Message, *, round: int) -> QueryReport:
    """The inverse of ``query_reply``, of the message that carried it."""
    metrics: Mapping[str, Any] = reply.content.metric_records["metrics"]
    return QueryReport(
        clients=tuple(int(client) for client in metrics["clients"]),
        round=round,
        num_examples=int(_number(metrics[NUM_EXAMPLES])),
        statistics=_decode(reply.content.config_records["statistics"]),
    )


def error_of(failure: RefusedUpdate | ClientFailed) -> Error:
    """A refusal or a failure as Flower's Error, its reason bounded."""
    code = REFUSED if isinstance(failure, RefusedUpdate) else FAILED
    return Error(code=code, reason=str(failure)[:MAX_REASON])


def record_bytes(content: RecordDict) -> int:
    """Bytes of the arrays in ``content``, as a real client would move them; nothing is encoded to find out."""
    return sum(num_bytes(arrays_of(record)) for record in content.array_records.values())


def _encode(statistics: Mapping[str, Statistic]) -> ConfigRecord:
    return ConfigRecord({f"{type(s).__name__.lower()}:{name}": _numbers(s) for name, s in statistics.items()})


def _decode(record: Mapping[str, Any]) -> Statistics:
    keys = [key.partition(":") for key in record]
    return {name: READ[kind](numbers) for (kind, _, name), numbers in zip(keys, record.values(), strict=True)}


def _numbers(statistic: Statistic) -> list[float]:
    """A statistic as plain numbers; ``READ`` has the inverse of each."""
    match statistic:
        case Mean(total, weight):
            return [float(total), float(weight)]
        case Histogram(edges, counts) | HeavyHitters(edges, counts):
            more = [statistic.capacity, statistic.lost] if isinstance(statistic, HeavyHitters) else []
            return [*map(float, more), *map(float, edges), *map(float, counts)]
        case Confusion(table):
            return [float(v) for row in table for v in row]
        case CoMoments(count, mean, m2, cross):
            return [float(v) for v in (*count, *mean, *m2, *cross)]
        case Rows(hashes, capacity):
            return [float(v) for v in (capacity, *hashes)]
        case Moments():
            return [float(v) for v in astuple(statistic)]
        case Counts(held) | Sums(held) | Distinct(held):
            return [float(v) for v in held]


def _whole(numbers: Iterable[float]) -> tuple[int, ...]:
    return tuple(int(v) for v in numbers)


def _histogram(numbers: list[float]) -> Histogram:
    bins = len(numbers) // 2
    return Histogram(tuple(numbers[: bins + 1]), _whole(numbers[bins + 1 :]))


def _confusion(numbers: list[float]) -> Confusion:
    side, whole = math.isqrt(len(numbers)), _whole(numbers)
    return Confusion(tuple(whole[i * side : (i + 1) * side] for i in range(side)))


def _comoments(numbers: list[float]) -> CoMoments:
    n = len(numbers) // 4
    mean, m2, cross = (tuple(numbers[i * n : (i + 1) * n]) for i in (1, 2, 3))
    return CoMoments(_whole(numbers[:n]), mean, m2, cross)


def _heavy_hitters(numbers: list[float]) -> HeavyHitters:
    capacity, lost, *rest = numbers
    half = len(rest) // 2
    return HeavyHitters(tuple(rest[:half]), _whole(rest[half:]), int(capacity), int(lost))


READ: Mapping[str, Callable[[list[float]], Statistic]] = {
    "mean": lambda numbers: Mean(*numbers),
    "histogram": _histogram,
    "confusion": _confusion,
    "counts": lambda numbers: Counts(_whole(numbers)),
    "sums": lambda numbers: Sums(tuple(numbers)),
    "moments": lambda numbers: Moments(*_whole(numbers[:3]), *numbers[3:]),
    "comoments": _comoments,
    "distinct": lambda numbers: Distinct(_whole(numbers)),
    "heavyhitters": _heavy_hitters,
    "rows": lambda numbers: Rows(_whole(numbers[1:]), int(numbers[0])),
}


def _number(value: Any) -> float:
    return float(value[0] if isinstance(value, list) else value)
