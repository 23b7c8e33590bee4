"""Files of a foreign app's run that change: named by the doctor, never used, and the run comes to the same bits."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.app_run import Options, run_app
from experiments.app_spec import AppSpec, read_app
from experiments.cli import run as fl
from experiments.config_file import APP_CONFIG, write_config
from experiments.doctor import examine
from experiments.resume import resume
from fl.errors import CorruptFile
from fl.files import read_json

APPS = Path(__file__).resolve().parent.parent / "apps"
OUTSIDE = ("tensorboard", ".lock", "summary.json", "metrics.jsonl")
"""No hash is kept of them, or nothing goes on from them."""


def spec(rounds: int) -> AppSpec:
    return read_app(APPS / "module_cache", f"rounds={rounds}")


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """A run with states of clients, as it is after two of three rounds."""
    monkeypatch.setenv("APP_RESULT", str(tmp_path / "result.json"))
    done = tmp_path / "done" / "run"
    run_app(spec(2), Options(5, done, done.with_name("registry"), num_actors=1))
    text = (done / "app.yaml").read_text().partition("\n")[2].replace("rounds: 2", "rounds: 3")

    def cut() -> Path:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(done.parent, work)
        write_config(work / "run", {**yaml.safe_load(text), "registry": str(work / "registry")}, name=APP_CONFIG)
        return work / "run"

    return cut


def lines(run: Path) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("version", "seconds")} for line in told]


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


KINDS = {
    "settings": "run/app.yaml",
    "what the app goes on from": "run/state/000002.bin",
    "a client's state": "run/devices/states/*/*/2.safetensors",
    "parameters": "registry/blobs/*.safetensors",
    "a manifest": "registry/versions/run/000001.json",
}


@pytest.mark.slow
def test_what_has_gone_bad_of_an_apps_run_is_named_and_made_again(
    cut: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(3)
    whole = lines(resume(cut()))
    assert [line["round"] for line in whole] == [0, 1, 2, 3]
    for what, pattern in KINDS.items():
        run = cut()
        assert not list(examine(run))
        path = sorted(run.parent.glob(pattern))[-1]
        flip(path, chance)
        capsys.readouterr()
        assert fl(["doctor", str(run)]) == 1 and path.name in capsys.readouterr().out, what
        if what == "settings":
            with pytest.raises(CorruptFile, match=r"app\.yaml"):
                resume(run)
            continue
        assert lines(resume(run)) == whole, what
        assert "damaged: " in capsys.readouterr().err
        assert read_json(run / "summary.json")["status"] == "finished"
        assert not list(examine(run))


@pytest.mark.slow
def test_every_file_of_an_apps_run_is_held_against_a_hash(cut: Callable[[], Path]) -> None:
    run, chance = cut(), random.Random(4)
    for path in sorted(p for p in run.parent.rglob("*") if p.is_file() and not set(p.parts[-3:]) & set(OUTSIDE)):
        whole = path.read_bytes()
        for _ in range(20 if whole else 0):
            flip(path, chance)
            assert list(examine(run)), f"nothing was noticed of {path.name}"
            path.write_bytes(whole)
    assert not list(examine(run))
