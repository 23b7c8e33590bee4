"""Replies that are too large, from apps of every kind: refused with the reason, and the rest is as without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.app_run import Options, run_app
from experiments.app_spec import read_app
from experiments.cli import run as fl
from fl.registry import Registry

APPS = Path(__file__).resolve().parent.parent / "apps"
REFUSED = 6

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """Runs an app in ``tmp_path``/name; what it wrote to $APP_RESULT is in NAME.json beside."""

    def run(app: str, config: str = "", *, name: str = "", clients: int = 5, **options: Any) -> Path:
        folder = tmp_path / (name or app)
        monkeypatch.setenv("APP_RESULT", str(folder.with_suffix(".json")))
        settings = {"num_actors": 1, **options}
        return run_app(read_app(APPS / app, config), Options(clients, folder, tmp_path / "registry", **settings))

    return run


def result(run_dir: Path) -> Any:
    return json.loads(run_dir.with_suffix(".json").read_text())


def counts(run_dir: Path) -> dict[str, int]:
    return dict(json.loads((run_dir / "summary.json").read_text())["clients"])


def test_messages_of_every_kind_have_a_limit(run, capfd):
    folder = run("oversized", clients=3, max_reply_bytes=20_000)
    found = result(folder)
    for number, kind in enumerate(("train", "evaluate", "query"), 1):
        assert found[kind]["0"] == found[kind]["2"] == number, "the others are answered as ever"
    for kind, answers in found.items():
        code, reason = answers["1"]
        assert code == REFUSED and reason.startswith("refused: its reply has "), kind
        assert reason.endswith(" bytes, at most 20000 (--max-reply-bytes)")
    assert found["train.error"]["0"] == [77, "nonono"] and found["query.raise"]["2"][0] == 2
    assert counts(folder) == {"asked": 15, "answered": 6, "failed": 4, "refused": 5, "late": 0}
    assert "client 1: refused: its reply has" in capfd.readouterr().err


def test_without_a_limit_of_ones_own_the_same_replies_are_accepted(run):
    folder = run("oversized", clients=3)
    assert [result(folder)[kind]["1"] for kind in ("train", "evaluate", "query")] == [1, 2, 3]
    assert counts(folder) == {"asked": 15, "answered": 9, "failed": 6, "refused": 0, "late": 0}


@pytest.mark.slow
@pytest.mark.ray
def test_actors_refuse_them_too(run):
    folders = [
        run("oversized", name=engine, clients=3, max_reply_bytes=20_000, engine=engine)
        for engine in ("ray", "inprocess")
    ]
    assert result(folders[0]).keys() == result(folders[1]).keys()
    assert counts(folders[0]) == counts(folders[1])


@pytest.mark.slow
def test_a_masked_vector_that_is_too_large_is_dropped_and_the_others_add_up(run):
    folder = run("secaggplus", "padding=100000 num-server-rounds=1", max_reply_bytes=20_000)
    assert result(folder)["arrays"] == pytest.approx([0.15] * 5, abs=1e-3)  # the mean of 0, 0.1, 0.2 and 0.3
    assert counts(folder)["refused"] == 1
    whole = run("secaggplus", "padding=100000 num-server-rounds=1", name="whole")
    assert result(whole)["arrays"] == pytest.approx([0.2] * 5, abs=1e-3)


@pytest.mark.slow
def test_trees_may_grow_and_one_that_is_too_large_is_refused(run, tmp_path):
    pytest.importorskip("xgboost", reason="xgboost, the extra trees, is not installed")
    refused = run("trees", "padding=1000000", name="refused", max_reply_bytes=500_000)
    lines = [json.loads(line) for line in (refused / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        assert line["clients"] == {"asked": 5, "answered": 4, "failed": 0, "refused": 1, "late": 0}
        (told,) = line["refused"]
        assert told["client"] == 2 and "at most 500000" in told["reason"]
    registry = Registry(tmp_path / "registry")
    assert registry.version("refused:3").model_sha256 == without_it(run, registry)
    sizes = [registry.parameters(f"refused:{number}")["0"].nbytes for number in range(4)]
    assert sizes == sorted(sizes) and sizes[3] > 2 * sizes[1], "the model grew, and was not kept from it"


def without_it(run: Run, registry: Registry) -> str:
    run("trees", "raises=true", name="without")
    return registry.version("without:3").model_sha256


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_limit(run, tmp_path):
    from experiments.resume import resume

    folder = run("failing", clients=2, max_reply_bytes=1)
    assert counts(folder) == {"asked": 6, "answered": 0, "failed": 0, "refused": 6, "late": 0}
    settings = (folder / "app.yaml").read_text()
    changed_by_hand = settings.partition("\n")[2].replace("rounds: 3", "rounds: 4")
    (folder / "app.yaml").write_text(changed_by_hand)
    assert counts(resume(folder)) == {"asked": 8, "answered": 0, "failed": 0, "refused": 8, "late": 0}


def test_a_limit_of_nothing_is_named(capsys):
    assert fl(["app", "run", str(APPS / "failing"), "--max-reply-bytes", "0"]) == 2
    assert "--max-reply-bytes: got 0, allowed: at least 1" in capsys.readouterr().err
