"""`fl replay` and `fl doctor`: a round is trained again to the same bits, what differs is named, nothing is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run as fl
from experiments.run import simulate
from fl import faults
from fl.files import read_json, sha256_file

Settings = Callable[..., dict[str, Any]]

CASES = {
    "fedavg": (),
    "fedprox": ("algorithm=fedprox",),
    "scaffold": ("algorithm=scaffold",),
    "fedadam": ("strategy=fedadam",),
    "fedyogi": ("strategy=fedyogi",),
    "fedmedian": ("strategy=fedmedian",),
    "personal": ("client.personal=true", "client.sends=personal"),
}


def contents(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): sha256_file(path) for path in files}


def replayed(capsys: pytest.CaptureFixture[str], run: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    status = fl(["replay", str(run), "--json", *more])
    return status, json.loads(capsys.readouterr().out)["rounds"]


@pytest.mark.parametrize("case", CASES)
def test_every_round_is_trained_again_to_the_same_bits(
    case: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(settings(*CASES[case], "num_rounds=4"))
    before = contents(run, tmp_path / "registry")
    for round in (1, 2, 3, 4):
        status, rounds = replayed(capsys, run, "--round", str(round))
        assert status == 0
        assert rounds[-1]["round"] == round
        assert all(row["got"] == row["expected"] for row in rounds)
    assert contents(run, tmp_path / "registry") == before


def test_a_round_that_was_tried_again_or_had_failures_is_the_same(
    prepared: Callable[..., Path],
    poison: Callable[[Path, Any], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from experiments.run import resume

    run = prepared("num_rounds=3", "server.quorum=0.9", "server.round_retries=30", "cohort_size=3")
    poison(run, [0, 1])
    resume(run)
    counts = read_json(run / "summary.json")["clients"]
    assert counts["asked"] > 9  # three rounds of three, and some again
    for round in (1, 2, 3):
        assert replayed(capsys, run, "--round", str(round))[0] == 0


@pytest.mark.ray
def test_a_round_is_trained_again_in_actors(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate(settings("algorithm=scaffold", "num_rounds=3"))
    status, rounds = replayed(capsys, run, "--round", "3", "--engine", "ray")
    assert status == 0
    assert [row["round"] for row in rounds] == [3]


def test_what_differs_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import past_run
    from experiments.config_file import read_config

    run = simulate(settings())
    config = read_config(run)
    monkeypatch.setattr(past_run, "read_config", lambda folder: {**config, "seed": config["seed"] + 1})
    status, rounds = replayed(capsys, run, "--round", "2")
    assert status == 1
    assert rounds[-1]["array"]


def test_a_round_that_was_not_is_refused(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate(settings())
    assert fl(["replay", str(run), "--round", "9"]) == 2
    assert "--round: got 9, allowed: 1 to 2" in capsys.readouterr().err


def test_the_data_a_replay_reads_are_held_against_their_hash(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(settings())
    path = run / "devices" / "partitions" / "x.npy"
    content = bytearray(path.read_bytes())
    for place in range(200, len(content), 8):
        content[place] ^= 1
    path.write_bytes(content)
    assert fl(["replay", str(run), "--round", "1"]) == 1
    assert "x.npy" in capsys.readouterr().err


def test_a_device_whose_state_is_damaged_is_not_left_out(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(settings("algorithm=scaffold", "num_rounds=4", "dataset.clients=4"))
    path = run / "devices" / "states" / "algorithm" / "000" / "000002" / "3.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert fl(["replay", str(run), "--round", "4"]) == 1
    assert str(path) in capsys.readouterr().err
    assert fl(["replay", str(run), "--round", "1"]) == 0


def test_doctor_names_what_is_damaged_and_only_then_fails(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(settings())
    assert fl(["doctor", str(run)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    path = run / "devices" / "prepared.json"
    path.write_bytes(path.read_bytes()[:-5])
    assert fl(["doctor", str(run), "--json"]) == 1
    assert [p["path"] for p in json.loads(capsys.readouterr().out)["problems"]] == [str(path)]


def test_the_fault_points_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert fl(["doctor", "--fault-points", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list(faults.POINTS)
    assert len(faults.POINTS) >= 25
