"""The command `fl` itself: what it shows, how fast, how it ends, and what is on which stream."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.shell_completion import ShellComplete

from conf.schema import Simulate
from experiments import cli
from experiments.choices import GROUPS, choices, meanings
from experiments.simulate import Job, simulate, sweep, varied, worst
from fl.errors import Interrupted, MeadowError, StoppedByFaults

FL = Path(sys.executable).with_name("fl")
SMALL = ["dataset=synthetic", "dataset.clients=4", "num_rounds=1", "engine=inprocess", "server.tensorboard=false"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fl(capsys):
    """Runs a command line in this process: exit status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(list(arguments))
        return status, *capsys.readouterr()

    return run


# Help


def test_help_shows_what_makes_a_run_first(fl):
    status, out, _ = fl("--help")
    assert status == 0
    first, around = out.index("Commands"), out.index("Around the rounds")
    order = [out.index(f" {name} ") for name in ("simulate", "resume", "versions", "export")]
    assert first < order[0] < order[1] < order[2] < order[3] < around < out.index(" data ")


def test_help_answers_at_once():
    """The console script itself, by the processor's clock: the wall's says how busy the machine is."""
    used = []
    for _ in range(3):  # the first may have to compile
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([FL, "--help"], capture_output=True, text=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "simulate" in done.stdout
    assert min(used) < 0.5  # about 0.2 s where nothing else runs


def test_nothing_heavy_is_imported_for_help():
    code = (
        "import sys, experiments.cli; experiments.cli.run(['--help']); experiments.cli.run(['simulate', '--help']); "
        "print(sorted({'torch', 'flwr', 'hydra', 'omegaconf', 'numpy', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_of_simulate_lists_groups_choices_and_settings(fl, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = fl("simulate", "--help")
    assert status == 0
    for group in GROUPS:
        assert group in out
        for name in choices(group):
            assert name in out
    for key in ("num_clients", "cohort_size", "client.learning_rate", "--multirun", "--cfg"):
        assert key in out
    assert meanings(Simulate)["num_rounds"] in out


def test_version(fl):
    from importlib.metadata import version

    assert fl("--version") == (0, f"meadow-fl {version('meadow-fl')}\n", "")


def test_without_a_command_help_is_shown(fl):
    status, out, err = fl()
    assert status == 2 and "simulate" in out + err


# Completion


def completed(*words: str) -> list[str]:
    *before, incomplete = words
    shell = ShellComplete(cli.command(), {}, "fl", "_FL_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["simulate", "dataset=mn"], ["dataset=mnist"]),
        (["simulate", "dataset", "=", "mn"], ["mnist"]),  # as bash cuts it
        (["simulate", "engine", "="], ["auto", "forked", "inprocess", "ray"]),
        (["simulate", "client.l"], ["client.local_epochs=", "client.local_steps=", "client.learning_rate="]),
        (["simulate", "dataset=csv", "dataset.l"], ["dataset.label="]),
        (["simulate", "dataset", "=", "csv", "dataset.l"], ["dataset.label="]),
        (["simulate", "strategy=fedavg,fedm"], ["strategy=fedavg,fedmedian"]),
        (["simulate", "num_r"], ["num_rounds="]),
        (["data", "show", "partition=na"], ["partition=natural"]),
        (["simulate", "zebra="], []),
    ],
    ids=" ".join,
)
def test_overrides_are_completed(words, expected):
    assert completed(*words) == expected


# What a run leaves on stdout, stderr and disk


def test_a_run_ends_with_its_folder(fl):
    status, out, _ = fl("simulate", *SMALL, "run_dir=my run")
    folder = Path.cwd() / "my run"
    assert (status, out.splitlines()[-1]) == (0, str(folder))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["dataset"]["name"] == "synthetic" and config["run_dir"] == str(folder)
    assert {path.name for path in Path().iterdir()} == {"my run", "outputs"}  # nothing of Hydra's
    assert {path.name for path in Path("outputs").iterdir()} == {"registry"}

    status, out, _ = fl("resume", str(folder))
    assert (status, out.splitlines()[-1]) == (0, str(folder))


def test_settings_are_printed_and_nothing_runs(fl):
    status, out, _ = fl("simulate", "dataset=heart_disease", "seed=7", "--cfg", "job")
    printed = yaml.safe_load(out)
    assert status == 0 and printed["seed"] == 7 and printed["model"]["_target_"] == "fl.models.table_mlp.build"
    assert "hydra" not in printed and not list(Path().iterdir())
    status, out, _ = fl("simulate", "--cfg", "job", "--package", "client.schedule")
    assert "name: cosine" in out and "learning_rate" not in out


def test_a_folder_of_ones_own_adds_choices(fl):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/tiny.yaml").write_text("# @package _global_\nnum_rounds: 2\n")
    status, out, _ = fl("simulate", "--config-dir", "mine", "experiment=tiny", "--cfg", "job")
    assert status == 0 and yaml.safe_load(out)["num_rounds"] == 2


@pytest.mark.parametrize(
    "error, status, said",
    [
        (
            StoppedByFaults(round=3, asked=10, answered=1, reasons=["lost"]),
            3,
            "error: round 3: 1 of 10 clients answered",
        ),
        (Interrupted(signal="SIGTERM"), 130, "interrupted: stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "interrupted: "),
        (MeadowError(what="broken"), 1, "error: what=broken"),
    ],
    ids=["faults", "signal", "keyboard", "other"],
)
def test_exit_status_says_how_it_ended(fl, monkeypatch, error, status, said):
    def ends(settings):
        raise error

    monkeypatch.setattr("experiments.run.simulate", ends)
    ended, out, err = fl("simulate", "dataset=synthetic")
    assert (ended, out) == (status, "")
    assert err.strip().startswith(said) and "Traceback" not in err


@pytest.mark.parametrize("error", [Interrupted(signal="SIGINT"), KeyboardInterrupt()], ids=["signal", "keyboard"])
def test_a_run_cut_short_before_its_rounds_says_how_to_go_on(fl, monkeypatch, error):
    def ends(settings):
        Path(settings["run_dir"]).mkdir()
        Path(settings["run_dir"], "config.yaml").write_text("")
        raise error

    monkeypatch.setattr("experiments.run.simulate", ends)
    status, _, err = fl("simulate", "dataset=synthetic", "run_dir=a run")
    assert status == 130 and f"go on with: fl resume '{Path.cwd() / 'a run'}'" in err


def test_a_fault_of_the_program_keeps_its_traceback():
    def broken(settings):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        simulate(["dataset=synthetic"], run=broken)
    assert caught.traceback[-1].name == "broken"


# Multirun


def recording(folders: list[Path], *, fails: dict[int, MeadowError] | None = None):
    """A run that writes what a run writes, and fails where it is told to."""

    def run(settings):
        number = len(folders)
        folder = Path(settings["run_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        folders.append(folder)
        (folder / "summary.json").write_text(json.dumps({"status": "finished", "final": {"seed": settings["seed"]}}))
        if fails and number in fails:
            raise fails[number]
        return folder

    return run


def test_jobs_have_folders_of_their_own_in_order():
    folders: list[Path] = []
    folder, jobs = sweep(["seed=5,6", "partition=iid,shards", "run_dir=all"], run=recording(folders))
    assert folder == Path.cwd() / "all"
    assert folders == [folder / str(number) for number in range(4)] == [job.folder for job in jobs]
    assert [json.loads((f / "summary.json").read_text())["final"]["seed"] for f in folders] == [5, 5, 6, 6]
    assert varied(jobs) == [f"seed={s} partition={p}" for s in (5, 6) for p in ("iid", "shards")]
    assert {path.name for path in folder.iterdir()} == {"0", "1", "2", "3", "multirun.yaml"}


def test_without_a_folder_a_multirun_makes_one():
    folder, _ = sweep(["seed=1,2"], run=recording([]))
    assert folder.parent == Path.cwd() / "outputs/multirun"


def test_a_job_that_fails_does_not_stop_the_others():
    folders: list[Path] = []
    faults = StoppedByFaults(round=1, asked=2, answered=0)
    _, jobs = sweep(["seed=1,2,3"], run=recording(folders, fails={1: faults}))
    assert len(folders) == 3
    assert [job.error for job in jobs] == [None, faults, None] and worst(jobs) is faults


def test_an_interrupt_stops_them_all():
    folders: list[Path] = []
    stop = Interrupted(signal="SIGINT")
    _, jobs = sweep(["seed=1,2,3"], run=recording(folders, fails={1: stop}))
    assert len(folders) == 2 and worst(jobs) is stop


def test_the_worst_error_decides():
    faults, stop = StoppedByFaults(round=1, asked=2, answered=0), Interrupted(signal="SIGINT")
    jobs = [Job(number, [], Path(), error) for number, error in enumerate((None, faults, stop))]
    assert worst(jobs) is stop and worst(jobs[:2]) is faults and worst(jobs[:1]) is None


def test_a_real_multirun_prints_a_table_and_its_folder(fl):
    status, out, err = fl("simulate", "-m", *SMALL, "seed=1,2", "run_dir=both")
    assert (status, out.splitlines()[-1]) == (0, str(Path.cwd() / "both"))
    rows = [line.split() for line in err.splitlines()[-2:]]
    assert [row[:3] for row in rows] == [["0", "seed=1", "finished"], ["1", "seed=2", "finished"]]


# Export and data


def test_export_proves_each_file(fl):
    fl("simulate", *SMALL, "run_dir=run")
    status, out, _ = fl("export", "champion", "--format", "safetensors", "--output", "files", "--json")
    (file,) = json.loads(out)
    assert status == 0 and file["format"] == "safetensors" and file["largest_difference"] == 0.0
    assert Path(file["path"]).is_file() and Path(file["path"]).parent == Path.cwd() / "files"
    status, out, _ = fl("export", "run:best", "--format", "safetensors", "--output", "files")
    assert status == 0 and "largest difference" in out and "safetensors" in out.splitlines()[-1]
    assert "to load" not in out and file["load_seconds"] is file["row_seconds"] is None


def test_export_measures_readers_when_asked(fl):
    fl("simulate", *SMALL, "run_dir=run")
    status, out, _ = fl("export", "champion", "--format", "safetensors,whl", "--measure", "--output", "files")
    assert status == 0 and out.splitlines()[0].split()[-4:] == ["to", "load", "a", "row"]
    assert re.search(r"whl .* [0-9.e+-]+ s +[0-9.e+-]+ ms", out)
    assert "seconds" not in "".join(path.read_text() for path in Path("files").glob("*.json"))


def test_data_show_describes_and_draws(fl):
    status, out, _ = fl("data", "show", "synthetic", "dataset.clients=4", "--output", "bars.png", "--json")
    facts = json.loads(out)
    assert status == 0 and (facts["num_clients"], facts["task"], facts["partition"]) == (4, "classification", "natural")
    assert facts["picture"] == str(Path.cwd() / "bars.png")
    assert Path("bars.png").read_bytes().startswith(b"\x89PNG") and len(list(Path().iterdir())) == 1
    status, out, _ = fl("data", "show", "dataset=synthetic", "dataset.clients=4")
    assert "num clients" in out and "outputs/data/synthetic-natural.png" in out


def test_data_list_names_every_data_set(fl):
    assert set(json.loads(fl("data", "list", "--json")[1])) == set(choices("dataset"))


# Signals


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_130_and_a_way_on(number):
    command = [str(FL), "simulate", "engine=inprocess", "num_rounds=10000", "run_dir=run", "server.seeding=random"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not (Path("run/metrics.jsonl").exists() or process.poll() is not None):
            time.sleep(0.2)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert f"interrupted: stopped by {number.name}" in err and "fl resume" in err and "Traceback" not in err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
