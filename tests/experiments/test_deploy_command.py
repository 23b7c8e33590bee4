"""`fl deploy ...`: what is ordered, who stands where, and how each command ends."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import deploy
from experiments.cli import run
from fl.deployment import POLICIES, policy_for
from fl.registry import Registry, releases
from fl.releases import Evidence, Figures


@pytest.fixture
def store(tmp_path):
    registry = Registry(tmp_path / "registry")
    for round in range(3):
        registry.commit({"w": np.full(2, float(round))}, {"run_id": "a", "round": round, "metrics": {}})
    registry.promote("a:0")
    return registry


def call(store, *arguments: str) -> int:
    return run(["deploy", *arguments, "--registry", str(store.folder)])


def lead(store, **figures):
    """One step of whoever leads the newest release."""
    release = releases.releases(store.folder)[-1]
    policy = policy_for(release)
    state = releases.resumed(store.folder, release, policy)
    counted = {name: Figures(requests=200, **figures) for name in release.names}
    return releases.advance(store.folder, release, policy, state, Evidence(counted, 0.0, 1.0))


def test_the_commands_are_the_policies():
    assert set(deploy.POLICIES) == set(POLICIES)


def test_an_order_is_recorded_with_every_option(store, capsys):
    assert call(store, "canary", "--challenger", "a:1", "--challenger", "a:2", "--option", "steps=5,50,100") == 0
    assert capsys.readouterr().out == "canary-1\n"
    (made,) = releases.open_releases(store.folder)
    assert made.options["steps"] == [5, 50, 100] and set(made.options) == set(POLICIES["canary"].options)
    assert [store.version(arm.version).name for arm in made.arms] == ["a:0", "a:1", "a:2"]
    assert store.version("challenger").name == "a:1" and store.version("champion").name == "a:0"


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["canary"], 2, "--challenger: got nothing"),
        (["canary", "--challenger", "a:7"], 2, "rounds of a: 0 to 2"),
        (["rolling", "--challenger", "a:1", "--option", "replicas=two"], 2, "--option replicas: got two"),
        (["rolling", "--challenger", "a:1", "--option", "replicas"], 2, "allowed: NAME=VALUE"),
        (["shadow", "--challenger", "a:1", "--target", "moon"], 2, "--target: got moon, allowed: http or devices"),
        (["status"], 2, "none is there yet"),
        (["status", "canary-4"], 2, "RELEASE: got canary-4"),
    ],
)
def test_bad_input_is_named_and_nothing_is_recorded(store, capsys, arguments, status, words):
    assert call(store, *arguments) == status
    assert words in capsys.readouterr().err and releases.releases(store.folder) == []


def test_a_version_that_was_refused_is_not_released_but_may_be_shadowed(store, capsys):
    store.attach("a:1", "accept", {"accepted": False, "reasons": ["too slow"]})
    assert call(store, "canary", "--challenger", "a:1") == 4
    assert "a:1 is not accepted: too slow" in capsys.readouterr().err
    assert call(store, "shadow", "--challenger", "a:1") == 0
    assert call(store, "promote") == 4


def test_status_pause_go_on_and_abort(store, capsys):
    call(store, "rolling", "--challenger", "a:1")
    lead(store)
    assert call(store, "pause", "--reason", "lunch") == 0
    lead(store)
    capsys.readouterr()
    call(store, "status", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "paused" and told["arms"]["challenger"]["share"] == 0.25
    assert call(store, "go-on") == 0 and call(store, "watch", "--seconds", "0") == 3
    assert call(store, "abort", "--reason", "a bug") == 0
    lead(store)
    capsys.readouterr()
    assert call(store, "watch") == 1
    assert "rolled back: abort by" in capsys.readouterr().out
    assert call(store, "status") == 0 and "a bug" in capsys.readouterr().out
    assert call(store, "abort") == 2  # it has ended


def test_promote_moves_the_champion_now(store, capsys):
    call(store, "ab_test", "--challenger", "a:1", "--challenger", "a:2")
    assert call(store, "promote", "--arm", "challenger-2", "--reason", "the boss") == 0
    lead(store)
    assert store.version("champion").name == "a:2" and call(store, "watch") == 0
    capsys.readouterr()
    assert call(store, "list") == 0 and "promoted" in capsys.readouterr().out


def test_a_canary_goes_through_its_steps_and_moves_the_champion(store):
    call(store, "canary", "--challenger", "a:1", "--option", "steps=50,100", "--option", "requests=100")
    for _ in range(20):
        state, _ = lead(store, latency_counts=(0,) * 20 + (200,) + (0,) * 41)
    assert state["ended"] == "promoted" and store.version("champion").name == "a:1"
    assert [line["action"] for line in releases.decisions(store.folder, "canary-1")] == ["go on", "promote"]


def test_help_teaches_the_options_of_a_policy(tmp_path):
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "deploy"]
    shown = subprocess.run([*command, "canary", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "steps=[1, 5, 25, 50, 100]" in shown.stdout and "patience_seconds" in shown.stdout
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    for policy in POLICIES:
        assert policy in shown.stdout


@pytest.mark.slow
def test_one_command_prints_the_policy_table_and_prints_it_again(capsys):
    tables = []
    for _ in range(2):
        assert run(["deploy", "compare", "--repeats", "1", "--json"]) == 0
        tables.append(json.loads(capsys.readouterr().out))
    assert tables[0] == tables[1]
    rows = {row["policy"]: row for row in tables[0]["table"]}
    assert list(rows) == list(POLICIES) and all(row["use it when"] for row in rows.values())
    assert int(rows["recreate"]["downtime s"]) > 0 == int(rows["canary"]["downtime s"])
    assert float(rows["canary"]["users who met a harmful one"].rstrip("%")) < 5
