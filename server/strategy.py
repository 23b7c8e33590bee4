"""Our algorithms as one Flower Strategy; any stock Flower strategy works in its place.

The clients of a work unit are added up where they are, so this strategy sees one reply a unit: sums, and a row of
numbers a client. Memory is that of a model, however large the cohort.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl import wire
from fl.aggregators.mean import WeightedSum
from fl.algorithms.algorithm import Aggregate, Algorithm, ServerState
from fl.cohorts import Available, Choose
from fl.parameters import Parameters, add


class AlgorithmStrategy(Strategy):
    """One of fl/algorithms, asked through Flower's four methods.

    ``trainable`` names the arrays the algorithm updates; all others of the model are averaged. ``state`` is the
    algorithm's own; it is saved with every commit and may be set on resume.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        initial: Parameters,
        trainable: Sequence[str],
        population: int,
        cohort_size: int,
        available: Available,
        choose: Choose,
        seed: int,
    ) -> None:
        self.algorithm, self.trainable, self.population = algorithm, tuple(trainable), population
        self.cohort_size, self.available, self.choose, self.seed = cohort_size, available, choose, seed
        self.state: ServerState = algorithm.init_server({name: initial[name] for name in trainable})
        self._parameters: Parameters = initial
        self._cohort: list[int] = []

    def extra_like(self, parameters: Parameters) -> Parameters:
        """What the algorithm's clients send beside their deltas; values mean nothing."""
        return self.algorithm.extra_like({name: parameters[name] for name in self.trainable})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose the cohort; one payload for all of it."""
        nodes = self.available(server_round, wait_for_nodes(grid, self.cohort_size))
        attempt = int(str(config.get("attempt", 0)))
        seed = self.seed + attempt * 1_000_003  # a round that is tried again asks a fresh cohort
        self._cohort = self.choose(server_round, nodes, self.cohort_size, seed)
        self._parameters = wire.arrays_of(arrays)
        shared = self.algorithm.broadcast(self.state)
        version = int(str(config["version"]))
        content = wire.train_content(arrays, shared, round=server_round, version=version)
        return [Message(content, node, "train") for node in self._cohort]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the units' sums in the order they come, which is unit order, and apply the server half."""
        delta, extra, num_clients = WeightedSum(), WeightedSum(), 0
        for reply in replies:
            if reply.has_error():
                continue
            weights = _column(reply.content.metric_records["clients"], "weight")
            delta.merge(wire.arrays_of(reply.content.array_records["sum"]), sum(weights))
            if "extra" in reply.content.array_records:
                extra.merge(wire.arrays_of(reply.content.array_records["extra"]), len(weights))
            num_clients += len(weights)
        if not num_clients:
            return None, None
        mean = delta.mean(like=self._parameters)
        x = {name: self._parameters[name] for name in self.trainable}
        aggregate = Aggregate(
            delta={name: mean[name] for name in self.trainable},
            extra=extra.mean(like=x) if extra.arrays else {},
            num_clients=num_clients,
            population=self.population,
        )
        updated, self.state = self.algorithm.server_update(x, self.state, aggregate)
        tracked = {name: value for name, value in self._parameters.items() if name not in updated}
        parameters = {**updated, **add(tracked, {name: mean[name] for name in tracked})}
        return wire.array_record({name: parameters[name] for name in self._parameters}), MetricRecord()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The round's cohort measures the new model on its own test parts."""
        return evaluate_messages(self._cohort, wire.evaluate_content(arrays, round=server_round))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The round loop reads the reports itself; there is nothing to add."""
        return None

    def summary(self) -> None:
        """Flower's hook for a description in the log; ours is in the run's summary."""


def evaluate_messages(nodes: Sequence[int], content: RecordDict) -> list[Message]:
    """One payload for ``nodes``."""
    return [Message(content, node, "evaluate") for node in nodes]


def wait_for_nodes(grid: Grid, least: int) -> Sequence[int]:
    """The grid's nodes, ascending, once there are ``least``. Simulated clients are there at once; real ones connect
    when they do, and Flower has no call that waits for them.
    """
    while True:
        nodes = grid.get_node_ids()
        known = nodes if isinstance(nodes, range) else sorted(nodes)
        if len(known) >= least:
            return known
        time.sleep(0.5)


def _column(record: MetricRecord, name: str) -> list[float]:
    value = record[name]
    return [float(v) for v in value] if isinstance(value, list) else [float(value)]
