"""Disks that fail, and files that change: a clean stop that names the file, nothing false used, and the same end."""

import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run as fl
from experiments.config_file import read_config, write_config
from experiments.doctor import examine
from experiments.run import resume, simulate
from fl import faults
from fl.errors import BadInput, CorruptFile, StorageFailed
from fl.files import read_json

Settings = Callable[..., dict[str, Any]]
Told = Callable[[Path], list[dict[str, Any]]]
Driver = Callable[..., dict[str, Any]]
Same = Callable[[Path, Path], None]
Write = Callable[[dict[str, Any]], str]

# Every site is reached: states of the algorithm on both sides, of Flower's own strategies, devices' own models.
CASES = {
    "scaffold": ("algorithm=scaffold", "client.personal=true", "server.tensorboard=true"),
    "fedyogi": ("strategy=fedyogi", "server.tensorboard=true"),
}
ELSEWHERE = {
    *("export", "registry.log.rewritten", "intake", "intake.about", "stage.folder", "stage.evidence", "stage.record"),
    *("stage.decision", "registry.evidence", "registry.dataset", "project", "report", "bundle", "registry.release"),
    *("registry.release.state", "registry.release.decisions", "registry.release.request", "registry.release.end"),
    *("asked", "answers"),
}
"""Sites that no simulation writes to unless something is damaged."""
POINTS = [point for point in faults.POINTS if point.rpartition(".")[0] not in ELSEWHERE]
ONCE = {
    *("config", "run", "partitions", "partitions.about", "centre", "centre.about", "prepared", "registry.run"),
    *("registry.examples", "registry.aliases", "metrics.rewritten", "events.rewritten", "personal", "summary"),
}
QUICK = {
    *("config.renamed", "partitions.renamed", "centre.written", "prepared.begin", "registry.run.done"),
    *("registry.blob.renamed", "registry.log.written", "registry.manifest.begin", "registry.manifest.renamed"),
    *("strategy_state.renamed", "client_state.written", "metrics.begin", "events.written", "summary.begin"),
}
ERRORS = sorted(faults.ERRORS)


def quick(points: list[str]) -> list[Any]:
    return [pytest.param(point, marks=() if point in QUICK else pytest.mark.slow) for point in points]


def when(point: str) -> str:
    """A fault at the third round's write, for what is written every round.

    Rounds that are quick are committed together, and that is done once: it may be once after the initial version.
    """
    site, _, stage = point.rpartition(".")
    if site in ONCE or point == "strategy_state.done":
        return point
    return f"{point}#{2 if stage == 'done' else 3}"


@pytest.fixture(scope="module")
def wholes() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(wholes: dict[str, Path], alone: Settings, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a case that nothing happened to, once."""

    def whole(case: str) -> Path:
        if case not in wholes:
            folder = tmp_path_factory.mktemp("whole") / "whole"
            config = {**alone(*CASES[case], "num_rounds=4", name="whole")}
            simulate({**config, "run_dir": str(folder), "registry_dir": f"{folder}-registry"})
            wholes[case] = folder
        return wholes[case]

    return whole


def go_on(config: dict[str, Any]) -> None:
    """As a user would: resume, or start again where not even the settings were written."""
    try:
        resume(Path(config["run_dir"]))
    except BadInput:
        simulate(config)


def case_of(point: str) -> str:
    return "fedyogi" if point.startswith("strategy_state") else "scaffold"


@pytest.mark.parametrize("point", quick(POINTS))
def test_killed_at_a_fault_point_a_run_goes_on_to_the_same_bits(
    point: str, driver: Driver, alone: Settings, same: Same, write: Write, whole: Callable[[str], Path]
) -> None:
    case = case_of(point)
    config = alone(*CASES[case], "num_rounds=4", name="killed")
    assert driver(settings=write(config), fault=f"{when(point)}=kill")["status"] == -signal.SIGKILL
    go_on(config)
    same(Path(config["run_dir"]), whole(case))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(50))
def test_killed_at_any_time_a_run_goes_on_to_the_same_bits(
    number: int, driver: Driver, alone: Settings, same: Same, write: Write, whole: Callable[[str], Path]
) -> None:
    case = sorted(CASES)[number % 2]
    config = alone(*CASES[case], "num_rounds=4", name="killed")
    after = random.Random(number).uniform(0.02, 1.5)
    assert driver(settings=write(config), kill_after=after)["status"] in (-signal.SIGKILL, 0)
    go_on(config)
    same(Path(config["run_dir"]), whole(case))


WRITES = [point for point in POINTS if point.endswith((".begin", ".written"))]


@pytest.mark.parametrize("point", quick(WRITES))
def test_a_write_that_fails_stops_the_run_and_it_goes_on_when_the_disk_does(
    point: str, driver: Driver, alone: Settings, same: Same, write: Write, whole: Callable[[str], Path]
) -> None:
    case, error = case_of(point), ERRORS[POINTS.index(point) % len(ERRORS)]
    config = alone(*CASES[case], "num_rounds=4", name="failed")
    done = driver(settings=write(config), fault=f"{when(point)}={error}")
    assert done["status"] == 3 and done["seconds"] < 10
    go_on(config)
    same(Path(config["run_dir"]), whole(case))


def test_a_failing_disk_is_named(alone: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    config = alone(name="failed")
    try:
        faults.arm("registry.manifest.begin#2=EROFS")
        with pytest.raises(StorageFailed, match=r"000001\.json could not be written: Read-only file system"):
            simulate(config)
        faults.arm("registry.manifest.begin=EROFS")
        assert fl(["resume", config["run_dir"]]) == 3  # the command says the same
    finally:
        faults.arm(None)
    assert "000001.json could not be written: Read-only file system" in capsys.readouterr().err
    assert read_json(Path(config["run_dir"]) / "run.json")["run_id"] == "failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(small_disk: Path, driver: Driver, settings: Settings, write: Write, told: Told) -> None:
    whole = settings("num_rounds=150", name="whole")
    simulate({**whole, "registry_dir": f"{whole['run_dir']}-registry"})
    config = {**settings("num_rounds=150", name="full"), "registry_dir": str(small_disk / "registry")}
    assert driver(settings=write(config))["status"] == 3
    assert not list(examine(Path(config["run_dir"])))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resume(Path(config["run_dir"]))
    assert told(Path(config["run_dir"])) == told(Path(whole["run_dir"]))


def test_a_registry_that_turns_read_only(small_disk: Path, driver: Driver, settings: Settings, write: Write) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    config = {**settings(name="first"), "registry_dir": str(small_disk / "registry")}
    simulate(config)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    second = {**settings(name="second"), "registry_dir": str(small_disk / "registry")}
    assert driver(settings=write(second))["status"] in (2, 3)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    go_on(second)


OUTSIDE = ("tensorboard", "partition.png", ".lock", "personal.jsonl", "metrics.jsonl", "000003.safetensors")
"""Not held against a hash: TensorBoard's files have their own, others are made again from the manifests, and what the
third round left before it was cut short is written anew.
"""


@pytest.fixture(scope="module")
def halfway() -> dict[str, tuple[Path, Path]]:
    return {}


@pytest.fixture
def damaged(
    halfway: dict[str, tuple[Path, Path]],
    alone: Settings,
    driver: Driver,
    write: Write,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Path]:
    """A copy of a run that died in its third round of four, and of its registry."""

    def damaged() -> Path:
        if not halfway:
            base = tmp_path_factory.mktemp("halfway")
            config = {
                **alone(*CASES["scaffold"], "num_rounds=4", name="whole"),
                "run_dir": str(base / "whole"),
                "registry_dir": str(base / "whole-registry"),
            }
            third = "registry.blob.begin#4=kill"  # versions 0, 1 and 2 are there
            assert driver(settings=write(config), fault=third)["status"] == -signal.SIGKILL
            halfway["run"] = (base / "whole", base / "whole-registry")
        run, registry = halfway["run"]
        for source in (run, registry):
            shutil.rmtree(source.parent / "work" / source.name, ignore_errors=True)
            shutil.copytree(source, source.parent / "work" / source.name)
        work = run.parent / "work"
        write_config(work / "whole", {**read_config(run), "registry_dir": str(work / "whole-registry")})
        return work / "whole"

    return damaged


def files_of(run: Path) -> list[Path]:
    found = [*run.rglob("*"), *run.with_name("whole-registry").rglob("*")]
    return sorted(p for p in found if p.is_file() and p.stat().st_size and not set(p.parts[-3:]) & set(OUTSIDE))


def is_noticed_and_never_used(run: Path, path: Path, whole: Path, told: Told) -> None:
    noticed = [error.path for error in examine(run)]
    assert noticed, f"nothing was noticed of {path.name}"
    named: list[str] = []
    try:
        resume(run)
    except CorruptFile as error:
        named.append(Path(error.path).name)
    if named:
        assert named == [path.name]
        return
    assert told(run) == told(whole)
    assert read_json(run / "summary.json")["model_sha256"] == read_json(whole / "summary.json")["model_sha256"]


@pytest.mark.parametrize("number", range(20))
def test_a_flipped_bit_is_noticed_and_never_used(
    number: int, damaged: Callable[[], Path], whole: Callable[[str], Path], told: Told
) -> None:
    run, chance = damaged(), random.Random(number)
    path = chance.choice(files_of(run))
    flip_a_bit(path, chance)
    is_noticed_and_never_used(run, path, whole("scaffold"), told)


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files need not be synced, where the machine has such a place: only what is in them matters."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="meadow-flips-", dir=place if place.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_after_each_of_a_thousand_flipped_bits_a_run_goes_on_to_the_same_bits(
    in_memory: Path, settings: Settings, driver: Driver, write: Write, told: Told
) -> None:
    """Every file is hit, those that no hash is kept of too: these are made again, or nothing depends on them."""
    config, started = settings(*CASES["scaffold"], "num_rounds=3"), in_memory / "started" / "run"
    whole = simulate({**config, "run_dir": str(in_memory / "whole"), "registry_dir": str(in_memory / "whole-registry")})
    config = {**config, "run_dir": str(started), "registry_dir": str(started.with_name("whole-registry"))}
    started.parent.mkdir()
    assert driver(settings=write(config), fault="registry.blob.begin#4=kill")["status"] == -signal.SIGKILL
    run, chance, expected = in_memory / "work" / "run", random.Random(7), told(whole)
    for number in range(1000):
        shutil.rmtree(run.parent, ignore_errors=True)
        shutil.copytree(started.parent, run.parent)
        write_config(run, {**read_config(run), "registry_dir": str(run.with_name("whole-registry"))})
        hashed = files_of(run)
        path = chance.choice([p for p in run.parent.rglob("*") if p.is_file() and p.stat().st_size])
        flip_a_bit(path, chance)
        what = f"flip {number}, of {path.relative_to(run.parent)}"
        assert path not in hashed or list(examine(run)), f"nothing was noticed: {what}"
        named = ""
        try:
            resume(run)
        except CorruptFile as error:
            named = Path(error.path).name
        assert named in ("", path.name), what
        if not named:
            assert told(run) == expected, what
            assert read_json(run / "summary.json")["model_sha256"] == expected[-1]["model_sha256"], what


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_truncated_file_is_noticed_and_never_used(
    damaged: Callable[[], Path], whole: Callable[[str], Path], told: Told
) -> None:
    names = [path.relative_to(damaged().parent) for path in files_of(damaged())]
    for name in names:
        size = (damaged().parent / name).stat().st_size
        for length in {*range(0, size, 4096), size // 2, size - 1}:
            run = damaged()
            path = run.parent / name
            path.write_bytes(path.read_bytes()[:length])
            is_noticed_and_never_used(run, path, whole("scaffold"), told)
