"""One config and seed, one run: whatever is done where, by how many, and whoever answers first."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.grid import Executor, Unit
from clients.unit import Reply
from experiments import engine as engines
from experiments.compose import compose
from experiments.run import simulate
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

CASES = {
    "fedavg": (),
    "fedadam": ("algorithm=fedadam",),
    "scaffold": ("algorithm=scaffold",),
    "fedyogi": ("strategy=fedyogi",),
}
ROUNDS = ("num_rounds=3", "engine.unit_size=1", "cohort_size=5")


class Shuffled:
    """An executor whose answers come in another order, and not when they are there."""

    def __init__(self, inner: Executor, seed: int) -> None:
        self.inner, self.chance = inner, random.Random(seed)
        self.held: list[tuple[Unit, list[Reply]]] = []

    def submit(self, unit: Unit) -> None:
        self.inner.submit(unit)

    def collect(self, timeout: float) -> list[tuple[Unit, list[Reply]]]:
        fresh = self.inner.collect(min(timeout, 0.01))
        self.held += fresh
        if fresh and self.chance.random() < 0.8:
            return []
        self.chance.shuffle(self.held)
        some = self.chance.randint(0 if fresh else 1, max(1, len(self.held)))
        out, self.held = self.held[:some], self.held[some:]
        return out

    def abandon(self, numbers: Iterable[int]) -> None:
        gone = set(numbers)
        self.held = [one for one in self.held if one[0].number not in gone]
        self.inner.abandon(gone)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def shuffled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on answers come in an order of their own."""
    opened = engines.open_executor

    def shuffled(seed: int) -> None:
        monkeypatch.setattr(engines, "open_executor", lambda *a, **k: Shuffled(opened(*a, **k), seed))

    return shuffled


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    from clients.ray_session import start_ray, stop_ray

    start_ray(4, None)
    yield
    stop_ray()


def found(run: Path, told: Told) -> tuple[Any, ...]:
    """What must not differ: times, run ids, engines and folders are none of it."""
    summary = read_json(run / "summary.json")
    return summary["model_sha256"], summary["final"], summary["clients"], summary["bytes"], told(run)


@pytest.mark.parametrize("case", CASES)
def test_whoever_answers_first_the_bits_are_the_same(
    case: str, settings: Settings, told: Told, shuffled: Callable[[int], None]
) -> None:
    plain = simulate(settings(*CASES[case], *ROUNDS, name="plain"))
    for number, engine in enumerate(("inprocess", "forked")):
        shuffled(number)
        run = simulate(settings(*CASES[case], *ROUNDS, f"engine={engine}", "engine.num_actors=2", name=engine))
        assert found(run, told) == found(plain, told)


@pytest.mark.parametrize(
    "override",
    ["server.tensorboard=true", "server.terminal=false", "evaluate_every=3", "server.keep_versions=last:2"],
)
def test_watching_and_keeping_change_no_bits(override: str, settings: Settings) -> None:
    hashes = {
        read_json(simulate(settings(*more, name=name)) / "summary.json")["model_sha256"]
        for name, more in (("plain", ()), ("other", (override,)))
    }
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_seeds_each_one_hash(
    seed: int, case: str, one_ray: None, settings: Settings, told: Told, shuffled: Callable[[int], None]
) -> None:
    more = (*CASES[case], *ROUNDS, f"seed={seed}")
    plain = simulate(settings(*more, name="plain"))
    shuffled(seed)
    for actors in (1, 2, 4):
        run = simulate(settings(*more, "engine=ray", f"engine.num_actors={actors}", name=f"ray{actors}"))
        assert found(run, told) == found(plain, told)
    other = simulate(settings(*CASES[case], *ROUNDS, f"seed={seed + 100}", name="other"))
    assert found(other, told)[0] != found(plain, told)[0]


@pytest.mark.slow
@pytest.mark.ray
def test_a_convolutional_network_has_one_hash_too(
    one_ray: None, tmp_path: Path, told: Told, shuffled: Callable[[int], None]
) -> None:
    """Its layers have a stacked form of their own, in which a client stands alone."""
    work = ("dataset=mnist", "model=cnn", "num_clients=1500", "cohort_size=4", "num_rounds=2", "client.local_steps=3")
    quiet = ("server.tensorboard=false", "evaluate_every=null", "evaluate_clients_every=null")

    def run(engine: str, *more: str) -> tuple[Any, ...]:
        folders = (f"run_dir={tmp_path}/{engine}", f"registry_dir={tmp_path}/registry")
        return found(simulate(compose([*work, *quiet, f"engine={engine}", *more, *folders])), told)

    plain = run("inprocess")
    shuffled(1)
    assert run("forked", "engine.num_actors=2") == plain
    assert run("ray", "engine.num_actors=3") == plain


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("case", CASES)
def test_a_cluster_of_two_nodes_gives_the_same(case: str, settings: Settings, told: Told) -> None:
    from ray.cluster_utils import Cluster

    here = simulate(settings(*CASES[case], *ROUNDS, name="here"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        spread = ("engine=ray", "engine.num_actors=2", f"engine.address={cluster.address}")
        there = simulate(settings(*CASES[case], *ROUNDS, *spread, name="there"))
    finally:
        cluster.shutdown()
    assert found(there, told) == found(here, told)
