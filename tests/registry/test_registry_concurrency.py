"""Several processes at once in one registry."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from fl.registry import Registry

CHILD = """
import sys
import numpy as np
from fl.registry import Registry

folder, me, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
registry = Registry(folder)
sys.stdin.readline()  # all start together
for i in range(12):
    if action == "commit":  # every process writes the same parameters in every round
        registry.commit({"w": np.full(5000, float(i))}, {"run_id": f"run{me}", "round": i})
    elif action == "same":  # they race for the same versions
        registry.commit({"w": np.full(5000, float(i))}, {"run_id": "run", "round": i})
    elif action == "promote":
        registry.promote(f"run:{(me + 3 * i) % 3}", reason=f"{me}/{i}")
    elif action == "claim":
        print(registry.claim_run_id("run"))
    elif action == "crown":
        registry.crown_if_vacant(f"run{me}")
    elif action == "prune":
        registry.commit({"w": np.full(5000, float(100 * me + i))}, {"run_id": f"run{me}", "round": i})
        registry.prune(f"run{me}", "last:2")
"""


def race(registry: Registry, action: str, processes: int = 4) -> list[str]:
    """Start processes that do one thing over and over, all at once; what each printed."""
    arguments = [[sys.executable, "-c", CHILD, str(registry.folder), str(me), action] for me in range(processes)]
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(a, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
        for a in arguments
    ]
    for child in started:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    results = [child.communicate(timeout=120) for child in started]
    assert [child.returncode for child in started] == [0] * processes, results
    return [out for out, _ in results]


def test_commits_of_several_runs(registry: Registry):
    race(registry, "commit")
    assert registry.verify() == []
    assert len(registry.versions()) == 4 * 12
    assert len(list((registry.folder / "blobs").iterdir())) == 12


def test_commits_of_the_same_rounds_agree_on_one_version(registry: Registry):
    race(registry, "same")
    assert registry.verify() == []
    assert [v.round for v in registry.versions()] == list(range(12))
    assert (registry.folder / "versions" / "run" / "log.jsonl").read_text().count('"commit"') == 12


def test_promotions_are_all_remembered_in_one_order(registry: Registry, grow):
    grow("run", 0.1, 0.2, 0.3)
    race(registry, "promote")
    moves = registry.alias_moves("champion")
    assert moves[0]["from"] is None
    assert all(a["to"] == b["from"] != b["to"] for a, b in pairwise(moves))
    reasons = [m["reason"] for m in moves]
    assert len(set(reasons)) == len(reasons)
    assert registry.aliases()["champion"].name == moves[-1]["to"]
    assert registry.verify() == []


def test_every_claim_gets_an_id_of_its_own(registry: Registry):
    claimed = " ".join(race(registry, "claim")).split()
    assert sorted(claimed) == sorted(["run", *(f"run-{n}" for n in range(2, 49))])


def test_one_run_is_crowned(registry: Registry, grow):
    for me in range(4):
        grow(f"run{me}", 0.1, 0.2)
    race(registry, "crown")
    assert len(registry.alias_moves("champion")) == 1


@pytest.mark.parametrize("processes", [3])
def test_pruning_takes_nothing_from_a_commit_in_another_process(registry: Registry, processes: int):
    race(registry, "prune", processes)
    assert registry.verify() == []
    for me in range(processes):
        for round in (0, 10, 11):
            assert registry.parameters(f"run{me}:{round}")["w"][0] == 100 * me + round
    assert len(list((registry.folder / "blobs").iterdir())) == 3 * processes
    aliases = registry.folder / "aliases.json"
    assert not aliases.exists() or json.loads(aliases.read_text())
