"""`fl data profile` as it is typed."""

from __future__ import annotations

import json

import pytest

from experiments import cli

SMALL = ("synthetic", "dataset.clients=4", "dataset.dimension=3", "dataset.classes=3")


@pytest.fixture
def fl(capsys, tmp_path, monkeypatch):
    """Runs `fl data profile` in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = cli.run(["data", "profile", *arguments])
        return status, *capsys.readouterr()

    return run


def test_a_table_a_report_and_json_say_the_same(fl, tmp_path):
    status, out, _ = fl(*SMALL)
    report = tmp_path / "outputs" / "data" / "synthetic-profile.html"
    assert status == 0 and out.splitlines()[-1] == str(report)
    assert "deviation" in out and "synthetic: profile of private columns" in report.read_text()
    status, out, _ = fl(*SMALL, "--json", "--output", "p.html")
    found = json.loads(out)
    assert [c["name"] for c in found["columns"]] == ["x0", "x1", "x2", "label"]
    assert (found["clients"], found["report"]) == (4, str(tmp_path / "p.html"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "p.html"]


@pytest.mark.parametrize(
    "engine", ["forked", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(120)])]
)
def test_actors_give_the_same_numbers(fl, engine):
    here, there = (
        json.loads(fl(*SMALL, f"engine={name}", "--json", "--output", "p.html")[1]) for name in ("inprocess", engine)
    )
    assert here == there


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("mnist",), "dataset: got mnist, allowed: a table"),
        ((*SMALL, "--part", "server"), "query.part: got server, allowed: all, train, validation, test"),
        ((*SMALL, "--epsilon", "0"), "epsilon: got 0.0, allowed: a number above 0"),
        ((*SMALL, "--epsilon", "1", "server=random"), "--epsilon: got bounds from 0 public examples"),
        ((*SMALL, "--output", "p.pdf"), "--output: got p.pdf, allowed: a file name that ends in .html"),
        ((*SMALL, "--at-least", "0"), "at_least: got 0, allowed: a whole number from 1"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(fl, tmp_path, arguments, message):
    status, _, err = fl(*arguments)
    assert status == 2 and message in err
    assert list(tmp_path.iterdir()) == []
