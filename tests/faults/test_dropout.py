"""Devices that are gone when they should train: known beforehand, counted, and made up for as the quorum says."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.run import simulate
from fl.cohorts import drops_out
from fl.errors import StoppedByFaults
from fl.files import read_json
from fl.registry import Registry

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Driver = Callable[..., dict[str, Any]]
Write = Callable[[dict[str, Any]], str]

FRACTIONS = (0.0, 0.1, 0.3, 0.5)
ROUNDS, COHORT = 8, 10
WORK = (f"num_rounds={ROUNDS}", f"cohort_size={COHORT}", "dataset.clients=20", "server=random", "engine.unit_size=3")


@pytest.fixture(scope="module")
def gone() -> Callable[[list[int], int, float], set[int]]:
    def gone(cohort: list[int], round: int, fraction: float) -> set[int]:
        return {client for client in cohort if drops_out(round, client, fraction=fraction, seed=1)}

    return gone


def finished(config: dict[str, Any]) -> Path:
    """The run's folder, whether it came to its end or was stopped for want of answers."""
    try:
        return simulate(config)
    except StoppedByFaults:
        return Path(config["run_dir"])


def asked_of(run: Path) -> Iterator[tuple[int, list[int]]]:
    """Whom a run asked in which round, where everybody answered."""
    registry = Registry(run.parent / "registry")
    for version in registry.versions(read_json(run / "summary.json")["run_id"])[1:]:
        yield version.round, list(version.manifest["cohort"])


@pytest.mark.parametrize(
    "strategy, engine",
    [
        ("own", "inprocess"),
        ("fedavg", "forked"),
        pytest.param("own", "forked", marks=pytest.mark.slow),
        pytest.param("fedavg", "inprocess", marks=pytest.mark.slow),
        pytest.param("own", "ray", marks=[pytest.mark.slow, pytest.mark.ray]),
    ],
)
def test_a_round_is_committed_if_and_only_if_the_quorum_answers_and_every_count_is_exact(
    strategy: str, engine: str, settings: Settings, told: Told, gone: Callable[[list[int], int, float], set[int]]
) -> None:
    work = (*WORK, f"strategy={strategy}", "server.round_retries=0", f"engine={engine}", "engine.num_actors=2")
    asked = dict(asked_of(simulate(settings(*work, name="everyone"))))
    assert len(asked) == ROUNDS and all(len(cohort) == COHORT for cohort in asked.values())
    ends = set()
    for fraction in FRACTIONS:
        for quorum in (0.5, 0.8):
            more = (f"client.dropout_fraction={fraction}", f"server.quorum={quorum}")
            run = finished(settings(*work, *more, name=f"{fraction}-{quorum}"))
            answered = {r: COHORT - len(gone(cohort, r, fraction)) for r, cohort in asked.items()}
            short = [r for r in sorted(asked) if answered[r] < quorum * COHORT]
            summary, lines = read_json(run / "summary.json"), told(run)[1:]
            assert summary["rounds_completed"] == len(lines) == (short[0] - 1 if short else ROUNDS)
            assert summary["status"] == ("stopped by faults" if short else "finished")
            ends.add(summary["status"])
            for line in lines:
                away = gone(asked[line["round"]], line["round"], fraction)
                assert {item["client"] for item in line["failed"]} == away
                assert all(item["reason"] == f"client {item['client']} dropped out" for item in line["failed"])
                counts = {"asked": COHORT, "answered": COHORT - len(away), "failed": len(away), "refused": 0, "late": 0}
                assert line["clients"] == counts
    assert len(ends) == 2, "the quorum was met always, or never"


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_every_engine_loses_the_same_devices_and_makes_the_same_bits(
    fraction: float, settings: Settings, told: Told
) -> None:
    work = (*WORK, f"client.dropout_fraction={fraction}", "algorithm=scaffold", "server.quorum=0.1")
    here, there = (simulate(settings(*work, f"engine={engine}", name=engine)) for engine in ("inprocess", "forked"))
    assert told(here) == told(there)


def test_a_round_without_quorum_is_tried_again_with_a_fresh_cohort_and_everyone_is_counted(
    settings: Settings, told: Told
) -> None:
    more = ("client.dropout_fraction=0.5", "server.quorum=0.5", "server.round_retries=20")
    lines = told(simulate(settings(*WORK, *more)))[1:]
    assert len(lines) == ROUNDS and any(line["clients"]["asked"] > COHORT for line in lines)
    for line in lines:
        counts = line["clients"]
        assert counts["asked"] % COHORT == 0
        assert counts["asked"] == counts["answered"] + counts["failed"] + counts["refused"] + counts["late"]
        assert counts["answered"] >= 0.5 * COHORT
        last_try_answered, earlier = counts["answered"], counts["asked"] - COHORT
        assert counts["late"] <= earlier - math.ceil(0.5 * earlier) and last_try_answered <= COHORT


def test_the_exit_status_is_3_where_the_quorum_is_never_met(settings: Settings, driver: Driver, write: Write) -> None:
    more = ("client.dropout_fraction=0.9", "server.quorum=0.9", "server.round_retries=2")
    config = settings(*WORK, *more)
    assert driver(settings=write(config))["status"] == 3
    assert read_json(Path(config["run_dir"]) / "summary.json")["status"] == "stopped by faults"
