"""`fl versions ...`: what each command prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from experiments.versions import app
from fl.errors import BadInput, MeadowError
from fl.registry import Registry


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    """Run a with three versions of which a:1 is best and champion, and run b that came from it."""
    registry = Registry(tmp_path / "registry")
    for run_id, accuracies in {"a": (0.1, 0.75, 0.5), "b": (0.6,)}.items():
        for round, accuracy in enumerate(accuracies):
            fields = {
                "run_id": run_id,
                "round": round,
                "metrics": {"accuracy": accuracy, "loss": 1 - accuracy},
                "config": {"client": {"learning_rate": 0.1 * (round + 1)}, "name": "[bold]x[/bold]"},
                "dataset": {"name": "mnist"},
                "cohort": [1, 2],
            }
            parent = {"parent": "a:1"} if run_id == "b" else {}
            registry.commit({"w": np.full(4, accuracy)}, {**fields, **parent})
    registry.crown_if_vacant("a")
    return registry


def call(store: Registry, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--registry", str(store.folder)])


def text(store: Registry, *arguments: str) -> str:
    result = call(store, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(store: Registry, *arguments: str) -> object:
    """The one JSON document that a command prints; anything beside it would not parse."""
    result = call(store, *arguments, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_list(store: Registry):
    lines = [line.split() for line in text(store, "list").splitlines() if line.strip()]
    assert lines[0] == ["version", "hash", "round", "accuracy", "loss", "aliases", "created"]
    assert [line[0] for line in lines[2:]] == ["a:0", "a:1", "a:2", "b:0"]
    assert lines[3][:5] == ["a:1", store.version("a:1").hash[:12], "1", "0.75", "0.25"]
    assert lines[3][5:7] == ["champion,", "best"]


def test_list_json(store: Registry):
    listed = document(store, "list")
    assert isinstance(listed, list)
    version = store.version("b:0")
    assert listed[-1] == {
        "name": "b:0",
        "run_id": "b",
        "round": 0,
        "hash": version.hash,
        "model_sha256": version.model_sha256,
        "parent": store.version("a:1").hash,
        "parent_name": "a:1",
        "metrics": {"accuracy": 0.6, "loss": 0.4},
        "created": version.manifest["created"],
        "aliases": ["best", "latest"],
    }
    assert [v["aliases"] for v in listed[:3]] == [[], ["champion", "best"], ["latest"]]


@pytest.mark.parametrize(
    "options, names",
    [
        (["--limit", "2"], ["a:2", "b:0"]),
        (["--limit", "99"], ["a:0", "a:1", "a:2", "b:0"]),
        (["--run", "a"], ["a:0", "a:1", "a:2"]),
        (["--run", "a", "--limit", "1"], ["a:2"]),
    ],
)
def test_list_some(store: Registry, options: list[str], names: list[str]):
    listed = document(store, "list", *options)
    assert isinstance(listed, list)
    assert [v["name"] for v in listed] == names


def test_show(store: Registry):
    shown = text(store, "show", "b")
    version = store.version("b:0")
    for expected in (version.hash, version.model_sha256, "b:0 <- a:1 <- a:0", "dataset.name", "mnist", "2 clients"):
        assert expected in shown
    assert "learning_rate: 0.1" in shown
    assert "[bold]x[/bold]" in shown  # a user's brackets are no markup
    assert str(version.path) in shown.replace("\n", "")


def test_show_json(store: Registry):
    shown = document(store, "show", "b:latest")
    assert isinstance(shown, dict)
    assert shown["manifest"] == store.version("b:0").manifest
    assert [v["name"] for v in shown["lineage"]] == ["b:0", "a:1", "a:0"]
    assert shown["aliases"] == ["best", "latest"]
    assert shown["lineage_problem"] is None


def test_show_tells_of_a_broken_lineage_and_shows_the_rest(store: Registry):
    store.version("a:0").path.unlink()
    shown = text(store, "show", "b")
    assert "lineage broken" in shown
    assert "comes from a:0, which is missing" in " ".join(shown.split())
    broken = document(store, "show", "b")
    assert isinstance(broken, dict)
    assert "a:0, which is missing" in broken["lineage_problem"]


def test_a_long_lineage_is_shortened(store: Registry):
    for round in range(3, 12):
        store.commit({"w": np.zeros(1)}, {"run_id": "a", "round": round})
    assert "a:11 <- a:10 <- a:9 <- (7 more) <- a:1 <- a:0" in text(store, "show", "a")


def test_diff(store: Registry):
    shown = " ".join(text(store, "diff", "a:0", "champion").split())
    assert shown.startswith("a:0 -> a:1: norm of the difference 1.3 (6.5 of the parameters' own)")
    assert "client.learning_rate 0.1 0.2" in shown
    assert "accuracy 0.1 0.75" in shown
    assert "dataset" not in shown
    assert "a:0 -> a:0: the same parameters" in text(store, "diff", "a:0", "a:0")


def test_diff_json(store: Registry):
    found = document(store, "diff", "a:0", "a:1")
    assert isinstance(found, dict)
    assert found["norms"]["w"] == found["norm"] == pytest.approx(1.3)
    assert found["metrics"]["accuracy"] == [0.1, 0.75]
    assert found["config"] == {"client.learning_rate": [0.1, 0.2]}


def test_promote_and_rollback(store: Registry):
    assert text(store, "promote", "b", "--reason", "better") == "champion is now b:0, was a:1\n"
    assert text(store, "promote", "b") == "champion is b:0 already\n"
    assert store.alias_moves("champion")[-1]["reason"] == "better"
    assert store.alias_moves("champion")[-1]["by"]
    assert text(store, "promote", "a:2", "--alias", "challenger") == "challenger is now a:2, the first one\n"
    assert text(store, "rollback", "--reason", "worse") == "champion is now a:1, was b:0\n"
    assert store.version("champion").name == "a:1"
    assert store.alias_moves("champion")[-1]["reason"] == "worse"


def test_promote_and_rollback_json(store: Registry):
    b, a = store.version("b:0"), store.version("a:1")
    moved = {"alias": "champion", "name": "b:0", "hash": b.hash, "previous": "a:1"}
    assert document(store, "promote", "b") == moved
    assert document(store, "rollback") == {**moved, "name": "a:1", "hash": a.hash, "previous": "b:0"}


def test_verify(store: Registry):
    assert text(store, "verify") == f"{store.folder}: nothing is wrong\n"
    assert text(store, "verify", "champion") == "champion: nothing is wrong\n"
    assert document(store, "verify") == {"checked": str(store.folder), "problems": []}


def test_verify_names_what_is_wrong_and_ends_with_1(store: Registry):
    blob = store.folder / "blobs" / f"{store.version('a:1').model_sha256}.safetensors"
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    for arguments in (["verify"], ["verify", "a:1"]):
        result = call(store, *arguments)
        assert result.exit_code == 1
        assert "a:1" in result.stdout
        assert blob.name in result.stdout.replace("\n", "")
    assert call(store, "verify", "a:0").exit_code == 0
    assert call(store, "verify", "--json").exit_code == 1
    told = document(store, "verify")
    assert isinstance(told, dict)
    assert [(p["subject"], p["path"]) for p in told["problems"]] == [("a:1", str(blob))]


def test_verify_of_a_version_that_cannot_be_read_is_a_finding(store: Registry):
    store.version("a:2").path.write_text("{")
    result = call(store, "verify", "a:2")
    assert result.exit_code == 1
    assert "not JSON" in result.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["show", "c:3"], "version: got c:3, allowed: RUN:ROUND"),
        (["diff", "a:0", "a:9"], "version: got a:9, allowed: the rounds of a: 0 to 2"),
        (["list", "--run", "c"], "version: got c"),
        (["promote", "a", "--alias", "best"], "alias: got best, allowed: champion, challenger"),
        (["rollback"], "alias: got champion, which has been nothing but a:1"),
        (["verify", "challenger"], "challenger, which names no version yet"),
    ],
)
def test_bad_input_is_told_by_the_project_error_with_status_2(store: Registry, arguments: list[str], message: str):
    for more in ([], ["--json"]):
        result = call(store, *arguments, *more)
        assert isinstance(result.exception, BadInput)
        assert result.exception.exit_status == 2
        assert message in str(result.exception)
        assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "a"], ["diff", "a", "b"], ["promote", "a"], ["rollback"], ["verify"]]
)
def test_without_a_registry_every_command_says_how_to_get_one(tmp_path: Path, arguments: list[str], monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, MeadowError)
    assert result.exception.exit_status == 2
    expected = "--registry: got outputs/registry, allowed: a folder with versions in it; `fl simulate` makes one"
    assert str(result.exception).startswith(expected)
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


def test_the_default_registry_is_beside_the_runs(store: Registry, tmp_path: Path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    store.folder.rename(tmp_path / "outputs" / "registry")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["list", "--json"])
    assert len(json.loads(result.stdout)) == 4


def test_importing_the_commands_imports_nothing_heavy():
    heavy = "{'numpy', 'torch', 'safetensors', 'ray', 'flwr', 'hydra'}"
    code = f"import sys, experiments.versions; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
