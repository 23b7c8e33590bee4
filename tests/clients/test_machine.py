"""A real device's own part: its data taken in, the newest global model picked up, and its user answered."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import received, served
from clients.machine import Home, Machine
from clients.own_data import take_in
from clients.received import Received
from clients.setting import Setting
from clients.unit import answer
from fl import wire
from fl.data.store import open_store
from fl.errors import BadInput
from fl.messages import SERVED, OwnTraining, Query
from fl.metrics import Sums
from fl.parameters import Parameters, sha256
from fl.serving.on_device import Global
from fl.signature import Signature

Devices = Callable[..., Setting]
Partitions = tuple[dict[str, Any], Path]


@pytest.fixture
def mine(partitions: Partitions, tmp_path: Path) -> Path:
    """The examples of a user, as a file."""
    part = open_store(partitions[1]).partition(1).train
    np.savez(tmp_path / "mine.npz", x=part.x, y=part.y)
    return tmp_path / "mine.npz"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def machine(home: Home, mine: Path, partitions: Partitions, start: Parameters) -> Machine:
    signature = open_store(partitions[1]).signature
    take_in(mine, home.partitions, client=1, num_clients=2, signature=signature, label="label")
    built_in = Received(Global(0, "run:0", sha256(start), start), partitions[0])
    return Machine(home, client=1, signature=signature, built_in=built_in)


def question(mine: Path, row: int = 0) -> dict[str, Any]:
    with np.load(mine) as found:
        return {"id": row, "rows": [found["x"][row].tolist()], "label": int(found["y"][row])}


def note(
    home: Home, partitions: Partitions, parameters: Parameters, *, round: int, run: str = "9", **more: Any
) -> None:
    content = wire.evaluate_content(wire.array_record(parameters), round=round, **more)
    received.note(home.received, "evaluate", content, run=run, settings=partitions[0])


def test_it_answers_by_what_it_was_installed_with_then_by_its_own_model_of_what_was_sent(
    home: Home, mine: Path, partitions: Partitions, start: Parameters
) -> None:
    device = machine(home, mine, partitions, start)
    first = device.answer(question(mine))
    assert (first["id"], first["version"], first["round"], first["personal"]) == (0, "run:0", 0, False)
    assert first["model_sha256"] == sha256(start) and {"label", "probabilities"} == first["predictions"][0].keys()
    assert device.catch_up() and device.answer(question(mine))["personal"] and not device.catch_up()
    newer = {name: value + np.float32(0.1) for name, value in start.items()}
    note(home, partitions, newer, round=4)
    assert device.answer(question(mine))["version"] == "run:0"
    assert device.catch_up()
    then = device.answer(question(mine))
    assert (then["version"], then["round"], then["personal"]) == ("9:4", 4, True)
    assert then["model_sha256"] == sha256(newer)
    again = machine(home, mine, partitions, start).answer(question(mine))
    assert again == then, "switched off and on again"


def test_what_it_answered_can_be_asked_for_by_the_query_of_a_simulated_device(
    home: Home, mine: Path, partitions: Partitions, start: Parameters, devices: Devices
) -> None:
    device = machine(home, mine, partitions, start)
    device.catch_up()
    for row in range(20):
        device.answer(question(mine, row))
    setting = replace(devices(), partitions=home.partitions)
    (reply,) = answer(setting, "query", wire.query_content(Query("served", (0,))), [1])
    assert reply.content is not None
    sums = wire._decode(reply.content.config_records["statistics"])["0"]
    assert isinstance(sums, Sums)
    told = dict(zip(SERVED, sums.values, strict=False))
    assert (told["answers"], told["rewards"], told["personal"]) == (20, 20, 20)
    assert told["reward"] > told["base_reward"], "it has trained on these"
    assert served.table_path(home.partitions).is_file()


def test_only_models_that_users_are_to_have_are_kept_and_never_an_older_one(
    home: Home, partitions: Partitions, start: Parameters
) -> None:
    other = {name: value + np.float32(1.0) for name, value in start.items()}
    note(home, partitions, other, round=3, personal=False)
    note(home, partitions, other, round=3, own=OwnTraining("local"))
    assert received.newest(home.received) is None
    note(home, partitions, start, round=3)
    note(home, partitions, other, round=2)
    kept = received.newest(home.received)
    assert kept is not None and (kept.version.number, kept.version.hash) == (3, sha256(start))
    note(home, partitions, other, round=1, run="another")
    kept = received.newest(home.received)
    assert kept is not None and (kept.version.name, kept.version.hash) == ("another:1", sha256(other))


@pytest.mark.parametrize(
    "asked, says",
    [
        ([1], "expected an object"),
        ({}, "rows"),
        ({"id": 3, "rows": [[1.0]]}, "1 values, expected 60|1 values, expected 8"),
        ({"rows": [["a"] * 8]}, "is not a number"),
    ],
)
def test_what_cannot_be_answered_says_why(
    asked: Any, says: str, home: Home, mine: Path, partitions: Partitions, start: Parameters
) -> None:
    told = machine(home, mine, partitions, start).answer(asked)
    assert any(one in told["error"] for one in says.split("|"))
    assert told.get("id") == (asked.get("id") if isinstance(asked, dict) else None)


def test_a_table_is_taken_in_by_its_columns(tmp_path: Path) -> None:
    signature = Signature("classification", (2,), "float32", 2, class_names=("no", "yes"), feature_names=("a", "b"))
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["b", "sick", "a", "name"])
        writer.writerows([[i, "yes" if i % 2 else "no", "" if i == 3 else i / 2, "x"] for i in range(20)])
    count = take_in(
        tmp_path / "mine.csv", tmp_path / "store", client=2, num_clients=3, signature=signature, label="sick"
    )
    store = open_store(tmp_path / "store")
    assert count == 20 and [store.num_train(client) for client in range(3)] == [0, 0, 16]
    part = store.partition(2)
    assert len(part.validation) == len(part.test) == 2
    rows = np.concatenate([part.train.x, part.validation.x, part.test.x])
    labels = np.concatenate([part.train.y, part.validation.y, part.test.y])
    order = rows[:, 1].argsort()
    assert np.isnan(rows[order][3, 0]) and rows[order][4].tolist() == [2.0, 4.0]
    assert labels[order].tolist() == [0, 1] * 10


@pytest.mark.parametrize(
    "name, content, more, says",
    [
        ("mine.csv", "a,label\n1,0\n", {}, "with the columns a, b and label"),
        ("mine.csv", "a,b,label\n1,x,0\n", {}, "could not convert"),
        ("mine.csv", "a,b,label\n1,2,7\n", {}, "classes from 0, below 2"),
        ("gone.npz", None, {}, "a .npz file with arrays x and y"),
        ("mine.csv", "a,b,label\n1,2,1\n", {"client": 3}, "0 to 2, with --clients 3"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    name: str, content: str | None, more: dict[str, Any], says: str, tmp_path: Path
) -> None:
    signature = Signature("classification", (2,), "float32", 2, feature_names=("a", "b"))
    if content is not None:
        (tmp_path / name).write_text(content)
    arguments: dict[str, Any] = {"client": 0, "num_clients": 3, "signature": signature, "label": "label"} | more
    with pytest.raises(BadInput, match=says):
        take_in(tmp_path / name, tmp_path / "store", **arguments)
    assert not (tmp_path / "store").exists()
