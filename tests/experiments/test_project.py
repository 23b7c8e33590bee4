"""`fl new`: a project that is there whole, whose own tests pass, and that never overwrites anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli
from fl import faults


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_project_has_its_folders(capsys):
    assert cli.run(["new", "demo"]) == 0
    assert capsys.readouterr().out.strip() == str(Path.cwd() / "demo")
    folders = ("data/raw", "data/interim", "data/processed", "notebooks", "pipelines", "docs", "tests")
    assert all(any(Path("demo", folder).iterdir()) for folder in (*folders, ".github/ISSUE_TEMPLATE"))
    assert Path("demo/README.md").read_text().startswith("# demo\n")
    assert os.access("demo/pipelines/lifecycle.sh", os.X_OK)
    assert [path.name for path in Path().iterdir()] == ["demo"]


@pytest.mark.parametrize(
    "name, allowed",
    [
        ("there", "a folder that is not there yet"),
        ("no/where", "a folder in one that exists"),
        ("-x y", "letters"),
    ],
)
def test_what_cannot_be_a_project_is_told(capsys, name, allowed):
    Path("there").mkdir()
    assert cli.run(["new", "--", name]) == 2
    err = capsys.readouterr().err
    assert f"PROJECT: got {name}" in err and allowed in err
    assert [path.name for path in Path().rglob("*")] == ["there"]


def test_a_full_disk_leaves_nothing_half_made(monkeypatch, capsys):
    faults.arm("project.written=ENOSPC")
    try:
        assert cli.run(["new", "demo"]) == 3
    finally:
        faults.arm(None)
    assert "demo could not be written" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_the_tests_of_a_new_project_pass():
    assert cli.run(["new", "demo"]) == 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd="demo", env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert {path.name for path in Path("demo/data/processed").iterdir()} == {".gitkeep"}
