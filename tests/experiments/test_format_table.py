"""`fl formats`: every format of a version measured by its own reader, or refused with the reason."""

import json

import pytest

from experiments import cli
from experiments.compose import compose
from experiments.format_table import table
from experiments.run import simulate

SMALL = ("dataset=synthetic", "dataset.clients=3", "dataset.dimension=6", "dataset.classes=3", "engine=inprocess")


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("formats")
    for name, model in (("one", "softmax"), ("other", "mlp")):
        given = [f"model={model}", "num_rounds=1", "server.tensorboard=false", f"run_dir={folder / name}"]
        simulate(compose([*SMALL, *given, f"registry_dir={folder / 'registry'}"]))
    return str(folder / "registry")


def test_a_cell_for_each_version_and_format(registry, capsys):
    words = ["formats", "Linear=one:best", "other:best", "--format", "safetensors,pt2", "--registry", registry]
    assert cli.run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | Linear | other:best |" and lines[2].startswith("| `safetensors` | ")
    assert all(len(cell.split(", ")) == 4 for line in lines[2:] for cell in line.split(" | ")[1:])
    assert cli.run([*words, "--json", "--show", "bytes,score"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["format"]) for row in rows] == [
        *(("Linear", "safetensors"), ("Linear", "pt2"), ("other:best", "safetensors"), ("other:best", "pt2"))
    ]
    for row in rows:
        assert row["bytes"] > 100 and row["load"] > 0 and row["difference"] <= row["tolerance"]
        assert row["metric"] == "accuracy" and 0.3 < row["score"] <= 1
    assert rows[0]["score"] == rows[1]["score"]


def test_what_is_refused_is_told_once_with_its_reason():
    figures = {"bytes": 1234567, "load": 0.0123, "row": 4.56e-6, "difference": 3.2e-7, "score": 0.93701}
    rows = [
        {"model": "a", "format": "pmml", "refused": "layer '0', Conv2d"},
        {"model": "b", "format": "pmml", **figures},
        {"model": "a", "format": "pfa", "refused": "layer '0', Conv2d"},
        {"model": "b", "format": "pfa", **figures, "difference": 0.0},
    ]
    assert table(rows, shown=["bytes", "load", "row", "difference", "score"]).splitlines() == [
        "| | a | b |",
        "|---|---|---|",
        "| `pmml` | refused (1) | 1.23 MB, 12 ms, 4.6 µs, 3e-7, .9370 |",
        "| `pfa` | refused (1) | 1.23 MB, 12 ms, 4.6 µs, 0, .9370 |",
        "",
        "1. layer '0', Conv2d",
    ]


@pytest.mark.parametrize(
    "words, told",
    [
        (["one:best", "--format", "tflite"], "--format: got tflite"),
        (["one:best", "--show", "colour"], "--show: got colour, allowed: bytes, load, row, difference, score"),
        (["a=one:best", "a=other:best"], "VERSION: got a=other:best"),
        (["nothing"], "version: got nothing"),
    ],
)
def test_bad_input(registry, capsys, words, told):
    assert cli.run(["formats", *words, "--registry", registry]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_format_that_cannot_express_a_model_says_which_layer(tmp_path, capsys):
    given = ["dataset=mnist", "model=cnn", "num_rounds=1", "num_clients=100", "cohort_size=2", "engine=inprocess"]
    given += ["model.channels=[2,2]", "model.hidden=4", "server.seeding=random"]
    simulate(compose([*given, f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'registry'}"]))
    assert cli.run(["formats", "run:best", "--format", "pfa", "--registry", str(tmp_path / "registry")]) == 0
    out = capsys.readouterr().out
    assert "refused (1)" in out and "Convolution" in out.splitlines()[-1]
