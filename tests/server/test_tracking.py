"""Observers write real files, which are read back with the readers that people use."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fl.errors import BadInput
from fl.metrics import Confusion, quantiles
from fl.signature import Signature
from server.pictures import confusion_picture
from server.records import RoundRecord, RunRecord, RunSummary
from server.tracking import fan_out, layout, observers
from server.tracking.files import MAX_LISTED, FilesObserver, read_rounds
from server.tracking.terminal import TerminalObserver

tensorboard = pytest.importorskip("server.tracking.tensorboard")
events = pytest.importorskip("server.tracking.events")

CLASSES = tuple("abc")
CLASSIFICATION = Signature("classification", (4,), "float32", 3, class_names=CLASSES)
REGRESSION = Signature("regression", (4,), "float32", 1)


def run_record(run_dir: Path, **changes) -> RunRecord:
    config = {
        "seed": 7,
        "run_dir": str(run_dir),
        "algorithm": {"_target_": "fl.algorithms.fedprox.build", "mu": 0.1},
        "strategy": {"_target_": None},
        "client": {"learning_rate": 0.05, "personal": True},
        "dataset": {"name": "mnist", "path": None},
    }
    known = RunRecord(
        run_id=run_dir.name,
        run_dir=run_dir,
        registry_dir=run_dir.parent / "registry",
        config=config,
        signature=CLASSIFICATION,
        dataset="mnist",
        num_clients=100,
        cohort_size=10,
        num_rounds=6,
        first_round=0,
        engine="inprocess",
        num_parameters=1_234,
    )
    return replace(known, **changes)


def round_record(number: int, **changes) -> RoundRecord:
    """Round ``number`` of the one and only run: whenever it is done again, the same comes out."""
    rng = np.random.default_rng(number)
    trained = number > 0
    known = RoundRecord(
        round=number,
        version=f"run:{number}",
        model_sha256=f"{number:064x}",
        metrics={"loss": 1 / (number + 1), "accuracy": number / 10} if number % 2 == 0 else {},
        seconds={"train": 0.8, "aggregate": 0.01, "evaluate": 0.1, "commit": 0.05, "total": 0.96},
        clients={"asked": 10, "answered": 9, "failed": 1, "refused": 0, "late": 0},
        bytes={"down": 4_000_000, "up": 3_600_000},
        client_metrics={"accuracy": quantiles(list(rng.random(9)))} if trained else {},
        train_metrics={"loss": 0.5 / number} if trained else {},
        personal={"gain": 0.05} if trained else {},
        update_norms=tuple(rng.random(9)) if trained else (),
        confusion=Confusion.of(rng.integers(0, 3, 30), rng.integers(0, 3, 30), 3) if number % 2 == 0 else None,
    )
    return replace(known, **changes)


def run_summary(**changes) -> RunSummary:
    known = RunSummary(
        status="finished",
        reason="all rounds are done",
        rounds_completed=6,
        model_sha256="ab" * 32,
        final={"loss": 0.125, "accuracy": 0.75},
        best="run:4",
        seconds={"setup": 1.0, "rounds": 70.0, "total": 71.0},
        bytes={"down": 24_000_000, "up": 21_600_000},
        clients={"asked": 60, "answered": 54, "failed": 6, "refused": 0, "late": 0},
    )
    return replace(known, **changes)


def tell(observer, run: RunRecord, until: int, *, end: bool = True) -> None:
    observer.on_start(run)
    for number in range(run.first_round, until + 1):
        observer.on_phase(number, "train", 10, 10)
        observer.on_round(round_record(number))
    if end:
        observer.on_end(run_summary())


def event_file(run_dir: Path) -> Path:
    (path,) = (run_dir / "tensorboard").iterdir()
    return path


def accumulated(run_dir: Path):
    """The run as TensorBoard's own reader understands it, with nothing thinned out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors", "compressedHistograms"), 0)
    return EventAccumulator(str(run_dir / "tensorboard"), size_guidance=everything).Reload()


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    read = accumulated(run_dir)
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


# Files


def test_a_round_is_a_line_with_what_others_rely_on(tmp_path):
    tell(FilesObserver(), run_record(tmp_path), 1, end=False)
    first, second = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (first["round"], first["version"], first["model_sha256"]) == (0, "run:0", "0" * 64)
    assert (first["loss"], first["accuracy"]) == (1.0, 0.0)
    assert (second["loss"], second["accuracy"]) == (None, None)
    assert set(second["seconds"]) == {"train", "aggregate", "evaluate", "commit", "total"}
    assert second["clients"] == {"asked": 10, "answered": 9, "failed": 1, "refused": 0, "late": 0}
    assert second["bytes"] == {"down": 4_000_000, "up": 3_600_000}
    assert second["client_metrics"]["accuracy"].keys() == {"min", "p10", "median", "p90", "max"}
    assert (second["train_metrics"], second["personal"]) == ({"loss": 0.5}, {"gain": 0.05})


def test_what_makes_no_sense_for_a_task_is_absent(tmp_path):
    observer = FilesObserver()
    observer.on_start(run_record(tmp_path, signature=REGRESSION))
    observer.on_round(round_record(0, metrics={"loss": 2.0, "mae": 1.5}, confusion=None))
    observer.on_round(round_record(1))
    observer.on_end(run_summary(final={}))
    evaluated, silent = read_rounds(tmp_path / "metrics.jsonl")
    assert (evaluated["mae"], "accuracy" in evaluated) == (1.5, False)
    assert (silent["loss"], "accuracy" in silent) == (None, False)
    assert json.loads((tmp_path / "summary.json").read_text())["final"] == {"loss": None}


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    observer = FilesObserver()
    observer.on_start(run_record(tmp_path))
    observer.on_round(round_record(0, metrics={"loss": math.nan, "accuracy": np.float32(0.5)}))
    observer.on_end(run_summary(final={"loss": math.inf}, extra={"path": tmp_path, "share": np.float64(math.nan)}))
    (line,) = read_rounds(tmp_path / "metrics.jsonl")
    assert (line["loss"], line["accuracy"]) == (None, 0.5)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["final"]["loss"], summary["share"], summary["path"]) == (None, None, str(tmp_path))


def test_an_apps_round_shows_what_the_app_tells(tmp_path):
    """Its names are its own; without a server's test set, what its clients' training and evaluation came to."""
    app = run_record(tmp_path, exportable=False)
    of_clients = {"eval_acc": {"median": 0.6, "aggregated": 0.625}, "speed": {"median": 2.0}}
    here = round_record(1, metrics={}, train_metrics={"train_loss": 0.5, "loss": 0.25}, client_metrics=of_clients)
    assert "  train_loss 0.5000  train loss 0.2500  eval_acc 0.6250  9/10" in layout.line(here, app, left=None).plain
    served = round_record(2, metrics={"rmse": 3.0}, train_metrics={}, client_metrics={})
    assert "  rmse 3.0000  9/10" in layout.line(served, app, left=None).plain
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(layout.table([here, served], app))
    shown = capture.get().splitlines()
    assert shown[0].split()[:6] == ["round", "train_loss", "train", "loss", "eval_acc", "rmse"]
    assert shown[2].split()[:5] == ["2", "–", "–", "–", "3.0000"]
    assert "loss –  accuracy –" in layout.line(here, run_record(tmp_path), left=None).plain


def test_who_is_quarantined_is_told_everywhere(tmp_path):
    run = run_record(tmp_path)
    failed = [{"client": c, "reason": f"client {c}: quarantined: its process died twice"} for c in (3, 8)]
    away = round_record(1, failed=failed, quarantined=[3, 8])
    summary = run_summary(quarantined=[{**failure, "round": 1} for failure in failed])
    for observer in (FilesObserver(), tensorboard.TensorBoardObserver()):
        observer.on_start(run)
        observer.on_round(round_record(0))
        observer.on_round(away)
        observer.on_end(summary)
    zero, one = read_rounds(tmp_path / "metrics.jsonl")
    assert "quarantined" not in zero and one["quarantined"] == [3, 8]
    assert json.loads((tmp_path / "summary.json").read_text())["quarantined"] == list(summary.quarantined)
    assert scalars(tmp_path)["clients/quarantined"] == [(0, 0.0), (1, 2.0)]
    assert "quarantined: clients 3, 8" in layout.line(away, run, left=None).plain
    assert "quarantined" not in layout.line(round_record(1), run, left=None).plain
    assert "quarantined: clients 3, 8, see summary.json" in layout.made(run, summary, boxed=False).plain


def test_a_line_names_a_bounded_number_of_failed_clients(tmp_path):
    observer = FilesObserver()
    observer.on_start(run_record(tmp_path))
    failed = [{"client": c, "reason": "out of memory"} for c in range(1000)]
    observer.on_round(round_record(0, failed=failed, clients={"asked": 1000, "failed": 1000}))
    (line,) = read_rounds(tmp_path / "metrics.jsonl")
    assert (line["failed"], line["clients"]["failed"]) == (failed[:MAX_LISTED], 1000)


def test_the_summary_has_what_others_rely_on_and_extra_cannot_hide_it(tmp_path):
    observer = FilesObserver()
    observer.on_start(run_record(tmp_path))
    observer.on_end(run_summary(extra={"engine_reason": "few clients", "seed": 99}))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary | {"run_id": tmp_path.name, "seed": 7, "engine": "inprocess", "num_clients": 100} == summary
    assert summary | {"cohort_size": 10, "num_rounds": 6, "rounds_completed": 6, "best": "run:4"} == summary
    assert (summary["final"], summary["engine_reason"]) == ({"loss": 0.125, "accuracy": 0.75}, "few clients")
    assert (summary["status"], summary["reason"]) == ("finished", "all rounds are done")
    assert summary.keys() >= {"model_sha256", "seconds", "bytes", "clients"}


def test_a_run_that_goes_on_has_no_summary_until_it_ends(tmp_path):
    tell(FilesObserver(), run_record(tmp_path), 3)
    assert (tmp_path / "summary.json").exists()
    FilesObserver().on_start(run_record(tmp_path, first_round=4))
    assert not (tmp_path / "summary.json").exists()


# Resuming: however often a run is cut, what stays is what an uncut run leaves


@pytest.fixture(scope="module")
def uncut(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uncut")
    tell(fan_out([FilesObserver(), tensorboard.TensorBoardObserver()]), run_record(folder), 6)
    return folder


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 400)), max_size=3))
def test_a_run_cut_anywhere_and_resumed_leaves_each_round_once(tmp_path_factory, uncut, cuts):
    folder = tmp_path_factory.mktemp("cut")
    told = fan_out([FilesObserver(), tensorboard.TensorBoardObserver()])
    first = 0
    for until, again_from, torn_bytes in cuts:
        tell(told, run_record(folder, first_round=first), max(until, first), end=until % 2 == 0)
        first = min(again_from, max(until, first) + 1)
        if first <= max(until, first):  # The torn tail belongs to rounds that are done again.
            for path in (folder / "metrics.jsonl", event_file(folder)):
                with path.open("ab") as file:
                    file.write(b'{"round": ' + bytes(torn_bytes))
    tell(told, run_record(folder, first_round=first), 6)
    assert (folder / "metrics.jsonl").read_bytes() == (uncut / "metrics.jsonl").read_bytes()
    assert scalars(folder) == scalars(uncut)
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", "summary.json", "tensorboard"}
    read = accumulated(folder)
    assert [image.step for image in read.Images("global/confusion")] == [0, 2, 4, 6]
    assert [histogram.step for histogram in read.Histograms("clients/update_norm")] == [1, 2, 3, 4, 5, 6]
    assert len(read.Tensors("config")) == 1
    whole = list(events.read_events(event_file(folder)))
    tags = [value.tag for event in whole for value in event.summary.value]
    assert [tags.count(tag) for tag in sorted(tensorboard.RUN_TAGS) if tag.startswith("_hparams_")] == [1, 1, 1]
    shutil.rmtree(folder)


def test_every_cut_of_the_event_file_leaves_the_events_before_it(tmp_path, uncut):
    content = (event_file(uncut)).read_bytes()
    whole = len(list(events.read_events(event_file(uncut))))
    torn = tmp_path / "torn"
    counts = []
    for length in range(0, len(content), 997):
        torn.write_bytes(content[:length])
        counts.append(sum(1 for _ in events.read_events(torn)))
    assert counts == sorted(counts)
    assert (counts[0], whole - 2 <= counts[-1] < whole) == (0, True)


def test_a_torn_event_that_was_lost_is_not_made_up_but_the_file_stays_readable(tmp_path):
    tell(tensorboard.TensorBoardObserver(), run_record(tmp_path), 4, end=False)
    path = event_file(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    tell(tensorboard.TensorBoardObserver(), run_record(tmp_path, first_round=4), 6)
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("calls", range(1, 6))
def test_a_crash_while_the_event_file_is_rewritten_loses_and_doubles_nothing(tmp_path, monkeypatch, uncut, calls):
    """Whichever of the steps is the last one done, the next try finds every event that is to be kept, once."""
    tell(tensorboard.TensorBoardObserver(), run_record(tmp_path), 4, end=False)
    left = calls

    def crashing(name: str) -> None:
        original = getattr(Path, name)

        def step(self: Path, *arguments, **options):
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            return original(self, *arguments, **options)

        patched.setattr(Path, name, step)

    with monkeypatch.context() as patched:
        for name in ("mkdir", "replace", "unlink"):
            crashing(name)
        try:
            tensorboard.TensorBoardObserver().on_start(run_record(tmp_path, first_round=3))
        except KeyboardInterrupt:
            assert len(list((tmp_path / "tensorboard").iterdir())) <= 1
    tell(tensorboard.TensorBoardObserver(), run_record(tmp_path, first_round=3), 6)
    assert scalars(tmp_path) == scalars(uncut)


# TensorBoard


def test_scalars_have_the_promised_names_steps_and_values(uncut):
    read = scalars(uncut)
    assert read["global/loss"] == [(n, pytest.approx(1 / (n + 1))) for n in (0, 2, 4, 6)]
    assert read["clients/answered"] == [(n, 9) for n in range(7)]
    assert read["bytes/up"] == [(n, 3_600_000) for n in range(7)]
    assert [step for step, _ in read["personal/gain"]] == [1, 2, 3, 4, 5, 6]
    for tag in ("train/loss", "bytes/down", "clients/asked", "clients/failed", "clients/refused", "clients/late"):
        assert tag in read
    for phase in ("train", "aggregate", "evaluate", "commit", "total"):
        assert [step for step, _ in read[f"seconds/{phase}"]] == list(range(7))
    for point in ("min", "p10", "median", "p90", "max"):
        assert read[f"clients/accuracy/{point}"][0] == (
            1,
            pytest.approx(round_record(1).client_metrics["accuracy"][point]),
        )


def test_the_histogram_counts_every_update_once(uncut):
    for event in accumulated(uncut).Histograms("clients/update_norm"):
        norms = round_record(event.step).update_norms
        value = event.histogram_value
        assert (value.num, sum(value.bucket)) == (9, 9)
        assert (value.min, value.max) == (min(norms), max(norms))
        assert value.sum == pytest.approx(sum(norms))


@pytest.mark.parametrize("norms", [(0.0,), (0.3, 0.3), (1e-30, 2e-30), (math.nan, 1.0), ()])
def test_odd_update_norms_do_not_stop_a_run(tmp_path, norms):
    observer = tensorboard.TensorBoardObserver()
    observer.on_start(run_record(tmp_path))
    observer.on_round(round_record(1, update_norms=norms))
    assert accumulated(tmp_path).Tags()["histograms"] == (["clients/update_norm"] if norms else [])


def test_the_config_is_readable_text_and_the_partition_picture_is_an_image(tmp_path):
    picture = tmp_path / "partition.png"
    picture.write_bytes(confusion_picture(Confusion(((1, 0), (0, 1))), class_names=(), title="stands for a picture"))
    run = run_record(tmp_path, partition_picture=picture)
    tensorboard.TensorBoardObserver().on_start(replace(run, config={**run.config, "folder": Path("x"), "l": (1, 2)}))
    read = accumulated(tmp_path)
    (text,) = read.Tensors("config")
    markdown = text.tensor_proto.string_val[0].decode()
    assert markdown.startswith("```yaml\nseed: 7\n")
    assert "algorithm:\n  _target_: fl.algorithms.fedprox.build\n  mu: 0.1\n" in markdown
    assert "folder: x\nl:\n- 1\n- 2\n```" in markdown
    (image,) = read.Images("data/partition")
    assert (image.step, image.encoded_image_string) == (0, picture.read_bytes())


def test_the_hparams_tab_compares_the_runs_of_a_multirun(tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    choices = [(seed, strategy) for seed in (1, 2) for strategy in ("FedAvg", "FedAdam", "FedMedian")]
    for job, (seed, strategy) in enumerate(choices):
        run = run_record(tmp_path / str(job))
        target = f"flwr.serverapp.strategy.{strategy}"
        config = {**run.config, "seed": seed, "strategy": {"_target_": target}, "server": {"tensorboard": True}}
        observer = tensorboard.TensorBoardObserver()
        observer.on_start(replace(run, config=config))
        observer.on_round(round_record(0, metrics={"loss": 1.0, "accuracy": job / 10}, confusion=None))
        observer.on_end(run_summary())

    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(tmp_path))))
    request = RequestContext()
    metadata = context.hparams_metadata(request, "")
    described = context.experiment_from_metadata(request, "", True, metadata, [])
    shown = [info.name for info in described.hparam_infos]
    assert shown[:4] == ["algorithm", "client.learning_rate", "seed", "strategy"]
    assert set(shown[4:]) == {"algorithm.mu", "client.personal", "dataset", "engine"}
    assert [m.name.tag for m in described.metric_infos] == ["global/accuracy", "global/loss"]
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=m.name) for m in described.metric_infos],
    )
    groups = list_session_groups.Handler(request, context, "", asked).run().session_groups
    compared = {
        (g.hparams["seed"].number_value, g.hparams["strategy"].string_value): round(g.metric_values[0].value, 5)
        for g in groups
    }
    assert compared == {choice: job / 10 for job, choice in enumerate(choices)}


@pytest.mark.parametrize(
    "status, shown",
    [("finished", "STATUS_SUCCESS"), ("stopped by faults", "STATUS_FAILURE"), ("interrupted", "STATUS_UNKNOWN")],
)
def test_how_a_run_ended_is_recorded(tmp_path, status, shown):
    from tensorboard.plugins.hparams import api_pb2, metadata

    observer = tensorboard.TensorBoardObserver()
    observer.on_start(run_record(tmp_path))
    observer.on_end(run_summary(status=status))
    (*_, last) = events.read_events(event_file(tmp_path))
    content = last.summary.value[0].metadata.plugin_data.content
    ended = metadata.parse_session_end_info_plugin_data(content)
    assert api_pb2.Status.Name(ended.status) == shown


def test_tensorflow_and_torch_are_never_imported_and_nothing_is_said(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    program = """
        import sys
        from server.tracking import observers
        kinds = [type(o).__name__ for o in observers(terminal=False, tensorboard=True)]
        assert kinds == ["FilesObserver", "TensorBoardObserver", "TerminalObserver"], kinds
        from pathlib import Path
        from server.tracking.events import append, begin, read_events
        path = begin(Path(sys.argv[1]) / "tensorboard", keep=lambda event: True)
        append(path, [], step=0)
        assert len(list(read_events(path))) == 2
        assert "torch" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", re.sub("^ {8}", "", program, flags=re.MULTILINE), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Terminal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(run: RunRecord, *, live: bool, seconds_a_round: float, rounds: range, **changes) -> str:
    """What is written to a terminal 100 columns wide, or to a file, while ``rounds`` pass."""
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=live, width=100, soft_wrap=not live, highlight=False)
    observer = TerminalObserver(console, live=live, clock=clock)
    observer.on_start(run)
    for number in rounds:
        for done in range(11):
            clock.now += seconds_a_round / 11
            observer.on_phase(number, "train", done, 10)
        observer.on_round(round_record(number, **changes))
    observer.on_end(run_summary())
    return out.getvalue()


def test_plain_lines_tell_evaluated_rounds_the_last_and_else_one_in_two_seconds(tmp_path):
    run = run_record(tmp_path, num_rounds=1000)
    text = watched(run, live=False, seconds_a_round=0.01, rounds=range(1, 1001), metrics={})
    told = [int(number) for number in re.findall(r"^round +(\d+)/1000", text, flags=re.MULTILINE)]
    assert told == [1, 201, 401, 601, 801, 1000]
    text = watched(run, live=False, seconds_a_round=0.01, rounds=range(1, 11))
    assert re.findall(r"^round +(\d+)/1000", text, flags=re.MULTILINE) == ["1", "2", "4", "6", "8", "10"]
    text = watched(run, live=False, seconds_a_round=3.0, rounds=range(1, 11), metrics={})
    assert len(re.findall(r"^round .*clients", text, flags=re.MULTILINE)) == 10
    assert "\x1b" not in text
    assert "round   10/1000  loss –  accuracy –  9/10 clients  0.96 s  3.6 MB up  about 49 min 30 s left\n" in text


def test_the_live_view_shows_rounds_progress_and_the_time_left(tmp_path):
    text = watched(run_record(tmp_path, num_rounds=100), live=True, seconds_a_round=3.0, rounds=range(21))
    for part in ("round", "accuracy", "clients", "MB up", "rounds", "20/100", "9/10", "about 4 min", "train", "7/10"):
        assert part in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # The cursor is hidden, and given back.


@pytest.mark.parametrize("seconds_a_round, rounds", [(0.003, 5000), (0.5, 100), (20.0, 3)])
def test_drawing_takes_less_than_a_hundredth_of_the_time(tmp_path, seconds_a_round, rounds):
    clock, drawn = Clock(), []

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            drawn.append(clock.now)
            clock.now += 0.005
            return super().write(text)

    observer = TerminalObserver(Console(file=Slow(), force_terminal=True, width=100), live=True, clock=clock)
    observer.on_start(run_record(tmp_path, num_rounds=10_000))
    began, drawn_before = clock.now, len(drawn)
    first = round_record(1)
    for number in range(1, rounds):
        for done in range(5):
            clock.now += seconds_a_round / 5
            observer.on_phase(number, "train", done, 5)
        observer.on_round(replace(first, round=number))
    share = 0.005 * (len(drawn) - drawn_before) / (clock.now - began)
    assert 0.0005 < share < 0.01
    assert clock.now - drawn[-1] < 2.0
    observer.on_end(run_summary())


def test_phases_are_drawn_four_times_a_second_at_most(tmp_path):
    out, clock = io.StringIO(), Clock()
    observer = TerminalObserver(Console(file=out, force_terminal=True, width=100), live=True, clock=clock)
    observer.on_start(run_record(tmp_path))
    for done in range(1000):
        clock.now += 0.01
        observer.on_phase(1, "train", done, 1000)
    assert 30 <= out.getvalue().count("/1000") <= 41
    observer.on_end(run_summary())


def test_the_next_three_commands_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_record(tmp_path / "outputs" / "a run")
    assert layout.next_commands(run, run_summary(), default_registry=run.registry_dir) == [
        "fl export 'a run:best' --format onnx --output exported",
        "tensorboard --logdir 'outputs/a run/tensorboard'",
        "fl versions show 'a run:best'",
    ]
    cut = run_summary(status="interrupted", best=None)
    assert layout.next_commands(run, cut, default_registry=Path("elsewhere")) == [
        "fl resume 'outputs/a run'",
        "fl export 'a run:latest' --format onnx --output exported --registry outputs/registry",
        "tensorboard --logdir 'outputs/a run/tensorboard'",
    ]


@pytest.mark.parametrize("live", [True, False])
def test_the_end_says_what_was_made(tmp_path, live):
    text = watched(run_record(tmp_path), live=live, seconds_a_round=1.0, rounds=range(7))
    for part in ("finished", "6 of 6", "loss 0.1250  accuracy 0.7500", "run:4", "1 min 11 s", "metrics.jsonl"):
        assert part in text
    commands = [line for line in text.splitlines() if " --registry " in line]
    assert len(commands) == 2


def test_a_real_terminal_gets_the_view_and_standard_output_is_left_alone(tmp_path):
    """Standard error is a pseudo-terminal, standard output a pipe: what is printed arrives there, nothing else does."""
    program = (
        "import sys, importlib.util as u\n"
        f"s = u.spec_from_file_location('t', {__file__!r}); t = u.module_from_spec(s)\n"
        "sys.modules['t'] = t; s.loader.exec_module(t)\n"
        "from pathlib import Path; from server.tracking import observers\n"
        "o = observers(terminal=sys.stderr.isatty(), tensorboard=False)[-1]\n"
        f"run = t.run_record(Path({str(tmp_path)!r}))\n"
        "o.on_start(run)\n"
        "for r in range(7):\n    o.on_phase(r, 'train', 1, 10); o.on_round(t.round_record(r))\n"
        "print('a warning', file=sys.stderr); print('a result'); o.on_end(t.run_summary()); print('the folder')\n"
    )
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        os.close(writer)
        seen = b""
        while part := _read(reader):
            seen += part
        os.close(reader)
        stdout = process.communicate(timeout=60)[0]
    assert (process.returncode, stdout) == (0, b"a result\nthe folder\n"), seen.decode()
    assert "a warning" in seen.decode()
    assert "━" in seen.decode()
    assert "╭─" in seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end of a pseudo-terminal is closed.
        return b""


# All together


def test_all_are_told_in_order_and_an_error_is_not_hidden(tmp_path):
    told: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def on_start(self, run: RunRecord) -> None:
            told.append(f"{self.name} start")

        def on_phase(self, round: int, phase: str, done: int, of: int) -> None:
            told.append(f"{self.name} {phase} {done}/{of}")

        def on_round(self, record: RoundRecord) -> None:
            told.append(f"{self.name} round {record.round}")

        def on_end(self, summary: RunSummary) -> None:
            raise BadInput(key="run_dir", got="a full disk", allowed="space")

    both = fan_out([Noting("a"), Noting("b")])
    both.on_start(run_record(tmp_path))
    both.on_phase(1, "train", 2, 3)
    both.on_round(round_record(1))
    assert told == ["a start", "b start", "a train 2/3", "b train 2/3", "a round 1", "b round 1"]
    with pytest.raises(BadInput, match="a full disk"):
        both.on_end(run_summary())


def test_tensorboard_can_be_left_out():
    kinds = [type(observer).__name__ for observer in observers(terminal=False, tensorboard=False)]
    assert kinds == ["FilesObserver", "TerminalObserver"]
