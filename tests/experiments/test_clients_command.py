"""`fl clients`: every client is asked, what it says is what its own examples say, and the run stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.setting import Setting, open_setting
from clients.training import train
from experiments.cli import run as fl
from experiments.compose import compose
from experiments.config_file import read_config
from experiments.run import simulate
from fl.algorithms.algorithm import Correction
from fl.data.centre import open_centre
from fl.files import read_json, sha256_file
from fl.metrics import values
from fl.models import arrays
from fl.models.evaluate import evaluate
from fl.models.tasks import derived
from fl.parameters import Parameters
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]

SIX = ("dataset=synthetic", "dataset.clients=6")
ONE_BY_ONE = ("client.path=one_by_one", "client.personal_epochs=3", "client.personal_learning_rate=0.05")


def asked(run: Path, *more: str) -> list[dict[str, Any]]:
    """The lines of clients.jsonl after `fl clients` of the run's last version."""
    assert fl(["clients", str(run), "--registry", str(run.parent / "registry"), *more]) == 0
    return [json.loads(line) for line in (run / "clients.jsonl").read_text().splitlines()]


def opened(run: Path) -> Setting:
    config = {**read_config(run), "num_clients": 6, "cohort_size": 4}
    return open_setting(config, partitions=run / "devices" / "partitions", states=run.parent / "none")


def accuracy(setting: Setting, parameters: Parameters, client: int) -> dict[str, float]:
    part = setting.store.partition(client).test
    arrays.load_parameters(setting.module, parameters)
    return derived(values(evaluate(setting.module, part.x, part.y, setting.signature)))


def test_each_model_is_what_it_says_on_the_clients_own_test_part(settings: Settings) -> None:
    """Against training and evaluating by hand, with the plain loop."""
    run = simulate(settings(*ONE_BY_ONE, "cohort_size=3", "num_rounds=2"))
    rows = asked(run, "--local-epochs", "4", "--local-learning-rate", "0.3")
    registry, setting = Registry(run.parent / "registry"), opened(run)
    version0, last = (registry.parameters(f"{registry.runs()[0]['run_id']}:{round}") for round in (0, 2))
    assert [row["client"] for row in rows] == list(range(6)) and all(row["seen"] for row in rows)
    for row in rows:
        client = row["client"]
        part = setting.store.partition(client)
        assert row["num_examples"] == len(part.test.y)
        assert row["global"] == pytest.approx(accuracy(setting, last, client))
        for model, start, epochs, rate in (("personal", last, 3, 0.05), ("local", version0, 4, 0.3)):
            trained = train(
                setting.module,
                start,
                part.train,
                setting.signature,
                setting.options.specialised(epochs=epochs, learning_rate=rate),
                correction=Correction(),
                seed=setting.seed,
                round=2,
                client=client,
                purpose=model,
            )
            assert row[model] == pytest.approx(accuracy(setting, trained.end, client))
    assert any(row["local"] != row["personal"] for row in rows)


def test_a_personal_model_is_the_one_that_the_device_keeps(settings: Settings) -> None:
    run = simulate(settings(*ONE_BY_ONE, "client.personal=true"))
    kept = {line["client"]: line for line in map(json.loads, (run / "personal.jsonl").read_text().splitlines())}
    for row in asked(run):
        assert row["personal"]["loss"] == kept[row["client"]]["personal_loss"]
        assert row["global"]["accuracy"] == kept[row["client"]]["accuracy"]


def test_the_run_stays_as_it_was_and_the_figures_become_evidence(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(settings("client.personal=true", "algorithm=scaffold", "server.tensorboard=true"))
    before = {path: sha256_file(path) for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    capsys.readouterr()
    asked(run, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert before.items() <= {path: sha256_file(path) for path in run.rglob("*") if path.is_file()}.items()
    assert (run / "clients.png").read_bytes().startswith(b"\x89PNG")
    registry = Registry(run.parent / "registry")
    version = registry.version(str(run))
    assert registry.evidence(version)["clients"]["found"] == summary["found"]
    assert read_json(run / "clients.json")["distribution"] == summary["distribution"]
    facts = summary["distribution"]["all"]["accuracy"]
    rows = [json.loads(line) for line in (run / "clients.jsonl").read_text().splitlines()]
    for model in ("global", "personal", "local"):
        told = [row[model]["accuracy"] for row in rows]
        assert facts[model]["mean"] == pytest.approx(np.mean(told))
        assert facts[model]["worst"] == min(told) and facts[model]["deciles"][5] == pytest.approx(np.median(told))
    assert fl(["doctor", str(run)]) == 0


def test_the_picture_is_in_tensorboard_once_however_often_it_is_asked_for(settings: Settings) -> None:
    from server.tracking.events import read_events

    run = simulate(settings("server.tensorboard=true"))

    def tags() -> list[str]:
        (path,) = (run / "tensorboard").iterdir()
        return [value.tag for event in read_events(path) for value in event.summary.value]

    before = tags()
    asked(run), asked(run)
    assert tags() == [*before, "clients/distribution"]


def test_local_training_takes_as_many_epochs_as_a_client_took_on_average(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 of 6 clients in each of 3 rounds, 2 epochs each: 4 epochs on average; and 5 for its own model."""
    run = simulate(settings("num_rounds=3", "client.personal_epochs=5", "client.learning_rate=0.1"))
    capsys.readouterr()
    asked(run, "--json", "--local-start", "random")
    local = json.loads(capsys.readouterr().out)["local"]
    assert local == {"purpose": "local", "epochs": 9, "learning_rate": 0.1, "start": "random"}


def test_local_training_starts_where_it_says(settings: Settings) -> None:
    run = simulate(settings(*ONE_BY_ONE))
    rows = {start: asked(run, "--local-start", start) for start in ("version0", "random")}
    pairs = list(zip(*rows.values(), strict=True))
    assert all(a["global"] == b["global"] and a["personal"] == b["personal"] for a, b in pairs)
    assert all(a["local"] != b["local"] for a, b in pairs)


@pytest.mark.parametrize("engine", ["forked", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray])])
def test_every_engine_tells_the_same(settings: Settings, engine: str) -> None:
    run = simulate(settings("unseen_clients=[1]", "client.personal_epochs=2"))
    assert asked(run, "--engine", engine) == asked(run, "--engine", "inprocess")


def test_trees_are_asked_too(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xgboost")
    run = simulate(settings("strategy=fedxgbbagging", "client.personal_epochs=3"))
    capsys.readouterr()
    rows = asked(run, "--local-epochs", "6", "--json")
    assert len(rows) == 6 and all(row["local"]["loss"] != row["personal"]["loss"] for row in rows)


def test_what_cannot_be_asked_is_named(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate(settings("client.local_steps=3", "client.local_epochs=null"))
    registry = ["--registry", str(run.parent / "registry")]
    assert fl(["clients", str(run), *registry]) == 2
    assert "--local-epochs: got null, allowed: a whole number: this run counts steps" in capsys.readouterr().err
    assert fl(["clients", str(run), *registry, "--local-start", "nothing"]) == 2
    assert "--local-start: got nothing, allowed: version0, random" in capsys.readouterr().err
    assert fl(["clients", "nobody", *registry]) == 2
    assert not (run / "clients.jsonl").exists()


# Clients that never train


def test_an_unseen_client_never_trains_and_is_asked_all_the_same(settings: Settings) -> None:
    run = simulate(settings("unseen_clients=[4,0]", "cohort_size=3", "num_rounds=6"))
    versions = Registry(run.parent / "registry").versions()
    trained = {client for version in versions for client in version.manifest["cohort"]}
    assert trained == {1, 2, 3, 5}
    assert [row["client"] for row in asked(run) if not row["seen"]] == [0, 4]
    assert open_centre(run / "centre").facts["unseen_clients"] == [0, 4]
    assert list(read_json(run / "clients.json")["distribution"]) == ["all", "seen", "unseen"]
    assert fl(["replay", str(run), "--round", "3"]) == 0


def test_a_stock_strategy_does_not_train_it_either(settings: Settings) -> None:
    run = simulate(settings("unseen_clients=0.34", "strategy=fedavg", "num_rounds=6"))
    versions = Registry(run.parent / "registry").versions()
    unseen = set(open_centre(run / "centre").facts["unseen_clients"])
    trained = {client for version in versions for client in version.manifest["cohort"]}
    assert len(unseen) == 2 and trained == set(range(6)) - unseen


def test_nothing_of_an_unseen_client_gets_into_a_model_or_what_it_is_chosen_by(tmp_path: Path) -> None:
    """Its rows are made absurd: no parameter, no statistic of the table and no figure of the server may change."""
    from fl.data.store import open_store

    table = np.random.default_rng(0).normal(size=(240, 4))
    labels, client = (table[:, 0] > 0).astype(int), np.arange(240) % 6

    def outcome(name: str, x: np.ndarray[Any, Any]) -> tuple[Any, ...]:
        np.savez(tmp_path / f"{name}.npz", x=x, y=labels, client=client)
        mine = ["unseen_clients=[2]", "dataset=npz", f"dataset.path={tmp_path / name}.npz", "dataset.standardize=true"]
        folders = [f"run_dir={tmp_path / name}", f"registry_dir={tmp_path / 'registry'}"]
        run = simulate(compose([*mine, *folders, "partition=natural", "num_rounds=2", "engine=inprocess"]))
        summary, centre = read_json(run / "summary.json"), open_centre(run / "centre")
        store = open_store(run / "devices" / "partitions")
        held = np.concatenate([vars(store.partition(2))[part].x for part in ("train", "validation", "test")])
        return summary["model_sha256"], summary["final"], centre.signature, len(held)

    absurd = table.copy()
    absurd[client == 2] *= 1e6
    plain, changed = outcome("plain", table), outcome("absurd", absurd)
    assert plain == changed
    assert plain[3] == 40, "it keeps all that is its own"


@pytest.mark.parametrize(
    "given, message",
    [
        ("unseen_clients=1.5", "unseen_clients: got 1.5, allowed: a share above 0 and below 1, or a list"),
        ("unseen_clients=2", "unseen_clients: got 2, allowed: a share"),
        ("unseen_clients=[9]", "unseen_clients: got [9], allowed: a share above 0 and below 1, or a list of client"),
        ("unseen_clients=[0,1,2,3,4,5]", "unseen_clients: got 6 of 6 clients, allowed:"),
        ("unseen_clients=[0,1,2]", "cohort_size: got 4, allowed: 1 to num_clients=6 less 3 of unseen_clients"),
        (
            "unseen_clients=[0] folds.number=3 folds.over=clients",
            "unseen_clients: got some of the clients, with folds.over=clients, allowed: null",
        ),
        (
            "dataset=mnist partition=iid num_clients=100000 unseen_clients=0.5",
            "unseen_clients: got some of the clients, which share their rows, allowed: null, or a partition",
        ),
    ],
)
def test_who_cannot_be_unseen_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    small = [*([] if "dataset=" in given else SIX), "cohort_size=4", "num_rounds=1", "engine=inprocess"]
    assert (
        fl(["simulate", *small, *given.split(), f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'r'}"]) == 2
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_device_says_itself_that_it_is_held_out(settings: Settings) -> None:
    """A SuperLink does not tell the server which client is behind a handle."""
    from clients.unit import answer
    from fl import wire

    run = simulate(settings("unseen_clients=[2]"))
    setting = opened(run)
    content = wire.train_content(wire.array_record(setting.model), {}, round=1, version=0)
    told = {reply.clients: reply.error and reply.error.reason for reply in answer(setting, "train", content, [1, 2])}
    assert told == {(1,): None, (2,): "client 2 is held out of training"}
