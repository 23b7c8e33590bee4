"""Kill -9 at every step of a commit that reaches the disk: what was there is there, and nothing is half there."""

import subprocess
import sys
from pathlib import Path

import pytest

from fl.registry import Registry

# The process kills itself right before the n-th call of those that make something durable or visible.
CHILD = """
import os, pathlib, signal, sys
import numpy as np
from fl.registry import Registry

folder, left, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def deadly(function):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

registry = Registry(folder)
for home, name in ((os, "fsync"), (pathlib.Path, "replace"), (pathlib.Path, "unlink")):
    setattr(home, name, deadly(getattr(home, name)))
if action == "commit":
    registry.commit({"w": np.full(1000, 2.0)}, {"run_id": "r", "round": 1, "metrics": {"accuracy": 0.2}})
elif action == "replace":
    registry.commit({"w": np.full(1000, 3.0)}, {"run_id": "r", "round": 1, "seed": 3}, replace=True)
elif action == "promote":
    registry.promote("r:1")
elif action == "drop":
    registry.drop_after("r", 0)
elif action == "prune":
    registry.prune("r", "last:1")
print(left)
"""


def run(registry: Registry, left: int, action: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", CHILD, str(registry.folder), str(left), action]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=root, timeout=60)


def prepare(registry: Registry, rounds: int, parameters) -> None:
    for round in range(rounds):
        fields = {"run_id": "r", "round": round, "metrics": {"accuracy": (round + 1) / 10}}
        registry.commit(parameters(round), fields)


# How often each action makes something durable or visible, and how many rounds there are before it.
STEPS = {"commit": (7, 1), "replace": (10, 2), "promote": (3, 2), "drop": (6, 3), "prune": (3, 4)}


@pytest.mark.parametrize("action, steps, rounds", [(a, *numbers) for a, numbers in STEPS.items()])
def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_one(tmp_path, parameters, action, steps, rounds):
    for step in range(steps):
        registry = Registry(tmp_path / f"{action}-{step}")
        prepare(registry, rounds, parameters)
        before = registry.versions("r")
        died = run(registry, step, action)
        assert died.returncode == -9, f"step {step}: {died.stderr}"

        assert registry.verify() == [], f"step {step}"
        after = registry.versions("r")
        kept = min(len(before), len(after))
        unchanged = kept - 1 if action == "replace" else kept
        assert after[:unchanged] == before[:unchanged]
        assert abs(len(after) - len(before)) <= {"commit": 1, "replace": 1, "drop": 2}.get(action, 0)

        again = run(registry, 1000, action)
        assert again.returncode == 0, f"step {step}: {again.stderr}"
        assert registry.verify() == []
        rounds_after = {"commit": [0, 1], "replace": [0, 1], "promote": [0, 1], "drop": [0], "prune": [0, 1, 2, 3]}
        assert [v.round for v in registry.versions("r")] == rounds_after[action]


@pytest.mark.parametrize("action, steps, rounds", [(a, *numbers) for a, numbers in STEPS.items()])
def test_the_steps_are_as_many_as_the_test_above_thinks(registry, parameters, action, steps, rounds):
    prepare(registry, rounds, parameters)
    done = run(registry, 1000, action)
    assert done.stdout.split() == [str(1000 - steps)], done.stderr


def test_a_new_version_is_invisible_until_its_manifest_is_renamed(tmp_path, parameters):
    seen = []
    for step in range(7):
        registry = Registry(tmp_path / str(step))
        prepare(registry, 1, parameters)
        run(registry, step, "commit")
        seen.append([v.name for v in registry.versions()])
    assert seen == [["r:0"]] * 6 + [["r:0", "r:1"]]


def test_a_torn_last_line_of_the_log_is_cut_off(registry, parameters):
    prepare(registry, 1, parameters)
    log = registry.folder / "versions" / "r" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"event": "com')
    assert registry.verify() == []
    registry.commit(parameters(1), {"run_id": "r", "round": 1})
    assert registry.verify() == []
    assert log.read_bytes().count(b"\n") == 2


def test_pruning_sweeps_what_dead_writers_left(registry, parameters):
    prepare(registry, 2, parameters)
    run(registry, 3, "replace")  # its parameters are written, its manifest is not
    (registry.folder / "blobs" / ".x.safetensors.1.tmp").write_bytes(b"half")
    assert len(list((registry.folder / "blobs").iterdir())) == 4
    registry.prune("r", "last:2")
    assert len(list((registry.folder / "blobs").iterdir())) == 2
