"""Every release policy over the device fleet: devices assign themselves, sums lead the release, the alias moves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.fleet import Fleet
from clients.inprocess import InProcess
from clients.setting import Setting, open_setting
from clients.state import StateStore
from experiments.asking import ask_here
from experiments.device_releases import Orders
from experiments.device_versions import Source
from experiments.run import simulate
from fl import wire
from fl.decisions import Action
from fl.deployment.policies import checked_options, policy_for
from fl.metrics import Sums
from fl.registry import Registry, releases
from fl.releases import Release

DEVICES = 60
TOLERANT = {"errors": 0.5, "latency": 1.0, "quality": 0.5}
"""Bounds that few answers reach, so that a release takes a second."""


@dataclass(frozen=True)
class World:
    """A run of many devices that is over, with a champion, another version as good, and one that is not."""

    setting: Setting
    registry: Registry
    run: str
    folder: Path

    @property
    def good(self) -> str:
        return f"{self.run}:2"

    def order(self, policy: str, *challengers: str, **options: Any) -> Release:
        """What `fl deploy POLICY --target devices` does."""
        whole = checked_options(policy, options, challengers=len(challengers))
        return releases.order(
            self.registry.folder, policy=policy, versions=challengers, options=whole, target="devices"
        )

    def saw(self, version: str) -> int:
        """How many devices showed their users an answer of a version."""
        with closing(sqlite3.connect(self.setting.partitions.parent / "served.sqlite")) as table:
            sought = "SELECT count(DISTINCT client) FROM served WHERE shown AND version = ?"
            return int(table.execute(sought, (version,)).fetchone()[0])

    @contextmanager
    def serving(self, clients: Sequence[int] = range(DEVICES)) -> Iterator[Callable[[int], Serving]]:
        """Devices that are served by this process, which leads; gives a function that lets every user ask so often."""
        source = Source(self.registry, self.run, "champion")
        ask = ask_here(self.setting.partitions, signature=self.setting.signature, num_clients=DEVICES, seed=1)
        decided: list[tuple[str, Action, str]] = []

        def told(release: str, decision: Any) -> None:
            decided.append((release, decision.action, decision.reason))

        with Orders(
            source, self.registry.folder, alias="champion", ask=ask, policy_for=policy_for, told=told
        ) as orders:
            fleet = Fleet(
                self.setting, clients, orders.assign, known=source.known, models=StateStore(self.folder / "models")
            )

            def go(times: int) -> Serving:
                for _ in range(times):
                    orders.look()
                    if decided and decided[-1][1] in (Action.PROMOTE, Action.ROLL_BACK):
                        break
                    for client in clients:
                        fleet.use(client)
                    while fleet.between_answers():
                        pass
                    fleet.keep()
                return Serving(fleet, decided)

            yield go


@dataclass(frozen=True)
class Serving:
    fleet: Fleet
    decided: list[tuple[str, Action, str]]

    @property
    def last(self) -> tuple[Action, str]:
        return self.decided[-1][1:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    from experiments.compose import compose

    folder = tmp_path_factory.mktemp("fleet")
    small = ["dataset=synthetic", "dataset.dimension=8", "dataset.classes=3", "engine=inprocess", "num_rounds=2"]
    config = compose([*small, f"dataset.clients={DEVICES}", "server.tensorboard=false", "client.personal_epochs=4"])
    config |= {"run_dir": str(folder / "run"), "registry_dir": str(folder / "registry")}
    simulate(config)
    return folder, config


@pytest.fixture
def world(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> World:
    """Each test has a registry and a table of its own."""
    import shutil

    folder, config = trained
    shutil.copytree(folder / "registry", tmp_path / "registry")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "partitions").symlink_to(folder / "run" / "devices" / "partitions")
    setting = open_setting(config, partitions=folder / "run" / "devices" / "partitions", states=tmp_path / "states")
    registry = Registry(tmp_path / "registry")
    registry.promote("run:1", "champion")
    manifest = registry.version("run:2").manifest
    fields = {key: manifest[key] for key in ("config", "signature", "model", "seed", "metrics")}
    worse = {name: -60 * value[::-1].copy() for name, value in registry.parameters("run:2").items()}
    registry.commit(worse, {**fields, "run_id": "bad", "round": 0, "parent": None})
    here = replace(setting, partitions=tmp_path / "devices" / "partitions")
    return World(here, registry, "run", tmp_path)


GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "recreate": ({}, "promoted"),
    "rolling": ({"replicas": 2, "requests": 100, **TOLERANT}, "promoted"),
    "blue_green": ({"requests": 200, "agreement": 0.1, "keep_seconds": 0.0, **TOLERANT}, "promoted"),
    "canary": ({"steps": [10, 100], "requests": 50, **TOLERANT}, "promoted"),
    "shadow": ({"requests": 300}, "finished"),
    "ab_test": ({"minimal_effect": 0.5, "least": 20, "errors": 0.5, "latency": 1.0}, "rolled back"),
    "bandit": ({"rewards": 400, "errors": 0.5, "latency": 1.0}, "promoted"),
    "feature_flag": (
        {"value": True, "then": "canary", "then_options": {"steps": [20, 100], "requests": 50, **TOLERANT}},
        "promoted",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", GOOD)
def test_a_release_of_a_good_challenger_comes_to_its_end(policy: str, world: World) -> None:
    options, how = GOOD[policy]
    release = world.order(policy, world.good, **options)
    with world.serving() as go:
        told = go(25)
    ended = releases.ending(world.registry.folder, release.id)
    assert ended is not None, told.last
    assert ended["ended"] == how or policy == "bandit", ended
    champion = world.registry.aliases()["champion"].name
    assert champion == (world.good if ended["winner"] == "challenger" else "run:1")
    if how == "promoted" and policy != "bandit":
        assert champion == world.good
    assert (told.fleet.unanswered > 0) == (policy == "recreate"), "no question is left without an answer elsewhere"
    if policy in ("shadow",):
        assert world.saw(world.good) == 0
        standing = releases.read_state(world.registry.folder, release.id)
        assert standing is not None and standing.state["report"]["challenger"]["agreement"][1] > 0.3


def test_a_worse_challengers_canary_rolls_back_before_5_percent_of_the_devices_saw_it(world: World) -> None:
    release = world.order("canary", "bad:0", steps=[2, 10, 50, 100])
    with world.serving() as go:
        told = go(60)
        assert told.last[0] is Action.ROLL_BACK, told.last
        assert 0 < world.saw("bad:0") < 0.05 * DEVICES
        told.decided.clear()
        go(1)
    assert world.registry.aliases()["champion"].name == "run:1"
    assert releases.ending(world.registry.folder, release.id)["winner"] == "champion"  # type: ignore[index]


@pytest.mark.slow
def test_who_serves_the_devices_again_goes_on_where_the_release_stood(world: World) -> None:
    release = world.order("canary", world.good, steps=[10, 30, 100], requests=40, **TOLERANT)
    with world.serving() as go:
        go(12)
    before = releases.read_state(world.registry.folder, release.id)
    assert before is not None and before.state["step"] >= 1 and "ended" not in before.state
    with world.serving() as go:
        told = go(1)
        after = releases.read_state(world.registry.folder, release.id)
        assert after is not None and after.state["step"] >= before.state["step"]
        told = go(25)
    assert told.last[0] is Action.PROMOTE and world.registry.aliases()["champion"].name == world.good


def test_only_one_process_leads_and_the_others_follow(world: World) -> None:
    world.order("canary", world.good, steps=[50, 100], requests=50, **TOLERANT)
    with world.serving() as first, world.serving() as second:
        assert first(1).decided and not second(1).decided


def test_an_operator_ends_a_release_and_devices_are_back_at_once(world: World) -> None:
    release = world.order("canary", world.good, steps=[50, 100], requests=10_000)
    with world.serving() as go:
        go(3)
        assert world.saw(world.good) > 10
        releases.ask(world.registry.folder, release.id, "abort", reason="enough", by="me")
        told = go(2)
        assert told.last == (Action.ROLL_BACK, "abort by me: enough")
        assert {told.fleet.use(client).base.name for client in range(DEVICES)} == {"run:1"}  # type: ignore[union-attr]


def test_evidence_is_one_sum_of_an_arm_and_never_a_devices_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    collect = InProcess.collect

    def watched(self: InProcess, timeout: float) -> Any:
        done = collect(self, timeout)
        seen.extend(reply for _, replies in done for reply in replies)
        return done

    monkeypatch.setattr(InProcess, "collect", watched)
    world.order("canary", world.good, "bad:0", steps=[50, 100], requests=10_000)
    with world.serving() as go:
        go(3)
    assert seen
    for reply in seen:
        assert reply.content is not None and len(reply.clients) == DEVICES, "a work unit's devices are added up"
        assert not reply.content.array_records
        statistics = wire._decode(reply.content.config_records["statistics"])
        assert set(statistics) == {"0", "1", "2"} and all(isinstance(s, Sums) for s in statistics.values())


def test_a_bad_challenger_that_gives_no_numbers_costs_no_user_an_answer(world: World) -> None:
    manifest = world.registry.version("run:2").manifest
    fields = {key: manifest[key] for key in ("config", "signature", "model", "seed", "metrics")}
    broken = {name: np.full_like(value, 3e38) for name, value in world.registry.parameters("run:2").items()}
    world.registry.commit(broken, {**fields, "run_id": "broken", "round": 0, "parent": None})
    world.order("canary", "broken:0", steps=[50, 100])  # before any device has a version at all
    with world.serving() as go:
        told = go(20)
    assert told.last[0] is Action.ROLL_BACK and told.fleet.unanswered == 0
