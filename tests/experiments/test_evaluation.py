"""`fl evaluate` and `fl accept`: what they find, keep and refuse, on a real run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from experiments.compose import compose
from experiments.run import simulate
from fl.registry import Registry

HEART = ("dataset=heart_disease", "engine=inprocess", "num_rounds=3", "server.tensorboard=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A registry with a run on heart disease, and a version of another that answers the opposite."""
    folder = tmp_path_factory.mktemp("evaluation")
    simulate(compose([*HEART, f"registry_dir={folder / 'registry'}", f"run_dir={folder / 'good'}"]))
    registry = Registry(folder / "registry")
    best = registry.best("good")
    parameters = registry.parameters(best)
    last = [name for name, array in parameters.items() if array.shape[0] == 2]
    opposite = {name: array[::-1].copy() if name in last else array for name, array in parameters.items()}
    kept = {name: best.manifest[name] for name in ("signature", "model", "seed", "dataset", "selection")}
    registry.start_run("poor", {"run_dir": str(folder / "good")})
    registry.commit(opposite, {**kept, "run_id": "poor", "round": 0, "parent": None})
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """The registry for this test alone; the runs' folders are where they were."""
    shutil.copytree(trained / "registry", tmp_path / "registry")
    return tmp_path / "registry"


def call(capsys, folder: Path, *words: str) -> tuple[int, Any, str]:
    capsys.readouterr()
    status = cli.run([*words, "--registry", str(folder), "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def test_evaluate_keeps_what_it_finds_as_evidence(capsys, folder):
    status, found, _ = call(capsys, folder, "evaluate", "good:best")
    registry = Registry(folder)
    version = registry.version("good:best")
    assert status == 0 and registry.evidence(version)["evaluate"] == found
    assert found["examples"]["count"] == 185 and found["version_hash"] == version.hash
    for name in ("accuracy", "loss"):  # the server's own figures
        one = found["metrics"][name]
        assert one["value"] == pytest.approx(version.metrics[name], rel=1e-5) and one["low"] < one["high"]
    assert [one["examples"] for one in found["classes"]["each"]] == [sum(row) for row in found["classes"]["confusion"]]
    assert sum(map(sum, found["classes"]["confusion"])) == sum(found["calibration"]["answered"]["counts"]) == 185
    by = {part["by"] for part in found["slices"]}
    assert {"age", "sex", "label"} <= by
    sexes = [part for part in found["slices"] if part["by"] == "sex"]
    assert sum(part["examples"] for part in sexes) == 185
    large = [part["value"] for part in found["slices"] if part["examples"] >= 20]
    assert found["worst_slice"]["value"] == min(large)
    clients = found["clients"]
    assert clients["asked"] == clients["count"] == 4 and clients["examples"] > 40
    lowest = clients["metrics"]["accuracy"]["min"]
    assert clients["worst"]["value"] == lowest <= clients["pooled"]["accuracy"]["value"]
    assert clients["pooled"]["accuracy"]["low"] < clients["pooled"]["accuracy"]["high"]
    assert found["champion"] == {"absent": "there was no champion from another run"}
    assert found["resources"]["parameters"] == version.manifest["num_parameters"]
    assert 0 < found["measured"]["latency_seconds"] <= found["measured"]["latency_p90_seconds"]


def test_the_same_question_has_the_same_answer(capsys, folder):
    first, again = (call(capsys, folder, "evaluate", "good:best", "--resamples", "200")[1] for _ in range(2))
    for one in (first, again):
        one.pop("measured")
    assert first == again
    narrow = call(capsys, folder, "evaluate", "good:best", "--confidence", "0.5", "--slice", "sex")[1]
    assert narrow["metrics"]["accuracy"]["low"] > first["metrics"]["accuracy"]["low"]
    assert {part["by"] for part in narrow["slices"]} == {"sex", "label"}


def test_without_the_run_s_folder_the_registry_s_examples_do(capsys, folder, tmp_path):
    Registry(folder).finish_run("good", {"run_dir": str(tmp_path / "gone")})
    status, found, _ = call(capsys, folder, "evaluate", "good:best")
    assert status == 0 and found["examples"]["count"] == 185 and "registry" in found["examples"]["origin"]
    assert "folder of the run is gone" in found["clients"]["absent"]
    status, verdict, _ = call(capsys, folder, "accept", "good:best", "fairness_floor=0.1")
    assert status == 4 and "clients were not asked" in verdict["reasons"][0]


@pytest.mark.parametrize(
    "words, told",
    [
        (("evaluate", "good:best", "--slice", "height"), "--slice: got height, allowed: one of age"),
        (("evaluate", "good:best", "--confidence", "95"), "confidence: got 95"),
        (("evaluate", "good:9"), "version: got good:9"),
        (("accept", "good:best"), "SUCCESS: got no criterion"),
        (("accept", "good:best", "acc=0.9"), "SUCCESS: got acc=0.9, allowed: NAME=NUMBER"),
        (("accept", "good:best", "accuracy=high"), "accuracy: got high, allowed: a number"),
        (("accept", "good:best", "accuracy=1", "--business", "none"), "not both"),
        (("accept", "good:best", "--business", "nothing"), "one of heart_disease, none"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything(capsys, folder, words, told):
    status, out, err = call(capsys, folder, *words)
    assert status == 2 and out is None and told in err
    assert Registry(folder).evidence("good:best") == {}


def test_acceptance_refuses_with_every_reason_and_the_gate_holds(capsys, folder):
    status, verdict, _ = call(capsys, folder, "accept", "good:best", "accuracy=0.99", "loss=5", "size_bytes=10")
    assert status == 4 and not verdict["accepted"]
    assert [reason.partition(":")[0] for reason in verdict["reasons"]] == [
        "accuracy at least 0.99",
        "size_bytes at most 10",
    ]
    assert verdict["held"][0].startswith("loss at most 5")
    registry = Registry(folder)
    assert {"evaluate", "accept"} <= registry.evidence("good:best").keys()
    for name, words in (("good:best", "accuracy at least 0.99"), ("good:1", "never held")):
        status, _, err = call(capsys, folder, "versions", "promote", name)
        assert status == 4 and words in err
    status, _, _ = call(capsys, folder, "versions", "promote", "good:best", "--override", "nothing better by friday")
    assert status == 0
    kept = registry.evidence("good:best")["accept"]["override"]
    assert kept["reason"] == "nothing better by friday" and kept["by"] and kept["time"]
    cli.run(["versions", "show", "good:best", "--registry", str(folder)])
    assert "nothing better by friday" in capsys.readouterr().out


def test_the_client_that_is_served_worst_is_held_against_the_floor(capsys, folder):
    worst = call(capsys, folder, "evaluate", "good:best")[1]["clients"]["worst"]
    assert call(capsys, folder, "accept", "good:best", f"fairness_floor={worst['value'] - 0.01}")[0] == 0
    status, verdict, _ = call(capsys, folder, "accept", "good:best", f"fairness_floor={worst['value'] + 0.01}")
    assert status == 4 and f"client {worst['client']} is served worst" in verdict["reasons"][0]


def test_acceptance_lets_a_better_one_through(capsys, folder, tmp_path):
    file = tmp_path / "goals.yaml"
    file.write_text("objective: x\nsuccess: {accuracy: 0.6}\nconstraints: {size_bytes: 1000000, epsilon: null}\n")
    assert call(capsys, folder, "accept", "good:best", "--business", str(file))[0] == 0
    status, verdict, _ = call(capsys, folder, "accept", "good:best")  # what it was accepted for counts again
    assert status == 0 and verdict["criteria"]["success"] == {"accuracy": 0.6}
    assert call(capsys, folder, "versions", "promote", "good:best")[0] == 0
    cli.run(["versions", "show", "good:best", "--registry", str(folder)])
    assert "accepted: accuracy at least 0.6" in capsys.readouterr().out


def test_a_model_worse_than_the_champion_is_refused_by_a_paired_test(capsys, folder):
    assert Registry(folder).version("champion").run_id == "good"
    status, verdict, _ = call(capsys, folder, "accept", "poor:latest", "no_worse_than_champion")
    assert status == 4 and "no worse than the champion good:" in verdict["reasons"][0]
    champion = Registry(folder).evidence("poor:latest")["evaluate"]["champion"]
    assert champion["won"] < champion["lost"] and champion["worse_p"] < 0.05
    assert champion["difference"]["high"] < 0
    assert call(capsys, folder, "accept", "good:best", "no_worse_than_champion")[0] == 0
