"""`fl devices serve`: devices answer their users while rounds go on, and nothing of their data leaves."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clients.inprocess import InProcess
from clients.unit import Reply
from experiments.cli import run
from experiments.devices import serve_run
from experiments.run import simulate
from fl import wire
from fl.data.store import open_store
from fl.files import read_json
from fl.messages import QUERIES
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Reply]]:
    """Everything that leaves devices, as it does."""
    seen: list[tuple[str, Reply]] = []
    collect = InProcess.collect

    def watched(self: InProcess, timeout: float) -> Any:
        done = collect(self, timeout)
        seen.extend((unit.kind, reply) for unit, replies in done for reply in replies)
        return done

    monkeypatch.setattr(InProcess, "collect", watched)
    return seen


def test_nothing_of_a_devices_data_leaves_it(settings: Settings, crossed: list[tuple[str, Reply]]) -> None:
    folder = simulate(settings())
    assert {kind for kind, _ in crossed} == {"train", "evaluate"}
    found = serve_run(folder, rate=300.0, seconds=1.0, follow=None)
    assert found["answers"] > 50 and found["devices"] == 6 and found["failed"] == found["unanswered"] == 0
    assert 0 < found["personal_share"] < 1 and found["answers_by_version"] == {"2": found["answers"]}
    assert found == read_json(folder / "serving.json")
    store = open_store(folder / "devices" / "partitions")
    private = {row.tobytes() for row in store.x} | {row.astype("float64").tobytes() for row in store.x}
    assert len(private) > 100
    for kind, reply in crossed:
        assert reply.content is not None
        left = b"".join(
            array.tobytes()
            for record in reply.content.array_records.values()
            for array in wire.arrays_of(record).values()
        )
        left += json.dumps([dict(r) for r in reply.content.metric_records.values()]).encode()
        assert not any(row in left for row in private), kind
        if kind == "query":
            assert not reply.content.array_records and reply.clients == tuple(range(6))
            statistics = wire._decode(reply.content.config_records["statistics"])
            assert {type(s) for s in statistics.values()} <= {QUERIES["served"], QUERIES["served_versions"]}
    assert sum(kind == "query" for kind, _ in crossed) == 2


def test_an_alias_or_an_old_version_may_answer_and_what_devices_keep_changes_no_run(settings: Settings) -> None:
    folder = simulate(settings("num_rounds=1"))
    before = {path.name: path.read_bytes() for path in (folder / "devices" / "states").rglob("*.safetensors")}
    found = serve_run(folder, rate=100.0, seconds=0.5, follow=f"{folder.name}:0")
    assert found["answers_by_version"] == {"0": found["answers"]} and found["versions_behind"] == 1.0
    assert before == {p.name: p.read_bytes() for p in (folder / "devices" / "states").rglob("*.safetensors")}


@pytest.mark.parametrize(
    "words, says",
    [
        (["--run", "nowhere", "num_rounds=1"], "no settings beside it"),
        (["--follow", "champion"], "only with --run"),
        (["--rate", "0", "--run", "."], "questions a second, above 0"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "serve", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_devices_answer_while_rounds_go_on(tmp_path: Path) -> None:
    words = ["dataset=synthetic", "dataset.clients=100", "num_rounds=80", "engine=inprocess", "seed=3"]
    folders = [f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'registry'}"]
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "devices", "serve", *words, *folders]
    done = subprocess.run([*command, "--rate", "300"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run")
    found = read_json(tmp_path / "run" / "serving.json")
    assert found["devices"] == 100 and found["failed"] == found["unanswered"] == 0
    assert found["versions_seen"] >= 3, "versions were picked up while rounds went on"
    assert found["personal_share"] > 0.5 and found["reward"] > found["global_reward"]
    known = {version.name for version in Registry(tmp_path / "registry").versions()}
    with closing(sqlite3.connect(tmp_path / "run" / "devices" / "served.sqlite")) as table:
        rows = table.execute("SELECT version, personal FROM served").fetchall()
    assert len(rows) == found["answers"] and {version for version, _ in rows} <= known
