"""One run, however it is carried out: the same bits in process, in forked processes, and with 1, 2 or 3 Ray actors."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.run import simulate
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]

CASES = {
    "fedavg": (),
    "scaffold": ("algorithm=scaffold",),
    "fedyogi": ("strategy=fedyogi",),
    "personal": ("client.personal=true", "client.sends=personal", "client.personal_epochs=2"),
}
QUICK = {("fedavg", 1), ("scaffold", 2), ("personal", 3)}
MATRIX = [
    pytest.param(case, actors, marks=() if (case, actors) in QUICK else pytest.mark.slow)
    for case in CASES
    for actors in (1, 2, 3)
]


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Ray started once; a RayPool joins it, and leaves it running."""
    from clients.ray_session import start_ray, stop_ray

    start_ray(3, None)
    yield
    stop_ray()


def evidence(run_dir: Path, told: Told) -> dict[str, Any]:
    """Everything of a run that must not depend on the engine."""
    summary = read_json(run_dir / "summary.json")
    personal = run_dir / "personal.jsonl"
    return {
        "model_sha256": summary["model_sha256"],
        "final": summary["final"],
        "clients": summary["clients"],
        "bytes": summary["bytes"],
        "rounds": told(run_dir),
        "personal": [json.loads(line) for line in personal.read_text().splitlines()] if personal.exists() else [],
    }


@pytest.mark.ray
@pytest.mark.parametrize("case, actors", MATRIX)
def test_actors_give_the_bits_of_the_calling_process(
    case: str, actors: int, one_ray: None, settings: Settings, told: Told
) -> None:
    overrides = (*CASES[case], "engine.unit_size=1", "num_rounds=3")
    here = simulate(settings(*overrides, name="here"))
    there = simulate(settings(*overrides, "engine=ray", f"engine.num_actors={actors}", name="there"))
    assert evidence(there, told) == evidence(here, told)
    summary = read_json(there / "summary.json")
    assert summary["engine"] == "ray" and summary["num_actors"] == actors
    assert summary["private_examples_read_by"] == "actors"


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_forked_processes_give_them_too(case: str, processes: int, settings: Settings, told: Told) -> None:
    overrides = (*CASES[case], "engine.unit_size=1", "num_rounds=3")
    here = simulate(settings(*overrides, name="here"))
    there = simulate(settings(*overrides, "engine=forked", f"engine.num_actors={processes}", name="there"))
    assert evidence(there, told) == evidence(here, told)
    assert read_json(there / "summary.json")["private_examples_read_by"] == "processes forked from this one"


@pytest.mark.parametrize("case", CASES)
def test_the_same_settings_twice_give_the_same_run(case: str, settings: Settings, told: Told) -> None:
    first, second = (simulate(settings(*CASES[case], name=name)) for name in ("first", "second"))
    assert evidence(first, told) == evidence(second, told)
    assert bool(evidence(first, told)["personal"]) == (case == "personal")


@pytest.mark.parametrize("case", CASES)
def test_another_seed_gives_another_model(case: str, settings: Settings, told: Told) -> None:
    found = {
        evidence(simulate(settings(*CASES[case], f"seed={seed}", name=str(seed))), told)["model_sha256"]
        for seed in (1, 2)
    }
    assert len(found) == 2


def test_unit_size_changes_the_order_of_additions_and_nothing_else(settings: Settings) -> None:
    runs = [simulate(settings(f"engine.unit_size={size}", name=str(size))) for size in (1, 2, 100)]
    summaries = [read_json(run / "summary.json") for run in runs]
    for other in summaries[1:]:
        assert other["clients"] == summaries[0]["clients"]
        assert other["final"]["loss"] == pytest.approx(summaries[0]["final"]["loss"], rel=1e-5)
