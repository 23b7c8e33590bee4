"""Every stock strategy of Flower runs through its YAML file, and goes on after an interruption bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
import yaml

from experiments.compose import compose
from experiments.run import resume, simulate
from fl.errors import BadInput
from fl.files import read_json
from fl.registry import Registry
from server.stock import build_stock

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

STRATEGIES = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "strategy").glob("*.yaml") if path.stem != "own"
)
TREES = {"fedxgbbagging", "fedxgbcyclic"}
COHORT = {"bulyan": 7}  # at least 4 num_malicious_nodes + 3
ASKED = {**COHORT, "fedxgbcyclic": 1}


def chosen(name: str) -> tuple[str, ...]:
    size = COHORT.get(name, 4)
    drawn = ("model.subsample=0.8",) if name in TREES else ()
    return (f"strategy={name}", f"dataset.clients={size + 1}", f"cohort_size={size}", *drawn)


def test_there_is_a_file_for_every_strategy_of_flower() -> None:
    folder = Path(__file__).parents[2] / "conf" / "strategy"
    targets = {yaml.safe_load((folder / f"{name}.yaml").read_text())["_target_"].split(".")[-1] for name in STRATEGIES}
    assert targets == set(flower.__all__) - {"Result", "Strategy"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_four_rounds_are_two_and_two_more(name: str, settings: Settings, told: Told) -> None:
    """Moments, momentum, clipping norms and the noise's draws are all there again after a stop."""
    whole = simulate(settings(*chosen(name), "num_rounds=4", name="whole"))
    config = settings(*chosen(name), "num_rounds=2", name="halves")
    run = simulate(config)
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "num_rounds": 4}))
    resume(run)
    assert told(run) == told(whole)
    summaries = [read_json(one / "summary.json") for one in (run, whole)]
    assert summaries[0]["model_sha256"] == summaries[1]["model_sha256"]
    assert summaries[1]["rounds_completed"] == 4 and summaries[1]["clients"]["answered"] == 4 * ASKED.get(name, 4)
    registry = Registry(whole.parent / "registry")
    hashes = [version.model_sha256 for version in registry.versions("whole")]
    assert len(set(hashes)) == 5, "a round changed nothing"


@pytest.mark.ray
@pytest.mark.parametrize("name", sorted(TREES))
def test_trees_have_the_same_bits_in_actors(name: str, settings: Settings) -> None:
    runs = [
        simulate(settings(*chosen(name), f"engine={engine}", "engine.num_actors=2", name=engine))
        for engine in ("inprocess", "ray")
    ]
    hashes = [read_json(run / "summary.json")["model_sha256"] for run in runs]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("name", sorted(TREES))
@pytest.mark.parametrize("label", [pytest.param("two", marks=pytest.mark.slow), "five", "fraction"])
def test_trees_learn_from_a_table_of_ones_own(name: str, label: str, settings: Settings, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 4))
    y = x[:, 0] + x[:, 1] * x[:, 2]
    labels = {"two": y > 0, "five": np.digitize(y, [-1.5, -0.5, 0.5, 1.5]), "fraction": y + 0.5}[label].astype(float)
    cells = [["" if random.random() < 0.1 else f"{v:.4f}" for v in row] for row in x]
    rows = [",".join([*row, f"{labels[i]:g}", str(i % 6)]) for i, row in enumerate(cells)]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,d,label,site", *rows]) + "\n")
    table = ("dataset=csv", f"dataset.path={tmp_path / 'own.csv'}", "dataset.label=label", "dataset.client=site")
    sizes = ("cohort_size=4", "num_rounds=12", "engine=inprocess", "server.tensorboard=false", "server.seeding=random")
    run = simulate(
        compose(
            [*table, *sizes, f"strategy={name}", f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'registry'}"]
        )
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]


def test_devices_boost_trees_of_their_own(settings: Settings) -> None:
    run = simulate(settings(*chosen("fedxgbcyclic"), "client.personal=true", "client.personal_epochs=3"))
    assert len((run / "personal.jsonl").read_text().splitlines()) == 5


BAD_TREES = [
    (("strategy=fedxgbbagging", "model=mlp"), r"model: got fl\.models\.mlp\.build, allowed: xgboost"),
    (("strategy=fedadam", "model=xgboost"), r"strategy: got FedAdam, allowed: fedxgbbagging or fedxgbcyclic"),
    (("model=xgboost",), r"strategy: got own, allowed: fedxgbbagging or fedxgbcyclic"),
    (("strategy=fedxgbbagging", "model.local_rounds=2"), r"model\.local_rounds: got 2, allowed: 1 with fedxgbbagging"),
    (("strategy=fedxgbcyclic", "client.sends=personal"), r"client\.sends: got personal, allowed: fresh"),
]


@pytest.mark.parametrize("overrides, message", BAD_TREES)
def test_trees_and_networks_are_kept_apart(overrides: tuple[str, ...], message: str, settings: Settings) -> None:
    with pytest.raises(BadInput, match=message):
        simulate(settings(*overrides))


def test_flowers_average_is_ours(settings: Settings) -> None:
    """FedAvg by Flower and by us: the same cohort would give the same model; both see all clients here."""
    runs = [simulate(settings(f"strategy={name}", "cohort_size=6", name=name)) for name in ("own", "fedavg")]
    finals = [read_json(run / "summary.json")["final"] for run in runs]
    assert finals[0]["loss"] == pytest.approx(finals[1]["loss"], rel=1e-4)


def test_what_follows_from_the_cohort_is_filled_in() -> None:
    values = {"_target_": "flwr.serverapp.strategy.FedTrimmedAvg", "beta": 0.3}
    strategy: Any = build_stock(values, num_clients=50, cohort_size=5, learning_rate=0.2, evaluate=False)
    assert isinstance(strategy, flower.FedTrimmedAvg) and strategy.beta == 0.3
    assert (strategy.fraction_train, strategy.min_train_nodes, strategy.min_available_nodes) == (0.1, 5, 5)
    assert strategy.fraction_evaluate == 0.0


def test_a_wrapper_gets_the_strategy_it_wraps() -> None:
    values = {
        "_target_": "flwr.serverapp.strategy.DifferentialPrivacyServerSideFixedClipping",
        "strategy": {"_target_": "flwr.serverapp.strategy.FedAdam", "eta": 0.5},
        "noise_multiplier": 0.1,
        "clipping_norm": 2.0,
    }
    strategy: Any = build_stock(values, num_clients=20, cohort_size=5, learning_rate=0.2, evaluate=True)
    assert strategy.num_sampled_clients == 5 and strategy.strategy.eta == 0.5
    assert strategy.strategy.fraction_evaluate == 0.25


@pytest.mark.parametrize(
    "values, message",
    [
        ({"_target_": "flwr.serverapp.strategy.FedNone"}, r"strategy\._target_: got .*FedNone, allowed: a Flower"),
        ({"_target_": "nowhere.at.All"}, r"strategy\._target_: got nowhere\.at\.All"),
        ({"_target_": "FedAvg"}, r"strategy\._target_: got FedAvg"),
        ({"_target_": "collections.OrderedDict"}, r"strategy\._target_: got .*, allowed: a class derived from"),
        ({"_target_": "flwr.serverapp.strategy.FedAvg", "eta": 1}, r"strategy: got eta=1, allowed: the options of Fed"),
    ],
)
def test_what_is_no_strategy_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build_stock(values, num_clients=10, cohort_size=2, learning_rate=0.1, evaluate=True)


def test_an_algorithm_with_client_state_needs_its_own_server_half(settings: Settings) -> None:
    with pytest.raises(BadInput, match=r"algorithm: got scaffold, allowed: fedavg or fedprox; .*strategy=own"):
        simulate(settings("algorithm=scaffold", "strategy=fedavg"))
