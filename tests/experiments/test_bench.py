"""`fl bench`: the same work for everybody, fair measuring, and figures that say what was measured."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from experiments import cli
from experiments.bench import report as reports
from experiments.bench import run as running
from experiments.bench.arrays import module_of, signature_of, start_of, train_loss, write_data, write_start
from experiments.bench.drivers import networks, record
from experiments.bench.measure import Row, disagreement, measure
from experiments.bench.process import Ran, run
from experiments.bench.report import Report
from experiments.bench.settings import Bench, Settings, read
from experiments.bench.systems import PACKAGE, Place, System, added_up, copy_drivers, floors, flower, our_flower, ours
from experiments.bench.targets import verdicts
from experiments.bench.workloads import ADDED_UP, OVERHEAD, SCALE, SHAPES, Workload, over_cores
from experiments.compose import compose
from experiments.rules import check
from fl.data.arrays import from_arrays
from fl.errors import BadInput
from fl.models.arrays import to_inputs, to_targets
from fl.models.tasks import loss

TINY = Workload("tiny", "softmax", clients=4, examples=6, cohort=2, rounds=3, batch_size=4, learning_rate=0.005)
ONE_A_MODEL = {workload.model: workload for workload in (*OVERHEAD, *SHAPES)}


def small(workload: Workload) -> Workload:
    return replace(workload, clients=3, examples=2, cohort=2, rounds=3)


@pytest.fixture
def place(tmp_path) -> Place:
    place = Place(tmp_path / "here", tmp_path / "data.npz", tmp_path / "start.npz", tmp_path)
    place.folder.mkdir()
    return place


# The same work


@pytest.mark.parametrize("model", sorted(ONE_A_MODEL))
def test_every_class_and_token_is_in_the_data_however_few_they_are(model, place):
    workload = small(ONE_A_MODEL[model])
    write_data(workload, place.data)
    with np.load(place.data) as held:
        arrays = {name: held[name] for name in held.files}
    task = "next_token" if model == "lstm" else "classification"
    made = from_arrays(arrays, name="npz", source="here", task=task)
    assert replace(made.signature, class_names=()) == signature_of(workload)
    assert np.bincount(arrays["client"]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("model", sorted(networks.NETWORKS))
def test_the_drivers_models_are_ours(model, place):
    """Same names, and the same loss bit for bit from the same parameters on the same examples."""
    workload = small(ONE_A_MODEL[model])
    write_data(workload, place.data)
    task = tiny_task(place, workload)
    write_start(place.start, start_of(workload))
    x, y = record.examples(task)
    assert x.shape[:2] == (3, 2)
    module, mine = networks.build(model, record.start(task)), module_of(workload)
    assert list(networks.parameters_of(module)) == list(start_of(workload))
    signature = signature_of(workload)
    inputs, targets = to_inputs(x[1], signature), to_targets(y[1], signature)
    theirs = networks.loss(module(torch.from_numpy(x[1])), torch.from_numpy(y[1]))
    assert torch.allclose(theirs, loss(signature, mine(inputs), targets), rtol=1e-6)


def tiny_task(place: Place, workload: Workload = TINY) -> record.Task:
    return record.Task(
        data=str(place.data),
        start=str(place.start),
        output=str(place.output),
        model=workload.model,
        clients=workload.clients,
        cohort=workload.cohort,
        rounds=workload.rounds,
        batch_size=workload.batch_size,
        epochs=1,
        learning_rate=0.1,
        processes=1,
        seed=1,
    )


@pytest.mark.parametrize(
    "engine, workload",
    [
        *(("auto", small(workload)) for workload in ONE_A_MODEL.values()),
        *(("ray", workload) for workload in SCALE[::3]),
        ("inprocess", SHAPES[0]),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_fl_simulate_is_given_composes(engine, workload, place):
    place.data.touch()
    settings = compose(ours(engine).command(workload, place)[4:])
    check(settings)
    assert settings["engine"]["name"] == engine
    assert settings["num_rounds"] == workload.rounds and settings["cohort_size"] == workload.cohort
    assert settings["client"]["optimizer"] == "sgd" and settings["client"]["schedule"]["name"] == "constant"
    assert settings["server"]["tensorboard"] and settings["server"]["seeding"] == "random"
    assert settings["evaluate_every"] is settings["evaluate_clients_every"] is None


def test_ours_starts_from_the_parameters_that_the_others_get_and_trains_on_all_examples(place):
    from experiments.run import simulate
    from fl.data.store import open_store
    from fl.registry import Registry

    write_data(TINY, place.data)
    system = ours("inprocess")
    run_dir = simulate(compose(system.command(TINY, place)[4:]))
    registry = Registry(place.registry)
    first = registry.parameters(registry.versions()[0])
    start = start_of(TINY)
    assert list(first) == list(start) and all(np.array_equal(first[name], start[name]) for name in start)
    assert open_store(run_dir / "devices" / "partitions").num_train(1) == TINY.examples
    left = system.read(place)
    assert len(left.round_seconds) == TINY.rounds - 1 and min(left.round_seconds) > 0
    assert 0 < time.time() - left.first_ended < 100
    assert train_loss(TINY, place.data, dict(left.parameters)) < train_loss(TINY, place.data, start)
    assert left.facts["engine"] == "inprocess" and left.facts["seconds"]["setup"] > 0


def test_the_copied_drivers_are_all_of_ours_that_a_peer_finds(tmp_path):
    folder = copy_drivers(tmp_path / "copy")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    code = f"import {PACKAGE}.record as record; print(record.__file__)"
    done = subprocess.run(python(code), env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(folder)
    above = [folder / "experiments/__init__.py", folder / "experiments/bench/__init__.py"]
    copied = {path for path in folder.rglob("*.py") if path.parent.name != "drivers"}
    assert copied == set(above) and all(not path.read_text() for path in above)
    theirs = [path for path in folder.rglob("*.py") if path.name != "added_up.py"]  # that one is our server's
    imported = {line for path in theirs for line in path.read_text().splitlines() if "import" in line}
    ours = [
        line for line in imported if line.split()[1].partition(".")[0] in ("fl", "clients", "server", "experiments")
    ]
    assert ours and all(line.split()[1].startswith(PACKAGE) for line in ours)


def test_a_record_is_read_as_it_was_left(place):
    rounds = record.Rounds()
    rounds.ends = [100.0, 101.0, 103.5]
    rounds.save(tiny_task(place), {"a.weight": np.arange(3.0), "file": np.ones(1)})
    left = flower().read(place)
    assert (left.round_seconds, left.first_ended) == ([1.0, 2.5], 100.0)
    assert left.parameters["a.weight"].tolist() == [0, 1, 2] and list(left.parameters) == ["a.weight", "file"]


# Fair measuring


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def ran(code: str, folder: Path, *, timeout: float = 60, environment: dict[str, str] | None = None) -> Ran:
    return run(python(code), folder=folder, log=folder / "log", environment=environment or {}, timeout=timeout)


def test_memory_is_that_of_all_processes_together_and_of_the_first(tmp_path):
    child = "import sys, time; held = bytearray(120_000_000); time.sleep(1.3)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = ran(code, tmp_path)
    assert found.status == 0 and found.peak_bytes > 120e6 > 60e6 > found.first_bytes > 1e6
    assert found.wall_seconds > 1.3


def test_what_a_command_leaves_running_is_ended(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(0.8)"
    )
    assert ran(code, tmp_path).status == 0
    left = int((tmp_path / "log").read_text())
    for _ in range(100):
        if not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("it still runs")


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    found = ran("import time; time.sleep(600)", tmp_path, timeout=0.1)
    assert found.status != 0 and found.wall_seconds < 60


def test_a_command_gets_one_thread_its_folder_and_its_environment_and_no_python_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], os.environ.get('PYTHONPATH'), os.environ['X'])"
    ran(code, tmp_path, environment={"X": "y"})
    assert (tmp_path / "log").read_text().split() == [str(tmp_path), "1", "None", "y"]


def stub(name: str, seconds: float, *, status: int = 0, ours: bool = False, factor: float = 1) -> System:
    """A system whose rounds take ``seconds``; it ends with an exit status and ``factor`` times the parameters."""

    def command(workload: Workload, place: Place) -> list[str]:
        rounds = record.Rounds()
        began = time.time()
        rounds.ends = [began + 1 + seconds * number for number in range(workload.rounds)]
        learnt = {name: factor * value for name, value in start_of(workload).items()}
        rounds.save(tiny_task(place, workload), learnt)
        return python(f"import sys; print('a line of its log'); sys.exit({status})")

    return System(name, command, flower().read, lambda place: {}, ours=ours)


def test_systems_take_turns_and_a_failed_one_does_not_stop_the_others(tmp_path):
    said: list[str] = []
    systems = [stub("a", 0.5, ours=True), stub("broken", 1.0, status=3), stub("b", 2.0)]
    rows = measure(TINY, systems, repeats=2, folder=tmp_path / "logs", say=said.append)
    assert [text.split(": ")[1] for text in said] == [
        "a, 1 of 2",
        "broken, 1 of 2",
        "b, 1 of 2",
        "a, 2 of 2",
        "b, 2 of 2",
    ]
    a, broken, b = rows
    assert a.round_seconds == pytest.approx(0.5) and b.round_seconds == pytest.approx(2.0)
    assert a.ours and not b.ours and a.repeats == 2
    assert "exit status 3" in broken.failed and "a line of its log" in broken.failed and math.isnan(broken.wall_seconds)
    assert a.loss == b.loss and a.loss == pytest.approx(math.log(10), rel=0.3)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "a 1.log",
        "a 2.log",
        "b 1.log",
        "b 2.log",
        "broken 1.log",
    ]


# What was found


def row(workload: Workload | str, system: str, seconds: float, **more) -> Row:
    if isinstance(workload, str):
        workload = next(w for w in (*SHAPES, *OVERHEAD, *SCALE) if w.name == workload)
    mine = system.startswith("ours")
    figures = {"round_least": seconds, "first_seconds": 10 * seconds, "wall_seconds": 20 * seconds, "peak_bytes": 2**30}
    return Row(workload, system, mine, **{"round_seconds": seconds, "first_bytes": 2**29, **figures, **more})


def test_a_ratio_is_against_the_faster_of_the_peers_that_ran():
    rows = [row("softmax", "ours, auto", 1.0), row("softmax", "fedjax", 3.9), row("softmax", "pfl", 5.0)]
    (verdict,) = verdicts(rows)
    assert (verdict.got, verdict.reached) == (3.9, False) and "4 times" in verdict.wanted
    (verdict,) = verdicts([rows[0], rows[2]])
    assert (verdict.got, verdict.reached) == (5.0, True) and "against pfl" in verdict.figure
    (verdict,) = verdicts([rows[0], Row(rows[0].workload, "pfl", False, failed="no")])
    assert math.isnan(verdict.got) and not verdict.reached
    assert verdicts(rows[:1]) == []


def test_beside_a_figure_stands_what_the_same_work_with_nothing_round_it_reaches():
    """By processes like ours: those that keep every round, Ray's for Ray, and the app's own training for the app."""
    times = (0.5, 1.0, 2.0, 5.0)
    bare = [row("2NN", system.name, seconds) for system, seconds in zip(floors(), times, strict=True)]
    mine = [row("2NN", name, 6.0) for name in ("ours, auto", "ours, ray", "ours, Flower app, auto")]
    found = {v.figure: v.floor for v in verdicts([*mine, *bare, row("2NN", "fedjax", 8.0), row("2NN", "flower", 20.0)])}
    assert found["2NN: ours, auto against fedjax, a round"] == 8.0
    assert found["2NN: ours, ray against fedjax, a round"] == 4.0
    assert found["2NN: ours, ray against flower, to the end of round 1"] == 10.0
    assert found["2NN: ours, Flower app, auto against flower, a round"] == 4.0
    assert all(math.isnan(v.floor) for v in verdicts([*mine, row("2NN", "fedjax", 8.0)]))


def test_the_scale_is_flat_or_it_is_said():
    few, many = SCALE[0].name, SCALE[3].name
    grown = {"setup_seconds": 21.0, "first_bytes": 2**30}
    found = verdicts([row(few, "ours, ray", 1.0), row(many, "ours, ray", 1.3, **grown)])
    assert [(round(v.got, 3), v.reached) for v in found] == [(1.3, False), (21.0, False), (1024.0, False)]
    assert all(
        v.reached for v in verdicts([row(few, "ours, ray", 1.0), row(many, "ours, ray", 1.1, setup_seconds=5.0)])
    )
    usual, large = SCALE[1].name, SCALE[-1].name
    (verdict,) = verdicts([row(usual, "ours, ray", 1.0), row(large, "ours, ray", 9.0, first_bytes=2**29 + 2**27)])
    assert (verdict.got, verdict.reached) == (128.0, False) and "10,000 a round" in verdict.figure


def test_losses_are_compared_with_their_median():
    rows = [row("softmax", name, 1.0, loss=value) for name, value in (("a", 1.0), ("b", 1.05), ("c", 0.8))]
    assert disagreement(rows) == pytest.approx(0.2)
    assert disagreement([row("softmax", "a", 1.0)]) == 0.0


@pytest.fixture
def report() -> Report:
    rows = [
        row("2NN", "ours, auto", 0.02, loss=1.0),
        row("2NN", "flower", 0.4, loss=1.3),
        Row(ONE_A_MODEL["mlp"], "pfl", False, failed="exit status 1\nlog"),
        *(row(workload.name, "ours, ray", 0.1) for workload in SCALE),
        *(row(workload, "ours, ray", 1 / workload.processes) for workload in over_cores(4)),
    ]
    return Report(rows, ["fedjax is left out"], {"load_before": 0.5}, tolerance=0.1)


def test_the_tables_hold_our_ratio_and_what_is_wrong(report, capsys):
    reports.show(report, Console(width=250))
    out = capsys.readouterr().out
    assert "20x 20x 20x 1x" in out and "DO NOT AGREE: within 13.0%" in out and "failed: exit status 1" in out
    assert "missed" in out and "reached" in out and "fedjax is left out" in out
    assert report.disagreeing == ["2NN"]


def test_a_report_is_written_as_json_markdown_and_pictures(report, tmp_path):
    reports.write(report, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert found["rows"][1]["round_seconds"] == 0.4 and found["rows"][2]["round_seconds"] is None
    assert found["disagreeing"] == ["2NN"] and found["about"]["load_before"] == 0.5
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["cohorts.png", "cores_cnn.png", "cores_mlp.png", "populations.png", "rounds.png"]
    lines = (tmp_path / "report.md").read_text().splitlines()
    tables = [line.count("|") for line in lines if line.startswith("| ") and "flower" in line and "ms" not in line]
    assert tables and "### 2NN" in lines


# What is asked for


@pytest.mark.parametrize(
    "override, key, allowed",
    [
        ("suite=shpes", "suite", "the closest is shapes"),
        ("bench.repeat=3", "bench.repeat", "the closest is bench.repeats"),
        ("repeats=3", "repeats", "bench.repeats"),
        ("shapes", "shapes", "KEY=VALUE"),
        ("bench.repeats=0", "bench.repeats", "a whole number from 1"),
        ("bench.repeats=many", "bench.repeats", "could not be converted to Integer"),
        ("bench.rounds=2", "bench.rounds", "a whole number from 3"),
        ("bench.tolerance=0", "bench.tolerance", "above 0"),
        ("bench.pfl_python=/nowhere/python", "bench.pfl_python", "the package pfl"),
        (f"bench.fedjax_python={sys.executable}", "bench.fedjax_python", "the package fedjax"),
        ("output=.", "output", "new or empty"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(override, key, allowed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput) as caught:
        read([override])
    assert caught.value.key == key and allowed in caught.value.allowed


def test_settings_are_the_files_unless_something_else_is_said():
    assert read([]) == Settings()
    found = read(["suite=all", "bench.only=[2NN,CNN]", "bench.rounds=7"])
    assert (found.suite, found.bench.only, found.bench.rounds) == ("all", ["2NN", "CNN"], 7)


def test_only_what_is_named_runs_with_as_many_rounds_as_asked():
    plan = [(workload, []) for workload in SHAPES]
    found = running.chosen(plan, Bench(only=["2nn", "flute"], rounds=5))
    assert [(w.name, w.rounds) for w, _ in found] == [("2NN", 5), ("softmax, FLUTE's shape", 5)]
    assert [w for w, _ in running.chosen(plan, Bench())] == list(SHAPES)
    with pytest.raises(BadInput, match=r"bench\.only"):
        running.bench(Settings(bench=Bench(only=["zebra"])), say=print)


@pytest.mark.parametrize("cores, processes", [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_cores_are_doubled_up_to_all(cores, processes):
    assert [w.processes for w in over_cores(cores) if w.model == "cnn"] == processes


def test_a_bench_from_the_command_line(tmp_path, monkeypatch, capsys):
    """With systems that do nothing: tables on stdout, progress on stderr, the status says what is wrong."""
    monkeypatch.chdir(tmp_path)
    plan = [(TINY, [stub("ours, auto", 0.5, ours=True), stub("flower", 1.0)])]
    monkeypatch.setitem(running.SUITES, "overhead", lambda how: plan)
    assert cli.run(["bench", "suite=overhead", "bench.repeats=1"]) == 0
    out, err = capsys.readouterr()
    folder = Path(out.splitlines()[-1])
    assert "tiny: flower, 1 of 1" in err and "2x" in out and (folder / "report.json").is_file()
    plan[0][1].append(stub("strays", 1.0, factor=9))
    assert cli.run(["bench", "suite=overhead", "bench.repeats=1"]) == 1
    assert "DO NOT AGREE" in capsys.readouterr().out
    plan[0][1][-1] = stub("broken", 1.0, status=1)
    assert cli.run(["bench", "suite=overhead", "bench.repeats=1", "output=there", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "there") and len(found["rows"]) == 3
    assert cli.run(["bench", "suite=overhead", "output=there"]) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_every_system_that_is_here_does_the_work(tmp_path):
    workload = replace(
        TINY, name="2NN", model="mlp", clients=10, examples=20, cohort=5, rounds=4, learning_rate=0.1, processes=2
    )
    systems = [ours("auto"), ours("inprocess"), ours("ray"), our_flower("auto"), flower(), *floors()]
    rows = measure(workload, systems, repeats=1, folder=tmp_path / "logs", say=print)
    assert [row.failed for row in rows] == [""] * len(systems)
    assert disagreement(rows) < 0.1 and rows[0].loss == rows[1].loss
    assert all(0 < r.round_least <= r.round_seconds < r.first_seconds < r.wall_seconds for r in rows)
    assert rows[2].facts["num_actors"] == 2 and rows[2].facts["private_examples_read_by"] == "actors"


def test_our_server_and_numpy_add_up_the_same(tmp_path):
    rows = measure(small(ADDED_UP), [added_up("ours"), added_up("numpy")], repeats=1, folder=tmp_path / "l", say=print)
    assert [row.failed for row in rows] == ["", ""]
    assert rows[0].loss == pytest.approx(rows[1].loss, rel=1e-6) and not math.isnan(rows[0].loss)
