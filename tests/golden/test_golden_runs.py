"""Three rounds of small runs, whose losses and model hash are written down: a change of results is seen, and said.

The same CPU type and library versions give the same bits. Elsewhere the test of bits is skipped, with what differs as
the reason (``pytest -rs``), and the losses still agree to 1e-5. Where a change of results is meant, write them anew
with ``.venv/bin/python tests/golden/test_golden_runs.py`` and put before and after into experiments/RESULTS.md.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from experiments.compose import compose
from experiments.run import simulate

GOLDEN = Path(__file__).with_name("golden_runs.json")
ROUNDS = 3
LIBRARIES = ("torch", "numpy", "flwr")
RELATIVE = 1e-5
# Everything that moves a number is said here, so that better defaults leave these runs as they are.
PLAIN = (
    *("seed=7", f"num_rounds={ROUNDS}", "cohort_size=4", "evaluate_every=1", "evaluate_clients_every=1"),
    *("client=sgd", "client.batch_size=10", "client.local_epochs=1", "client.learning_rate=0.05"),
    *("client.schedule.name=constant", "client.personal_learning_rate=0.02", "dataset.public_fraction=0.02"),
    *("server.seeding_epochs=1", "server.seeding_learning_rate=0.05", "server.seeding_batch_size=16"),
    *("engine=inprocess", "server.tensorboard=false", "server.terminal=false"),
)
SYNTHETIC = ("dataset=synthetic", "dataset.clients=8", "model=softmax")
CASES = {
    "fedavg_mlp": ("dataset=fashion_mnist", "partition=shards", "num_clients=50", "model=mlp", "model.hidden=[32]"),
    "scaffold_softmax": (*SYNTHETIC, "algorithm=scaffold", "client.learning_rate=0.01"),
    "stock_fedadam_softmax": (*SYNTHETIC, "strategy=fedadam", "strategy.eta=0.01", "client.learning_rate=0.01"),
    "personal_table_mlp": ("dataset=heart_disease", "model=table_mlp", "client.personal=true"),
}


def run(case: str, folder: Path) -> dict[str, Any]:
    """Losses of rounds 0 to 3 on the server's test set, what devices' own models lose, and the last model's hash."""
    simulate(compose([*PLAIN, *CASES[case], f"run_dir={folder / case}", f"registry_dir={folder / 'registry'}"]))
    summary = json.loads((folder / case / "summary.json").read_text())
    rounds = [json.loads(line) for line in (folder / case / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rounds]
    if "personal" in summary:
        losses.append(summary["personal"]["personal_loss"])
    return {"losses": losses, "model_sha256": summary["model_sha256"]}


def machine() -> dict[str, str]:
    """What the last bit may depend on: the CPU's type and abilities, and the libraries that compute."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    kind = " ".join(cpu.get(key, "?") for key in ("vendor_id", "cpu family", "model", "model name"))
    flags = hashlib.sha256(" ".join(sorted(cpu.get("flags", "").split())).encode()).hexdigest()
    return {"cpu": kind, "cpu_flags_sha256": flags} | {name: version(name) for name in LIBRARIES}


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    return [f"{key}: {here.get(key)} here, {there.get(key)} there" for key in here if here[key] != there.get(key)]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("golden")
    return {case: run(case, folder) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_written_down(case: str, golden: dict[str, Any], runs: dict[str, Any]) -> None:
    assert runs[case]["losses"] == pytest.approx(golden["runs"][case]["losses"], rel=RELATIVE)


@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_written_down(case: str, golden: dict[str, Any], runs: dict[str, Any]) -> None:
    if other := differences(machine(), golden["machine"]):
        pytest.skip(f"losses are compared to {RELATIVE} and not to the bit: {'; '.join(other)}")
    assert runs[case] == golden["runs"][case]


def test_the_runs_are_all_different_and_training_helps(golden: dict[str, Any]) -> None:
    assert golden["runs"].keys() == CASES.keys()
    hashes = [found["model_sha256"] for found in golden["runs"].values()]
    assert len(set(hashes)) == len(CASES)
    for found in golden["runs"].values():
        assert found["losses"][ROUNDS] < found["losses"][0]


def write() -> None:
    """Write the golden file anew."""
    with tempfile.TemporaryDirectory() as folder:
        found = {case: run(case, Path(folder)) for case in CASES}
    GOLDEN.write_text(json.dumps({"machine": machine(), "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    write()
