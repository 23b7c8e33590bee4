"""What is measured: models at the shapes of the literature, and how far the numbers of clients and cores go."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.bench.drivers.record import NOTHING


@dataclass(frozen=True)
class Workload:
    """FedAvg with plain SGD on one population.

    model            a choice of the group ``model``, or NOTHING
    examples         of each client, of made-up data; 0: the clients are views of MNIST
    processes        that may train; 0: one a core
    """

    name: str
    model: str
    clients: int
    examples: int
    cohort: int
    rounds: int
    batch_size: int = 10
    epochs: int = 1
    learning_rate: float = 0.1
    processes: int = 0
    seed: int = 1

    @property
    def views(self) -> bool:
        """Whether the clients are views of MNIST, so that their number costs nothing."""
        return not self.examples


SHAPES = (
    Workload("softmax", "softmax", clients=100, examples=100, cohort=10, rounds=30, learning_rate=0.03),
    Workload("2NN", "mlp", clients=100, examples=100, cohort=10, rounds=30),
    Workload("CNN", "cnn", clients=100, examples=50, cohort=10, rounds=10),
    # An example is a window of 80 characters, so 80 predictions: 20 of them are work enough for a client.
    Workload("LSTM", "lstm", clients=100, examples=20, cohort=10, rounds=6, learning_rate=1.0),
    Workload("softmax, FLUTE's shape", "softmax", clients=1000, examples=60, cohort=10, rounds=100, learning_rate=0.03),
)

POPULATIONS = (1_000, 10_000, 100_000, 1_000_000)
COHORTS = (10, 100, 1_000, 10_000)
COHORT, POPULATION = 100, 10_000
SCALE = (
    *(
        Workload(f"{clients:,} clients, {COHORT} a round", "mlp", clients, 0, COHORT, rounds=12)
        for clients in POPULATIONS
    ),
    *(
        Workload(f"{cohort:,} of {POPULATION:,} clients a round", "mlp", POPULATION, 0, cohort, rounds=8)
        for cohort in COHORTS
        if cohort != COHORT
    ),
)

OVERHEAD = (Workload("a client that does nothing", NOTHING, clients=1000, examples=1, cohort=1000, rounds=6),)

ADDED_UP = Workload("1,000 updates of the CNN added up", "cnn", clients=1000, examples=1, cohort=1000, rounds=5)
"""Not trained: a round adds up the replies that are there."""


def over_cores(cores: int) -> tuple[Workload, ...]:
    """The 2NN and the CNN with 1, 2, 4 ... processes, and with one a core."""
    counts = sorted({cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)})
    chosen = [workload for workload in SHAPES if workload.model in ("mlp", "cnn")]
    return tuple(
        replace(workload, name=f"{workload.name}, {count} process{'es' * (count > 1)}", processes=count)
        for workload in chosen
        for count in counts
    )
