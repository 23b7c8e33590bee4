import subprocess

import numpy as np
import pytest

from fl.errors import BadInput, CorruptFile
from fl.registry import Registry, code_state


def test_facts_are_kept_from_claim_to_finish(registry: Registry, tmp_path):
    run_id = registry.claim_run_id("night")
    assert registry.run(run_id)["status"] == "claimed"
    created = registry.run(run_id)["created"]
    registry.start_run(run_id, {"run_dir": str(tmp_path), "seed": 3})
    assert (registry.run(run_id)["status"], registry.run(run_id)["finished"]) == ("running", None)
    registry.finish_run(run_id, {"status": "interrupted"})
    facts = registry.run(run_id)
    assert facts["finished"] >= facts["created"] == created
    assert {k: facts[k] for k in ("run_id", "status", "seed", "run_dir")} == {
        "run_id": "night",
        "status": "interrupted",
        "seed": 3,
        "run_dir": str(tmp_path),
    }
    registry.start_run(run_id, {})  # it goes on
    assert registry.run(run_id)["status"] == "running"
    registry.finish_run(run_id, {})
    assert registry.run(run_id)["status"] == "finished"


def test_runs_are_listed_oldest_first_and_an_unknown_one_is_an_error(registry: Registry):
    assert registry.runs() == []
    with pytest.raises(BadInput, match="run: got b, allowed: a run of this registry, such as none yet"):
        registry.run("b")
    registry.claim_run_id("z")
    registry.claim_run_id("a")
    assert [r["run_id"] for r in registry.runs()] in (["z", "a"], ["a", "z"])  # within a millisecond they tie
    with pytest.raises(BadInput, match="run: got b, allowed: a run of this registry, such as "):
        registry.run("b")


@pytest.mark.parametrize(
    "name, run_id",
    [
        ("12-30-01", "12-30-01"),
        ("my run/ä", "my-run-"),
        ("../..", "run"),
        ("", "run"),
        ("champion", "champion-2"),
        ("a:1", "a-1"),
    ],
)
def test_any_name_becomes_an_id(registry: Registry, name: str, run_id: str):
    assert registry.claim_run_id(name) == run_id
    registry.commit({"w": np.zeros(1)}, {"run_id": run_id, "round": 0})
    assert registry.version(f"{run_id}:0").name == f"{run_id}:0"


def test_an_id_with_versions_is_taken_though_its_facts_are_lost(registry: Registry, grow):
    grow("r", 0.1)
    assert registry.claim_run_id("r") == "r-2"


def test_examples(registry: Registry):
    assert registry.examples("r") is None
    x, y = np.arange(600, dtype=np.uint8).reshape(300, 2), np.arange(300)
    registry.keep_examples("r", x, y)
    kept = registry.examples("r")
    assert kept is not None
    assert np.array_equal(kept[0], x[:256])
    assert np.array_equal(kept[1], y[:256])
    assert kept[0].dtype == np.uint8
    with pytest.raises(BadInput, match="examples: got 2 inputs and 3 targets"):
        registry.keep_examples("r", x[:2], y[:3])
    (registry.folder / "runs" / "r.examples.safetensors").write_bytes(b"short")
    with pytest.raises(CorruptFile, match=r"r.examples.safetensors"):
        registry.examples("r")


def git(folder, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_named_by_its_commit_and_whether_it_was_changed_since(tmp_path):
    for name in ("none", "clean", "dirty", "empty"):
        (tmp_path / name).mkdir()
    assert code_state(tmp_path / "none") == {"commit": None, "dirty": None}
    git(tmp_path / "empty", "init", "-q")
    assert code_state(tmp_path / "empty") == {"commit": None, "dirty": None}
    for name in ("clean", "dirty"):
        git(tmp_path / name, "init", "-q")
        (tmp_path / name / "file").write_text("1")
        git(tmp_path / name, "add", "file")
        git(tmp_path / name, "commit", "-q", "-m", "m")
    (tmp_path / "dirty" / "file").write_text("2")
    for name in ("clean", "dirty"):
        head = git(tmp_path / name, "rev-parse", "HEAD")
        assert code_state((tmp_path / name).resolve()) == {"commit": head, "dirty": name == "dirty"}
    (tmp_path / "clean" / "below").mkdir()
    below = (tmp_path / "clean" / "below").resolve()
    assert code_state(below) == {"commit": None, "dirty": None}  # somebody else's repository


def test_without_git_there_is_no_state(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(tmp_path) == {"commit": None, "dirty": None}
