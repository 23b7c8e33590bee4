"""Simulated devices answer simulated users: by which version, by whose model, and what of it may be asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import served
from clients.fleet import Assigned, Fleet
from clients.setting import Setting
from clients.state import StateStore
from clients.unit import answer
from fl import wire
from fl.messages import SERVED, Query
from fl.metrics import Histogram, Statistics, Sums, merge
from fl.parameters import Parameters
from fl.serving.on_device import Global

Devices = Callable[..., Setting]


@pytest.fixture
def setting(devices: Devices, tmp_path: Path) -> Setting:
    """Devices whose table of answers is this test's own."""
    found = devices(personal_epochs=4)
    here = tmp_path / "devices" / "partitions"
    here.parent.mkdir()
    here.symlink_to(found.partitions)
    return replace(found, partitions=here)


def version(start: Parameters, number: int, run: str = "run") -> Global:
    parameters = {name: value + np.float32(0.01 * number) for name, value in start.items()}
    return Global(number, f"{run}:{number}", f"{run} {number}".encode().hex(), parameters)


def fleet_of(setting: Setting, tmp_path: Path, assign: Any, **more: Any) -> Fleet:
    return Fleet(setting, range(6), assign, models=StateStore(tmp_path / "models"), **more)


def used(fleet: Fleet, times: int = 1) -> list[tuple[str, bool]]:
    found = [fleet.use(client) for _ in range(times) for client in range(6)]
    return [(one.base.name, one.personal) for one in found if one is not None]


def asked(setting: Setting, kind: str, arms: tuple[int, ...] = (0,), **numbers: tuple[float, ...]) -> Statistics:
    content = wire.query_content(Query(kind, arms, numbers))
    replies = answer(setting, "query", content, range(6))
    assert [reply.clients for reply in replies] == [tuple(range(6))], "one sum over the unit's devices"
    assert replies[0].content is not None
    return wire._decode(replies[0].content.config_records["statistics"])


def sums(setting: Setting, arm: int = 0, **numbers: tuple[float, ...]) -> dict[str, float]:
    found = merge([asked(setting, "served", (arm,), **numbers)])[str(arm)]
    assert isinstance(found, Sums)
    return dict(zip(SERVED, found.values, strict=False))


def test_devices_pick_a_version_up_between_answers_and_every_answer_names_it(
    setting: Setting, tmp_path: Path, start: Parameters
) -> None:
    out = [version(start, 1)]
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(out[0], out[0].number))
    assert used(fleet) == [("run:1", False)] * 6
    while fleet.between_answers():
        pass
    assert used(fleet) == [("run:1", True)] * 6
    out[0] = version(start, 4)
    assert used(fleet) == [("run:1", True)] * 6, "nobody waits for the new one"
    while fleet.between_answers():
        pass
    assert used(fleet) == [("run:4", True)] * 6
    fleet.keep()
    told = sums(setting)
    assert (told["answers"], told["personal"], told["users"], told["errors"]) == (24, 18, 6, 0)
    assert told["behind"] == 6 * 3
    by_version = asked(setting, "served_versions", edges=(-0.5, 0.5, 1.5, 2.5, 3.5, 4.5))["0"]
    assert isinstance(by_version, Histogram) and by_version.counts == (0, 18, 0, 0, 6)
    with closing(sqlite3.connect(served.table_path(setting.partitions))) as table:
        rows = table.execute("SELECT version, number, personal FROM served").fetchall()
    assert set(rows) == {("run:1", 1, 0), ("run:1", 1, 1), ("run:4", 4, 1)}


def test_their_own_models_are_better_for_their_users_than_the_global_one(
    setting: Setting, tmp_path: Path, start: Parameters
) -> None:
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(version(start, 1), 1))
    used(fleet)
    while fleet.between_answers():
        pass
    used(fleet, times=50)
    fleet.keep()
    told = sums(setting)
    assert told["rewards"] == told["answers"] == 306
    assert told["reward"] / 306 > told["base_reward"] / 306 + 0.1


def test_a_device_that_is_switched_on_again_answers_by_its_own_model_at_once(
    setting: Setting, tmp_path: Path, start: Parameters
) -> None:
    first = version(start, 1)
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(first, 1))
    used(fleet)
    while fleet.between_answers():
        pass
    again = fleet_of(setting, tmp_path, lambda client: Assigned(first, 1), known={first.hash: first}.get)
    assert used(again) == [("run:1", True)] * 6 and not again.between_answers()
    gone = fleet_of(setting, tmp_path, lambda client: Assigned(first, 1))
    assert used(gone) == [("run:1", False)] * 6


def test_only_the_answers_that_are_asked_for_are_added_up(setting: Setting, tmp_path: Path, start: Parameters) -> None:
    arms = [version(start, 1), version(start, 2)]
    numbers = {version.hash: arm for arm, version in enumerate(arms)}
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(arms[client % 2], 2, release=7, arms=numbers))
    used(fleet)
    fleet.keep()
    assert sums(setting)["answers"] == 6, "all that users saw"
    assert sums(setting, release=(0.0,))["answers"] == 0, "of no release"
    for arm in (0, 1):
        assert sums(setting, arm, release=(7.0,))["answers"] == 3
        assert sums(setting, arm, release=(7.0,), since=(2e9,))["answers"] == 0


def test_a_shadow_is_compared_and_never_shown(setting: Setting, tmp_path: Path, start: Parameters) -> None:
    champion, shadow = version(start, 1), version(start, 2, "other")
    broken = replace(shadow, hash="00", parameters={n: np.full_like(v, np.nan) for n, v in start.items()})
    fleet = fleet_of(
        setting,
        tmp_path,
        lambda client: Assigned(
            champion, 2, release=1, arms={champion.hash: 0, shadow.hash: 1, "00": 2}, mirrors=(shadow, broken)
        ),
    )
    assert used(fleet) == [("run:1", False)] * 6
    while fleet.between_answers():
        pass
    assert used(fleet) == [("run:1", True)] * 6
    fleet.keep()
    shown, compared, failed = (sums(setting, arm, release=(1.0,)) for arm in range(3))
    assert (shown["compared"], shown["users"]) == (0, 6)
    assert (compared["compared"], compared["users"], compared["errors"]) == (12, 0, 0) and compared["agreed"] > 0
    assert (failed["compared"], failed["agreed"], failed["users"], failed["errors"]) == (12, 0, 0, 12)


def test_where_there_is_no_version_the_user_is_told_so(setting: Setting, tmp_path: Path) -> None:
    fleet = fleet_of(setting, tmp_path, lambda client: None)
    assert used(fleet) == [] and fleet.unanswered == 6


def test_what_took_how_long_adds_up(setting: Setting, tmp_path: Path, start: Parameters) -> None:
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(version(start, 1), 1))
    used(fleet)
    fleet.keep()
    found = asked(setting, "served", edges=(1e-9, 100.0))["0"]
    assert isinstance(found, Sums) and found.values[len(SERVED) :] == (0.0, 6.0, 0.0)


def test_a_device_counts_as_a_user_once_and_an_answer_for_the_version_that_gave_it(
    setting: Setting, tmp_path: Path, start: Parameters
) -> None:
    now = [100.0]
    champion, challenger = version(start, 1), version(start, 2)
    arms = {champion.hash: 0, challenger.hash: 1}
    out = [champion]
    fleet = fleet_of(setting, tmp_path, lambda client: Assigned(out[0], 2, release=1, arms=arms), clock=lambda: now[0])

    def told(arm: int) -> tuple[float, ...]:
        fleet.keep()
        found = sums(setting, arm, release=(1.0,), since=(now[0],), until=(now[0] + 1,))
        return tuple(found[name] for name in ("answers", "users", "user_rewards"))

    used(fleet, times=2)
    assert told(0) == (12, 6, 6)
    while fleet.between_answers():
        pass
    now[0], out[0] = 101.0, challenger
    used(fleet)
    assert told(0) == (6, 0, 0), "still by the champion"
    assert told(1) == (0, 0, 0)
    while fleet.between_answers():
        pass
    now[0] = 102.0
    used(fleet)
    assert told(1) == (6, 6, 6)
    now[0], out[0] = 103.0, champion
    used(fleet)
    assert told(0) == (6, 0, 0), "back at once"
