"""Kill -9 at every step of a commit that reaches the disk: what was there is there, and nothing is half there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl.parameters import Parameters
from fl.registry import Registry, Version

# Does one action in each of some folders, in a process of its own for each. With "kill", the n-th of them kills itself
# right before its n-th call that makes something durable or visible. Prints how each of them ended.
# A fresh interpreter does it, since forking pytest itself would copy the threads that other tests have started.
CHILD = """
import json, os, pathlib, signal, sys
import numpy as np
from fl.registry import Registry

def die_at(step, function):
    def call(*arguments):
        steps.append(None)
        if len(steps) > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

steps = []
actions = {
    "commit": lambda r: r.commit({"w": np.full(1000, 2.0)}, {"run_id": "r", "round": 1}),
    "replace": lambda r: r.commit({"w": np.full(1000, 3.0)}, {"run_id": "r", "round": 1}, replace=True),
    "promote": lambda r: r.promote("r:1"),
    "drop": lambda r: r.drop_after("r", 0),
    "prune": lambda r: r.prune("r", "last:1"),
}
kill, action, folders = sys.argv[1] == "kill", actions[sys.argv[2]], sys.argv[3:]
ended = []
for step, folder in enumerate(folders):
    if not os.fork():
        for home, name in (os, "fsync"), (pathlib.Path, "replace"), (pathlib.Path, "unlink"):
            if kill:
                setattr(home, name, die_at(step, getattr(home, name)))
        action(Registry(folder))
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(json.dumps(ended))
"""
ROUNDS = {"commit": 1, "replace": 2, "promote": 2, "drop": 3, "prune": 4}


def in_children(how: str, action: str, registries: list[Registry]) -> list[int]:
    """The exit codes of doing ``action`` in each registry; ``how`` is "kill" or "let"."""
    arguments = [sys.executable, "-c", CHILD, how, action, *(str(r.folder) for r in registries)]
    root = Path(__file__).parents[2]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    return list(json.loads(done.stdout))


def prepare(registry: Registry, action: str, parameters: Callable[[float], Parameters]) -> list[Version]:
    return [
        registry.commit(parameters(r), {"run_id": "r", "round": r, "metrics": {"accuracy": r / 10}})
        for r in range(ROUNDS[action])
    ]


def rounds(registry: Registry) -> str:
    return "".join(str(v.round) for v in registry.versions("r"))


@pytest.mark.parametrize(
    "action, seen, done",
    [
        # The rounds that are there after a kill before step 0, 1, 2 ...: one state or the other, nothing between.
        ("commit", ["0"] * 6 + ["01"], "01"),  # parameters: synced, renamed, folder synced; log; manifest: the same
        ("replace", ["01"] * 4 + ["0"] * 5 + ["01"], "01"),  # parameters; old manifest gone, folder, log; as a commit
        ("promote", ["01"] * 3, "01"),
        ("drop", ["012"] + ["01"] * 3 + ["0"] * 2, "0"),
        ("prune", ["0123"] * 3, "0123"),
    ],
)
def test_a_kill_at_any_step_leaves_one_state_or_the_other(tmp_path, parameters, action, seen, done):
    registries = [Registry(tmp_path / str(step)) for step in range(len(seen) + 1)]
    before = [prepare(registry, action, parameters) for registry in registries]
    assert in_children("kill", action, registries) == [-9] * len(seen) + [0]

    assert [registry.verify() for registry in registries] == [[]] * len(registries)
    assert [rounds(registry) for registry in registries] == [*seen, done]
    for registry, versions in zip(registries, before, strict=True):
        untouched = slice(1 if action == "replace" else len(versions))
        after = registry.versions("r")
        assert after[untouched] == versions[: len(after)][untouched]

    # Who tries again succeeds.
    assert in_children("let", action, registries[:-1]) == [0] * len(seen)
    assert [registry.verify() for registry in registries] == [[]] * len(registries)
    assert [rounds(registry) for registry in registries] == [done] * len(registries)


def test_a_torn_last_line_of_the_log_is_cut_off(registry, parameters):
    prepare(registry, "commit", parameters)
    log = registry.folder / "versions" / "r" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"event": "com')
    assert registry.verify() == []
    registry.commit(parameters(1), {"run_id": "r", "round": 1})
    assert registry.verify() == []
    assert log.read_bytes().count(b"\n") == 2


def test_pruning_sweeps_what_dead_writers_left(tmp_path, parameters):
    registries = [Registry(tmp_path / str(step)) for step in range(4)]
    for registry in registries:
        prepare(registry, "replace", parameters)
    in_children("kill", "replace", registries)
    torn, unused = (
        registries[1],
        registries[3],
    )  # parameters not renamed yet; renamed, but the old manifest is still there
    for registry, more in ((torn, ".tmp"), (unused, ".safetensors")):
        blobs = registry.folder / "blobs"
        assert [p.suffix for p in sorted(blobs.iterdir())].count(more) == (1 if more == ".tmp" else 3)
        registry.prune("r", "last:2")
        assert len(list(blobs.iterdir())) == 2
        assert registry.verify() == []
