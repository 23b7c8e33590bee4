"""Online learning: a version learns from a stream, refuses a planted bad one, and goes back to where it was good."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from experiments.cli import run
from fl.errors import BadInput
from fl.registry import Registry
from fl.serving.model import Model
from fl.serving.on_demand.queues import Broker
from fl.serving.online.events import Event, Ranges, Reader, Refused
from fl.serving.online.guard import Guard
from fl.serving.online.learner import Learner, Training
from fl.serving.row_source import Row
from fl.signature import Signature

FL = (sys.executable, "-c", "from experiments.cli import main; main()")
SIGNATURE = Signature(
    task="classification", input_shape=(3,), input_dtype="float32", num_outputs=2,
    class_names=("nay", "yea"), feature_names=("a", "b", "c"),
)  # fmt: skip
TRUE = np.array([1.0, -2.0, 0.5])


def draw(count: int, seed: int, *, weights: np.ndarray = TRUE) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return x, (x @ weights > 0).astype(np.int64)


def lines(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    return [
        {**dict(zip("abc", row.tolist(), strict=True)), "label": ("nay", "yea")[label]}
        for row, label in zip(x, y, strict=True)
    ]


def learner_of(seed: int = 1, known: int = 100) -> Learner:
    """A logistic regression that is right about nine times in ten."""
    from fl.models.logistic import build
    from fl.seeds import process_wide

    with process_wide(seed, purpose="test"):
        module = build(SIGNATURE).eval()
    learner = Learner(module, SIGNATURE, draw(known, 90), Training(0.2))
    x, y = draw(60, 91)
    learner._train([Event(n + 1, row, float(label)) for n, (row, label) in enumerate(zip(x, y, strict=True))])
    learner.guard = Guard()
    learner.__post_init__()
    return learner


def reader_of(examples: np.ndarray | None = None) -> Reader:
    model = Model("run:1", "1" * 64, SIGNATURE, lambda x: x)
    return Reader(model, Ranges.of(draw(100, 90)[0] if examples is None else examples), "label")


def chunks(x: np.ndarray, y: np.ndarray, *, first: int = 1, size: int = 50) -> list[list[Event | Refused]]:
    reader = reader_of()
    read = [reader.read(Row(first + n, cells)) for n, cells in enumerate(lines(x, y))]
    return [read[start : start + size] for start in range(0, len(read), size)]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"a": "much"}, "column a: 'much' is not a number"),
        ({"a": 40.0}, "column a: 40 is outside"),
        ({"label": "maybe"}, "label label: 'maybe' is none of nay, yea"),
        ({"label": None}, "label label: None is none of nay, yea"),
        ({"b": float("inf")}, "holds inf in column b"),
        ({"b": None}, "holds nan in column b"),
    ],
)
def test_an_event_that_is_none_is_refused_with_its_reason(change: dict[str, Any], says: str) -> None:
    good = {"a": 0.1, "b": 0.2, "c": 0.3, "label": "yea"}
    read = reader_of().read(Row(7, good))
    assert isinstance(read, Event) and read.target == 1.0 and read.number == 7
    refused = reader_of().read(Row(7, good | change))
    assert isinstance(refused, Refused) and says in refused.reason
    without = reader_of().read(Row(7, {"a": 0.1, "b": 0.2, "label": "yea"}))
    assert isinstance(without, Refused) and without.reason == "there is no column 'c'"


def test_it_learns_what_the_stream_says() -> None:
    learner = learner_of()
    before = learner.tested()["accuracy"]
    outcomes = [learner.learn(chunk) for chunk in chunks(*draw(2000, 1))]
    assert not [one.reason for one in outcomes if one.reason]
    assert learner.learned == 2000 and learner.tested()["accuracy"] > max(before, 0.97)
    assert learner.progressive()["accuracy"] > 0.95 and not learner.progressive()


@pytest.mark.parametrize("plant", ["random labels", "turned labels", "broken events"])
def test_a_planted_bad_stream_is_refused_and_changes_nothing(plant: str) -> None:
    learner = learner_of()
    for chunk in chunks(*draw(500, 1)):
        learner.learn(chunk)
    good, parameters = learner.tested(), learner.parameters
    x, y = draw(1000, 2)
    if plant == "random labels":
        y = np.random.default_rng(3).integers(0, 2, len(y))
    elif plant == "turned labels":
        y = 1 - y
    else:
        x[::3] = 1e6
    outcomes = [learner.learn(chunk) for chunk in chunks(x, y)]
    assert all(one.reason and not one.learned for one in outcomes)
    assert sum(len(one.refused) for one in outcomes) == 1000
    assert learner.tested() == good
    assert all((value == learner.parameters[name]).all() for name, value in parameters.items())
    assert not learner.learn(chunks(*draw(50, 4))[0]).reason, "it learns from what is good again"


def test_what_made_it_worse_is_taken_back_at_once() -> None:
    """Labels that it believes before it has learned them, and steps so large that they ruin it."""
    learner = learner_of()
    learner.training = Training(learning_rate=1e4)
    parameters = learner.parameters
    x, y = draw(50, 5)
    y[-12:] = 1 - y[-12:]
    outcome = learner.learn(chunks(x, y)[0])
    assert outcome.back_to == 0 and "on what is held back" in outcome.reason
    assert all((value == learner.parameters[name]).all() for name, value in parameters.items())


def test_a_slow_poison_is_seen_by_adwin_and_it_goes_back_behind_it() -> None:
    """A little more noise in every chunk passes each judgement; the rise over all of them does not."""
    learner = learner_of()
    learner.training = Training(learning_rate=1e-6)  # what it learns is not the matter here
    number, back = 1, None
    for chunk in chunks(*draw(1500, 6)):
        assert not learner.learn(chunk).reason
    number, poisoned = 1501, learner.learned
    noise = np.random.default_rng(7)
    for step in range(40):
        x, y = draw(50, 100 + step)
        turned = noise.random(50) < 0.15
        outcome = learner.learn(chunks(x, np.where(turned, 1 - y, y), first=number)[0])
        number += 50
        if outcome.back_to is not None:
            back = outcome.back_to
            break
    assert back is not None and "the error has risen over the last" in outcome.reason
    assert learner.learned == back < poisoned + 500


def test_a_model_of_trees_or_of_texts_is_refused() -> None:
    from torch import nn

    with pytest.raises(BadInput, match="a model that no gradient trains"):
        Learner(nn.Identity(), SIGNATURE, draw(10, 1))
    texts = Signature(task="next_token", input_shape=(4,), input_dtype="int64", num_outputs=5)
    with pytest.raises(BadInput, match="a model of texts"):
        Reader(Model("run:1", "1" * 64, texts, lambda x: x), Ranges.of(np.zeros((2, 4))), "label")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, np.ndarray, np.ndarray]:
    """A registry with a trained version, and its kind of examples."""
    from experiments.compose import compose
    from experiments.run import simulate

    folder = tmp_path_factory.mktemp("online")
    x, y = draw(1500, 20)
    rows = ["a,b,c,label", *(f"{a},{b},{c},{('nay', 'yea')[label]}" for (a, b, c), label in zip(x, y, strict=True))]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    settings = ["dataset=csv", f"dataset.path={folder / 'table.csv'}", "dataset.label=label", "model=logistic"]
    few = ["num_rounds=2", "engine=inprocess", "server.tensorboard=false", "partition=iid", "num_clients=4"]
    simulate(
        compose([*settings, *few, "cohort_size=2", f"run_dir={folder / 'run'}", f"registry_dir={folder / 'registry'}"])
    )
    return Registry(folder / "registry"), *draw(1200, 21)


def stream(path: Path, *parts: tuple[np.ndarray, np.ndarray]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for x, y in parts for line in lines(x, y)))
    return path


def words(registry: Registry, source: Path | str, *more: str) -> list[str]:
    return ["learn", "run", "--input", str(source), "--registry", str(registry.folder), "--json", *more]


def test_a_stream_becomes_versions_with_their_lineage(
    start: tuple[Registry, np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, x, y = start
    events = stream(tmp_path / "events.jsonl", (x[:600], y[:600]))
    assert run(words(registry, events, "--every", "4", "--alias", "challenger", "--learning-rate", "0.1")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["learned"] == 600 and told["refused"] == 0
    newest = registry.version(told["version"])
    chain = registry.lineage(newest)
    assert [v.round for v in chain[:4]] == [3, 2, 1, 0] and chain[4].name == "run:2"
    assert [v.manifest["record"]["learned"] for v in chain[:4]] == [600, 400, 200, 0]
    assert registry.aliases()["challenger"].name == newest.name
    assert registry.evidence(newest)["learn"]["progressive"]["accuracy"] > 0.8
    assert registry.verify() == []
    assert run(words(registry, stream(tmp_path / "events.jsonl", (x[:700], y[:700])), "--run", told["run"])) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["run"] == told["run"] and again["learned"] == 700, "it went on behind what it had read"


def test_a_bad_stream_ends_with_status_four_and_the_alias_stays(
    start: tuple[Registry, np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, x, y = start
    refused = tmp_path / "refused.jsonl"
    events = stream(tmp_path / "events.jsonl", (x[:400], y[:400]), (x[400:800], 1 - y[400:800]))
    more = ["--alias", "challenger", "--stop-after", "3", "--refused", str(refused), "--every", "2"]
    assert run(words(registry, events, *more)) == 4
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["learned"] == 400 and told["refused"] == 150 and told["read"] == 550
    assert "events 401 to 450: its labels are denied: an error of" in captured.err
    assert registry.aliases()["challenger"].manifest["record"]["learned"] == 400
    assert [json.loads(line)["event"] for line in refused.read_text().splitlines()] == list(range(401, 551))


def test_a_stream_that_is_not_there_begins_no_run(
    start: tuple[Registry, np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    registry, *_ = start
    before = len(registry.runs())
    for source, says in (("nowhere.jsonl", "--input: got nowhere.jsonl"), ("http://x", "--url: got http://x")):
        assert run(words(registry, source)) == 2
        assert says in capsys.readouterr().err
    assert len(registry.runs()) == before


@pytest.mark.slow
def test_a_server_follows_what_is_learned_from_a_brokers_queue(
    start: tuple[Registry, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    registry, x, y = start
    url = f"filesystem:///{tmp_path / 'broker'}"
    registry.promote("run:2", "challenger")
    command = [*FL, "serve", "challenger", "--port", "0", "--registry", str(registry.folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    learning = subprocess.Popen(
        [*FL, *words(registry, url, "--alias", "challenger", "--every", "2", "--until-idle", "5")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        base = server.stdout.readline().strip()
        asked = {"rows": [{"a": 0.1, "b": 0.2, "c": 0.3}]}
        assert httpx.post(f"{base}/predict", json=asked).json()["version"] == "run:2"
        with contextlib.closing(Broker(url)) as broker:
            broker.send("meadow.events", lines(x[:200], y[:200]))
        out, _ = learning.communicate(timeout=120)
        told = json.loads(out)
        assert told["learned"] == 200
        ends = time.monotonic() + 20
        while (seen := httpx.post(f"{base}/predict", json=asked).json()["version"]) != told["version"]:
            assert time.monotonic() < ends, seen
            time.sleep(0.1)
    finally:
        for process in (server, learning):
            process.terminate()
            process.wait(timeout=30)
