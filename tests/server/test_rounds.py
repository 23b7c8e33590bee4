"""The round loop: what is measured when, what adds up, when it stops, and that no round is lost or doubled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.run import simulate
from fl.errors import BadInput, StoppedByFaults
from fl.files import read_json
from fl.parameters import num_bytes, sha256
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]


def summary(run: Path) -> dict[str, Any]:
    return dict(read_json(run / "summary.json"))


def registry(run: Path) -> Registry:
    return Registry(run.parent / "registry")


EVERY = [
    ("1", 4, {0, 1, 2, 3, 4}),
    ("2", 5, {0, 2, 4, 5}),
    ("3", 4, {0, 3, 4}),
    ("null", 3, {0, 3}),
]


@pytest.mark.parametrize("every, rounds, expected", EVERY)
def test_the_servers_test_set_is_asked_every_k_rounds_and_at_both_ends(
    every: str, rounds: int, expected: set[int], settings: Settings, told: Told
) -> None:
    run = simulate(settings(f"evaluate_every={every}", f"num_rounds={rounds}", "evaluate_clients_every=null"))
    lines = told(run)
    assert [line["round"] for line in lines] == list(range(rounds + 1))
    assert {line["round"] for line in lines if line["loss"] is not None} == expected
    assert all((line["loss"] is None) == (line["accuracy"] is None) for line in lines)
    assert {name: lines[-1][name] for name in summary(run)["final"]} == summary(run)["final"]


@pytest.mark.parametrize("every, expected", [("null", set()), ("2", {2, 4, 5}), ("1", {1, 2, 3, 4, 5})])
def test_clients_are_asked_to_evaluate_every_k_rounds(
    every: str, expected: set[int], settings: Settings, told: Told
) -> None:
    run = simulate(settings(f"evaluate_clients_every={every}", "num_rounds=5"))
    lines = told(run)
    assert {line["round"] for line in lines if line["client_metrics"]} == expected
    for line in lines:
        for quantiles in line["client_metrics"].values():
            ordered = [quantiles[name] for name in ("min", "p10", "median", "p90", "max")]
            assert ordered == sorted(ordered)


def test_evaluating_changes_no_bits(settings: Settings) -> None:
    often = simulate(settings("num_rounds=3", name="often"))
    never = simulate(settings("num_rounds=3", "evaluate_every=null", "evaluate_clients_every=null", name="never"))
    assert summary(often)["model_sha256"] == summary(never)["model_sha256"]


@pytest.mark.parametrize("strategy", ["own", "fedavg"])
def test_bytes_are_what_the_models_weigh(strategy: str, settings: Settings, told: Told) -> None:
    run = simulate(settings(f"strategy={strategy}", "num_rounds=3", "evaluate_clients_every=2"))
    size = num_bytes(registry(run).parameters(registry(run).version("run:0")))
    lines = told(run)
    assert lines[0]["bytes"] == {"down": 2 * 6 * size, "up": 0}  # version 0 and a random model, to all six
    assert [line["bytes"]["up"] for line in lines[1:]] == [4 * size] * 3
    assert [line["bytes"]["down"] for line in lines[1:]] == [4 * size, 8 * size, 8 * size]
    assert summary(run)["bytes"] == {way: sum(line["bytes"][way] for line in lines) for way in ("down", "up")}


def test_an_algorithm_that_shares_arrays_moves_them_too(settings: Settings, told: Told) -> None:
    run = simulate(settings("algorithm=scaffold", "server=random", "num_rounds=1", "evaluate_clients_every=null"))
    size = num_bytes(registry(run).parameters(registry(run).version("run:0")))
    assert told(run)[1]["bytes"] == {"down": 8 * size, "up": 8 * size}


def test_counts_and_seconds_add_up(settings: Settings) -> None:
    run = simulate(settings("num_rounds=3"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        counts = line["clients"]
        assert counts["asked"] == sum(counts[name] for name in ("answered", "failed", "refused", "late"))
        seconds = line["seconds"]
        assert seconds["train"] + seconds["aggregate"] + seconds["evaluate"] + seconds["commit"] <= seconds["total"]
    totals = summary(run)
    assert totals["clients"] == {name: sum(line["clients"][name] for line in lines) for name in totals["clients"]}
    assert totals["seconds"]["total"] == pytest.approx(totals["seconds"]["setup"] + totals["seconds"]["rounds"])
    assert sum(line["seconds"]["total"] for line in lines) <= totals["seconds"]["rounds"] * 1.01


def test_every_round_is_a_version_with_its_parent_cohort_and_evidence(settings: Settings, told: Told) -> None:
    run = simulate(settings("num_rounds=3", name="lined"))
    versions = registry(run).versions("lined")
    assert [version.name for version in versions] == [f"lined:{round}" for round in range(4)]
    for before, version, line in zip(versions, versions[1:], told(run)[1:], strict=False):
        assert version.manifest["parent"] == before.hash
        assert version.metrics["accuracy"] == line["accuracy"]
        assert version.model_sha256 == line["model_sha256"] == sha256(registry(run).parameters(version))
        cohort = version.manifest["cohort"]
        assert len(cohort) == 4 and cohort == sorted(set(cohort)) and set(cohort) <= set(range(6))
    assert len({tuple(version.manifest["cohort"]) for version in versions[1:]}) > 1
    assert versions[0].manifest["seeding"]["how"] == "pretrained"


def test_early_stopping_ends_after_patience_without_gain(settings: Settings, told: Told) -> None:
    stop = ("server.early_stopping.metric=accuracy", "server.early_stopping.patience=2")
    run = simulate(settings(*stop, "server.early_stopping.min_delta=1.0", "num_rounds=9"))
    found = summary(run)
    assert found["status"] == "stopped early" and found["rounds_completed"] == 2
    assert "no better than" in found["reason"] and "for 2 evaluations" in found["reason"]
    assert [line["round"] for line in told(run)] == [0, 1, 2]
    going_on = simulate(settings(*stop, "server.early_stopping.min_delta=-1.0", "num_rounds=4", name="on"))
    assert summary(going_on)["status"] == "finished"


def test_pruning_keeps_best_champion_and_the_newest(settings: Settings) -> None:
    run = simulate(settings("server.keep_versions=last:2", "num_rounds=6", name="pruned"))
    store = registry(run)
    kept = {version.round for version in store.versions("pruned") if (store.folder / "blobs" / blob(version)).exists()}
    best = store.best("pruned")
    assert best is not None and {5, 6, best.round} <= kept and len(kept) <= 5
    assert [version.round for version in store.versions("pruned")] == list(range(7))


def blob(version: Any) -> str:
    return f"{version.model_sha256}.safetensors"


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_aggregate_that_diverges_ends_the_run_with_its_last_good_version(settings: Settings) -> None:
    config = settings("algorithm.server_learning_rate=1e39", "server=random", "num_rounds=3")
    with pytest.raises(StoppedByFaults, match=r"round 1: 4 of 4 clients answered \(their aggregate diverged: array"):
        simulate(config)
    found = summary(Path(config["run_dir"]))
    assert found["status"] == "stopped by faults" and found["rounds_completed"] == 0
    assert np.isfinite(found["final"]["loss"])


def test_answers_after_the_deadline_never_count(settings: Settings, told: Told) -> None:
    late = (
        "server.quorum=0.0",
        "engine=forked",
        "engine.unit_size=1",
        "cohort_size=6",
        "num_rounds=2",
        "server=random",
    )
    config = settings(*late, "server.deadline_seconds=1e-9", name="nobody")
    with pytest.raises(StoppedByFaults, match=r"round 1: 0 of 6 clients answered \(no reason was given\)"):
        simulate(config)
    run = simulate(settings(*late, "server.deadline_seconds=600", name="everybody"))
    assert summary(run)["clients"] == {"asked": 12, "answered": 12, "failed": 0, "refused": 0, "late": 0}


# --- version 0 --------------------------------------------------------------------------------------------------


def start_of(run: Path) -> dict[str, Any]:
    return registry(run).parameters(registry(run).version(f"{run.name}:0"))


def test_pretraining_helps_and_says_for_how_many_clients(settings: Settings, told: Told) -> None:
    run = simulate(settings(name="pretrained"))
    random = simulate(settings("server=random", name="random"))
    seeding = summary(run)["seeding"]
    assert seeding["how"] == "pretrained" and seeding["clients_asked"] == 6 and seeding["public_examples"] > 0
    assert 0 <= seeding["share_better_than_random"] <= 1
    assert summary(random)["seeding"] == {"how": "random"}
    assert told(run)[0]["accuracy"] > told(random)[0]["accuracy"]


def test_a_run_may_start_from_a_version_a_run_or_a_file(settings: Settings, tmp_path: Path) -> None:
    first = simulate(settings(name="first"))
    end = registry(first).version("first:2")
    save_file(registry(first).parameters(end), tmp_path / "start.safetensors")
    best = registry(first).best("first")
    assert best is not None
    starts = {"first:2": end, str(first): best, str(tmp_path / "start.safetensors"): end, "champion": best}
    for number, (how, expected) in enumerate(starts.items()):
        run = simulate(settings(f"server.seeding='{how}'", "num_rounds=1", name=f"from{number}"))
        version = registry(run).version(f"from{number}:0")
        assert version.model_sha256 == expected.model_sha256
        parent = None if how.endswith(".safetensors") else expected.hash
        assert version.manifest["parent"] == parent
        assert summary(run)["seeding"]["how"] == "existing"


def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(settings: Settings, tmp_path: Path) -> None:
    simulate(settings("dataset.dimension=5", name="narrow"))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    cases = {
        "narrow:1": r"server\.seeding: got narrow:1, allowed: parameters that fit the model: array '.*' has shape",
        "nobody:1": r"server\.seeding: got nobody:1, allowed: pretrained, random, a \.safetensors file, or a version",
        str(tmp_path / "torn.safetensors"): r"server\.seeding: got .*torn\.safetensors, allowed: a safetensors file",
        str(tmp_path / "none.safetensors"): r"server\.seeding: got .*none\.safetensors, allowed: a safetensors file",
        str(tmp_path / "other.safetensors"): r"server\.seeding: .* fit the model: array '.*' is missing",
    }
    for how, message in cases.items():
        config = settings(f"server.seeding='{how}'", name="refused")
        with pytest.raises(BadInput, match=message):
            simulate(config)
        assert not Path(config["run_dir"]).exists()


# --- models of one's own ----------------------------------------------------------------------------------------

NORMED = """
from torch import nn

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4), nn.Linear(4, num_outputs))
"""


@pytest.mark.parametrize("strategy", ["own", "fedavg"])
def test_what_a_model_tracks_is_averaged_and_keeps_its_dtype(
    strategy: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "normed.py").write_text(NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    model = ("model=custom", "model._target_=normed.build", "client.batch_size=null", "client.local_epochs=3")
    run = simulate(settings(f"strategy={strategy}", *model, "cohort_size=6", "server=random", "num_rounds=2"))
    assert summary(run)["clients"]["answered"] == 12
    before, after = (registry(run).parameters(registry(run).version(f"run:{round}")) for round in (0, 2))
    assert {name: value.dtype for name, value in after.items()} == {name: v.dtype for name, v in before.items()}
    assert int(after["1.num_batches_tracked"]) == 6  # three steps of each client a round, twice
    assert (after["1.running_mean"] != 0).all() and np.isfinite(after["1.running_var"]).all()
    assert list(after) == list(before)
