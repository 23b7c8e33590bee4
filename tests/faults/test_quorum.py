"""Clients that fail: named, counted, left out; too many of them, and the round is tried again, then the run ends."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clients.setting import open_setting
from clients.updates import make_updates
from experiments.run import resume, simulate
from fl.errors import RefusedUpdate, StoppedByFaults
from fl.files import read_json
from fl.messages import TrainTask, Update
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Prepared = Callable[..., Path]
Poison = Callable[[Path, Iterable[int]], None]
Told = Callable[[Path], list[dict[str, Any]]]

EVERYONE = ("cohort_size=6", "num_rounds=1", "server=random")


@pytest.mark.parametrize("strategy", ["own", "fedavg", "fedmedian"])
@pytest.mark.parametrize("path", ["auto", "one_by_one"])
def test_a_poisoned_client_is_refused_by_name_and_the_others_count(
    strategy: str, path: str, prepared: Prepared, poison: Poison, told: Told
) -> None:
    run = prepared(f"strategy={strategy}", f"client.path={path}", *EVERYONE)
    poison(run, [2])
    resume(run)
    (line,) = told(run)[1:]
    assert line["clients"] == {"asked": 6, "answered": 5, "failed": 0, "refused": 1, "late": 0}
    (refused,) = line["refused"]
    assert refused["client"] == 2 and "NaN or an infinity" in refused["reason"]
    summary = read_json(run / "summary.json")
    assert summary["status"] == "finished" and summary["clients"]["refused"] == 1


@pytest.mark.parametrize("strategy", ["own", "fedavg"])
def test_the_result_is_the_mean_over_the_others(
    strategy: str, prepared: Prepared, poison: Poison, tmp_path: Path
) -> None:
    run = prepared(f"strategy={strategy}", "client.path=one_by_one", *EVERYONE)
    poison(run, [2])
    resume(run)
    registry = Registry(tmp_path / "registry")
    start, end = (registry.parameters(registry.version(f"prepared:{round}")) for round in (0, 1))
    setting = open_setting(
        yaml.safe_load((run / "config.yaml").read_text()),
        partitions=run / "devices" / "partitions",
        states=tmp_path / "nowhere",
    )
    outcomes = dict(make_updates(setting, TrainTask(1, 0, start), range(6)))
    assert isinstance(outcomes.pop(2), RefusedUpdate)
    updates = [update for update in outcomes.values() if isinstance(update, Update)]
    total = sum(update.num_examples for update in updates)
    for name, value in end.items():
        mean = sum(np.float64(u.num_examples / total) * u.delta[name].astype(np.float64) for u in updates)
        np.testing.assert_allclose(value, start[name] + mean, rtol=1e-5, atol=1e-6)


def test_too_few_answers_are_tried_again_with_other_cohorts_and_then_end_the_run(settings: Settings) -> None:
    config = settings("client.learning_rate=1e30", "server=random", "server.round_retries=1")
    with pytest.raises(StoppedByFaults, match=r"round 1: 0 of 4 clients answered \(client \d: delta refused"):
        simulate(config)
    summary = read_json(Path(config["run_dir"]) / "summary.json")
    assert summary["status"] == "stopped by faults" and summary["rounds_completed"] == 0
    assert StoppedByFaults.exit_status == 3
    assert summary["clients"] == dict.fromkeys(("asked", "answered", "failed", "refused", "late"), 0)


def test_a_round_that_misses_the_quorum_asks_a_fresh_cohort(prepared: Prepared, poison: Poison, told: Told) -> None:
    quorum = ("server=random", "cohort_size=3", "server.quorum=1.0", "server.round_retries=20", "num_rounds=4")
    run = prepared(*quorum)
    poison(run, [0, 1])
    resume(run)
    lines = told(run)[1:]
    tries = [line["clients"]["asked"] // 3 for line in lines]
    assert max(tries) > 1, "no cohort had one of the two"
    for line in lines:
        counts = line["clients"]
        assert counts["answered"] + counts["failed"] + counts["refused"] + counts["late"] == counts["asked"]
        assert counts["answered"] == 3
        assert {item["client"] for item in line["refused"]} <= {0, 1}
