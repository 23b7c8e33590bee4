"""The stage `select`: what other kinds of model come to on the same partitions, if that is asked for."""

from __future__ import annotations

import json

import pytest

from experiments import cli
from fl.registry import Registry

HEART = ("dataset=heart_disease", "engine=inprocess", "num_rounds=1", "server.tensorboard=false")


def walked(capsys, tmp_path, *overrides: str) -> tuple[dict, dict]:
    folders = (f"run_dir={tmp_path / 'heart'}", f"registry_dir={tmp_path / 'registry'}")
    capsys.readouterr()
    assert cli.run(["lifecycle", "--json", *HEART, *folders, *overrides]) == 0
    stages = {one["stage"]: one for one in json.loads(capsys.readouterr().out)["stages"]}
    return stages, json.loads((tmp_path / "heart" / "select" / "evidence.json").read_text())


def test_nothing_is_compared_unless_it_is_asked_for(capsys, tmp_path):
    stages, evidence = walked(capsys, tmp_path, "stage=select")
    assert evidence["candidates"] == [] and "configured model" in stages["select"]["found"]
    assert not (tmp_path / "heart" / "runs").exists()


def test_rounds_that_cannot_be_are_refused(tmp_path):
    assert cli.run(["lifecycle", *HEART, "selection.rounds=-1", f"run_dir={tmp_path / 'heart'}"]) == 2


@pytest.mark.slow
def test_candidates_are_measured_and_the_configured_model_is_what_is_trained(capsys, tmp_path):
    _, evidence = walked(capsys, tmp_path, "selection.rounds=2", "model=constant")
    by_name = {one["name"]: one for one in evidence["candidates"]}
    assert {"configured", "trivial", "linear", "network", "trees"} <= set(by_name)
    assert by_name["configured"]["value"] == by_name["trivial"]["value"]  # which is configured
    assert by_name["linear"]["value"] < by_name["configured"]["value"]
    assert evidence["best"] != "configured"
    registry = Registry(tmp_path / "registry")
    champion = registry.version("champion")
    assert champion.manifest["model"]["target"] == "fl.models.constant.build"
    assert registry.evidence(champion)["select"]["best"] == evidence["best"]
    assert registry.versions(by_name["linear"]["run_id"])[-1].round == 2
    stages, _ = walked(capsys, tmp_path, "selection.rounds=2", "model=constant")
    assert stages["select"]["what"] == "skipped"
    stages, _ = walked(capsys, tmp_path, "selection.rounds=2", "model=constant", "num_rounds=2")
    assert stages["select"]["what"] == "skipped" and stages["train"]["what"] != "skipped"
