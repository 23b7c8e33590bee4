"""A bit that flips while nobody looks is found by whoever reads the file next, and named; nothing is made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import run as runs
from experiments.cli import run as fl
from experiments.run import resume, simulate
from fl.errors import CorruptFile
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]


def flip(path: Path, *, last: int = 1) -> None:
    """Turn a bit of the ``last``-but-so-many byte."""
    content = bytearray(path.read_bytes())
    content[-last] ^= 1
    path.write_bytes(content)


@pytest.fixture
def flipped_after_preparing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on a file of a run's data goes bad right after it was written, before anything is started."""

    def flipped(name: str) -> None:
        prepare = runs.prepare_data

        def preparing(config: Any, dataset: Any, *, centre: Path, **more: Any) -> Any:
            prepared = prepare(config, dataset, centre=centre, **more)
            flip(centre.parent / name)
            return prepared

        monkeypatch.setattr(runs, "prepare_data", preparing)

    return flipped


ENGINES = ["inprocess", "forked", pytest.param("ray", marks=(pytest.mark.slow, pytest.mark.ray))]


@pytest.mark.parametrize("engine", ENGINES)
def test_private_examples_that_go_bad_before_the_run_starts_are_not_trained_on(
    engine: str,
    settings: Settings,
    told: Told,
    flipped_after_preparing: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = simulate(settings(name="whole"))
    flipped_after_preparing("devices/partitions/x.npy")
    config = settings(f"engine={engine}", "engine.num_actors=1", name="bad")
    with pytest.raises(CorruptFile, match=r"partitions/x\.npy: its bytes are not those that were written"):
        simulate(config)
    monkeypatch.undo()
    assert told(resume(Path(config["run_dir"]))) == told(whole)


@pytest.mark.parametrize("name", ["centre/test_y.npy", "centre/public_x.npy", "centre/centre.json"])
def test_the_servers_part_that_goes_bad_is_not_measured_on(
    name: str, settings: Settings, flipped_after_preparing: Callable[[str], None]
) -> None:
    flipped_after_preparing(name)
    with pytest.raises(CorruptFile, match=name):
        simulate(settings())
    assert not (Path(settings()["run_dir"]) / "metrics.jsonl").exists()


@pytest.fixture
def done(settings: Settings) -> Path:
    return simulate(settings(name="done"))


@pytest.mark.parametrize("name", ["devices/partitions/y.npy", "devices/partitions/store.json", "centre/test_x.npy"])
def test_a_round_is_not_played_again_from_what_has_gone_bad(
    name: str, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(done / name, last=3)
    assert fl(["replay", str(done), "--round", "1"]) == 1
    assert str(done / name) in capsys.readouterr().err


def parts(run: Path) -> dict[str, Path]:
    """Files that a version rests on."""
    registry, last = run.parent / "registry", read_json(run / "summary.json")["model_sha256"]
    return {
        "manifest": registry / "versions" / run.name / "000002.json",
        "parameters": registry / "blobs" / f"{last}.safetensors",
        "examples": next((registry / "runs").glob("*.safetensors")),
        "log": next((registry / "versions" / run.name).glob("*log*")),
    }


def changed(path: Path) -> None:
    """A digit of its metrics, where it is a text that still reads well; else a bit."""
    content = path.read_bytes()
    found = content.find(b'"accuracy": 0.')
    if path.suffix == ".json" and found >= 0:
        place = found + len(b'"accuracy": 0.') + 1
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        flip(path, last=40)


COMMANDS = {
    "export": (["export", "{run}:2", "--format", "safetensors", "--output", "{run}-out"], ("manifest", "parameters")),
    "export, to compare with": (["export", "{run}:1", "--format", "pt2", "--output", "{run}-out"], ("examples",)),
    "show": (["versions", "show", "{run}:2"], ("manifest", "log")),
    "show the latest": (["versions", "show", "{run}:latest"], ("manifest",)),
    "show the best": (["versions", "show", "{run}:best"], ("manifest",)),
    "list": (["versions", "list"], ("manifest", "log")),
    "diff": (["versions", "diff", "{run}:1", "{run}:2"], ("manifest", "parameters")),
    "promote": (["versions", "promote", "{run}:2", "--reason", "better"], ("manifest",)),
    "verify": (["versions", "verify", "{run}:2"], ("manifest", "parameters")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_makes_anything_of_a_version_that_has_gone_bad(
    command: str, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, names = COMMANDS[command]
    typed = [word.format(run=done) for word in words] + ["--registry", str(done.parent / "registry")]
    for name in names:
        path = parts(done)[name]
        whole = path.read_bytes()
        changed(path)
        capsys.readouterr()
        assert fl(typed) == 1, f"{name} was taken for sound"
        said = capsys.readouterr()
        assert str(path) in said.err + said.out
        path.write_bytes(whole)
    assert not list(done.parent.glob(f"{done.name}-out/*"))
