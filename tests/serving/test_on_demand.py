"""Answers through a broker, as its users meet it: processes that are killed, and every request with one answer."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
import sqlalchemy.orm

from experiments.broker import _beside
from experiments.cli import run
from experiments.compose import compose
from experiments.run import simulate
from fl import interrupts
from fl.errors import BadInput, Interrupted, StorageFailed
from fl.parameters import Array
from fl.registry import Registry
from fl.serving.model import Model
from fl.serving.on_demand.asking import Asker
from fl.serving.on_demand.ledger import Ledger
from fl.serving.on_demand.queues import Broker, all_of, queue_names
from fl.serving.on_demand.worker import Worker
from fl.serving.slots import LOOK_SECONDS, Slot, Slots
from fl.signature import Signature

FL = (sys.executable, "-c", "from experiments.cli import main; main()")
FEW = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false", "dataset=synthetic", "dataset.dimension=4")
SIGNATURE = Signature(task="regression", input_shape=(1,), input_dtype="float32", num_outputs=1, feature_names=("a",))


class Redis:
    """A redis-server of the test's own that writes every change down, and can be killed and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.start()

    def start(self) -> None:
        settings = ["--appendonly", "yes", "--save", "", "--bind", "127.0.0.1"]
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), *settings]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)


@pytest.fixture
def redis(tmp_path: Path, port: int) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server is installed")
    pytest.importorskip("redis")
    server = Redis(tmp_path, port)
    yield server
    server.kill()


@pytest.fixture(params=["filesystem", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis').port}/0"
    start = {"filesystem": "filesystem://", "sqlite": "sqlalchemy+sqlite://"}[request.param]
    return f"{start}/{tmp_path / {'filesystem': 'broker', 'sqlite': 'broker.db'}[request.param]}"


@pytest.fixture
def answers(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'answers.db'}"


def rows_of(count: int) -> dict[str, Any]:
    return {f"k{n}": {"a": float(n)} for n in range(count)}


def doubled(inputs: Array) -> Array:
    return inputs * 2


def worker_of(broker: Broker, answers: str, answer: Callable[[Array], Array] = doubled, **values: Any) -> Worker:
    models = {"one": Model("run:1", "1" * 64, SIGNATURE, answer)}
    slots = Slots({}, lambda name: models[name].hash, lambda name: models[name])
    return Worker(broker, Ledger(answers), slots, Slot("one", models["one"]), "meadow", **values)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextlib.contextmanager
def in_a_thread(work: Callable[[Callable[[], bool]], Any]) -> Iterator[None]:
    """``work`` beside the block; it is given a function that says whether the block has ended."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work, ended.is_set)
        try:
            yield
        finally:
            ended.set()
        done.result(timeout=250)


def working(url: str, answers: str, answer: Callable[[Array], Array] = doubled, **values: Any) -> Any:
    """A worker beside the block."""

    def work(ended: Callable[[], bool]) -> None:
        with contextlib.closing(Broker(url)) as broker:
            worker = worker_of(broker, answers, answer, **values)
            worker.run(ended=ended)
            worker.ledger.close()

    return in_a_thread(work)


def test_every_row_has_one_answer_and_a_second_asking_none_more(url: str, answers: str, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    with working(url, answers, most_rows=7), contextlib.closing(Broker(url)) as broker:
        assert Asker(broker, "meadow", output).ask(rows_of(30)) == 0
        assert Asker(broker, "meadow", output).ask(rows_of(30)) == 30
        assert Asker(broker, "meadow", output).ask(rows_of(40)) == 30
    found = {line["key"]: line for line in read(output)}
    assert len(read(output)) == len(found) == 40
    assert [found[f"k{n}"]["prediction"]["value"] for n in range(40)] == [2.0 * n for n in range(40)]
    assert {line["version"] for line in found.values()} == {"run:1"}
    assert not output.with_name("out.jsonl.asker").exists()


def test_what_a_dead_process_took_comes_back(url: str) -> None:
    """It takes five and is killed; nobody else has them, until they are put back."""
    code = (
        "import os, sys\nfrom fl.serving.on_demand.queues import Broker\n"
        "taken = Broker(sys.argv[1]).take('q', most=5, wait_seconds=20)\nos.kill(os.getpid(), 9)\n"
    )
    with contextlib.closing(Broker(url, visible_seconds=0.5)) as broker:
        broker.send("q", [{"n": n} for n in range(8)])
        died = subprocess.run([sys.executable, "-c", code, url], timeout=200)
        assert died.returncode == -signal.SIGKILL
        seen = [one.body["n"] for one in broker.take("q", most=10, wait_seconds=5)]
        assert len(seen) == 3
        time.sleep(0.6)
        broker.recover()
        seen += [one.body["n"] for one in broker.take("q", most=10, wait_seconds=5)]
        assert sorted(seen[:8]) == list(range(8)) or set(seen) == set(range(8))


def test_what_is_done_does_not_come_back(url: str) -> None:
    with contextlib.closing(Broker(url, visible_seconds=0.5)) as broker:
        broker.send("q", [{"n": n} for n in range(4)])
        taken = broker.take("q", most=4, wait_seconds=5)
        broker.done(taken[:3])
        time.sleep(0.6)
    with contextlib.closing(Broker(url, visible_seconds=0.5)) as broker:
        broker.recover()
        assert [one.body["n"] for one in broker.take("q", most=4, wait_seconds=2)] == [taken[3].body["n"]]


def test_a_request_that_cannot_be_answered_is_a_dead_letter_with_its_reason(
    url: str, answers: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"

    def moody(inputs: Array) -> Array:
        if (inputs == 13).any():
            raise RuntimeError("thirteen")
        return doubled(inputs)

    asked = {"good": {"a": 1}, "text": {"a": "one"}, "other": {"b": 1}, "ill": {"a": 13}, "list": [2]}
    with working(url, answers, moody, most_tries=3), contextlib.closing(Broker(url)) as broker:
        Asker(broker, "meadow", output).ask(asked)
    with contextlib.closing(Broker(url)) as broker:
        letters = {letter["id"].partition(":")[2]: letter for letter in all_of(broker, queue_names("meadow")[1])}
        assert not list(all_of(broker, queue_names("meadow")[1]))
    found = {line["key"]: line for line in read(output)}
    assert found["good"]["prediction"] == {"value": 2.0} and found["list"]["prediction"] == {"value": 4.0}
    reasons = {
        "text": "column a: 'one' is not a number",
        "other": "there is no column 'b', only a",
        "ill": "the model failed at each of 3 tries: thirteen",
    }
    assert {key: letter["reason"] for key, letter in letters.items()} == reasons
    assert {key: found[key]["error"] for key in reasons} == reasons
    assert letters["ill"]["tries"] == 3 and letters["ill"]["row"] == {"a": 13}


@pytest.mark.slow
def test_a_request_that_ends_its_worker_is_given_up_and_takes_no_other_with_it(tmp_path: Path, answers: str) -> None:
    """A worker that dies at 13 is started again, as whoever keeps it running would."""
    url = f"filesystem:///{tmp_path / 'broker'}"
    code = (
        "import os, sys\nimport numpy as np\nfrom tests_worker import worker_of\n"
        "from fl.serving.on_demand.queues import Broker\n"
        "def deadly(inputs):\n    if (inputs == 13).any(): os.kill(os.getpid(), 9)\n    return inputs * 2\n"
        "worker_of(Broker(sys.argv[1]), sys.argv[2], deadly, most_tries=2).run(idle_seconds=2)\n"
    )
    shutil.copy(__file__, tmp_path / "tests_worker.py")
    output = tmp_path / "out.jsonl"
    ends: list[int] = []

    def work(ended: Callable[[], bool]) -> None:
        while not ends or ends[-1]:
            ends.append(
                subprocess.run([sys.executable, "-c", code, url, answers], cwd=tmp_path, timeout=200).returncode
            )
            assert len(ends) < 6

    with in_a_thread(work), contextlib.closing(Broker(url)) as broker:
        Asker(broker, "meadow", output).ask(rows_of(20))
    found = {line["key"]: line for line in read(output)}
    assert found["k13"]["error"] == "its worker ended at each of 2 tries"
    assert [found[f"k{n}"]["prediction"]["value"] for n in range(20) if n != 13] == [
        2.0 * n for n in range(20) if n != 13
    ]
    assert ends == [-9, -9, 0]


def test_the_model_is_released_between_two_batches(tmp_path: Path, answers: str) -> None:
    url = f"sqlalchemy+sqlite:///{tmp_path / 'broker.db'}"
    models = {
        version: Model(version, digit * 64, SIGNATURE, lambda x, by=by: x * by)  # type: ignore[misc]
        for version, digit, by in (("run:1", "1", 2), ("run:2", "2", 3))
    }
    means = {"champion": "run:1"}
    slots = Slots({}, lambda name: models[means[name]].hash, lambda name: models[means[name]])
    with contextlib.closing(Broker(url)) as broker:
        worker = Worker(broker, Ledger(answers), slots, Slot("champion", models["run:1"]), "meadow")
        broker.send("meadow", [{"id": f"x:{n}", "asker": "x", "row": [n]} for n in (1, 2)])
        worker.run(idle_seconds=0.3)
        means["champion"] = "run:2"
        time.sleep(LOOK_SECONDS)  # between two looks
        broker.send("meadow", [{"id": f"x:{n}", "asker": "x", "row": [n]} for n in (2, 3)])
        worker.run(idle_seconds=0.3)
        told = list(all_of(broker, "meadow.answers.x"))
        worker.ledger.close()
    values = [(one["id"], one["version"], one["prediction"]["value"]) for one in told]
    assert values == [("x:1", "run:1", 2.0), ("x:2", "run:1", 4.0), ("x:3", "run:2", 9.0)]


def test_a_connection_that_breaks_in_the_middle_of_a_commit_locks_nobody_out(tmp_path: Path) -> None:
    """As where two declare the same queue at once: one of them fails, and its session has the database locked."""
    url = f"sqlalchemy+sqlite:///{tmp_path / 'broker.db'}"
    with contextlib.closing(Broker(url)) as broken, contextlib.closing(Broker(url)) as other:
        broken.send("q", [{"n": 1}])
        channel = broken._channel  # held, as a traceback would
        channel.session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))
        broken._drop()
        began = time.monotonic()
        other.send("q", [{"n": 2}])
        assert time.monotonic() - began < 30
        assert [one.body["n"] for one in other.take("q", most=2, wait_seconds=2)] == [1, 2]
        assert channel.closed


def test_what_was_taken_through_a_connection_that_broke_is_let_go(url: str) -> None:
    """The answers went out through a new one: the worker goes on, and what comes once more is known then."""
    with contextlib.closing(Broker(url, visible_seconds=0.5)) as broker:
        broker.send("meadow", [{"n": 1}])
        taken = broker.take("meadow", most=1, wait_seconds=2)
        broker._drop()
        broker.done(taken)
        broker.send("meadow", [{"n": 2}])
        broker.done(taken)
        assert broker.take("meadow", most=1, wait_seconds=2)[-1].body in ({"n": 1}, {"n": 2})


def test_answers_that_never_come_are_given_up(tmp_path: Path) -> None:
    with contextlib.closing(Broker(f"filesystem:///{tmp_path / 'broker'}")) as broker:
        asker = Asker(broker, "meadow", tmp_path / "out.jsonl", again_seconds=0.3, patience_seconds=0.5)
        with pytest.raises(StorageFailed, match=r"3 of 3 answers did not come within 0.5 s; the same command goes on"):
            asker.ask(rows_of(3))


def test_what_is_no_message_is_let_go(tmp_path: Path, answers: str) -> None:
    """A torn file, and a message of somebody else's: the worker goes on."""
    with contextlib.closing(Broker(f"filesystem:///{tmp_path / 'broker'}")) as broker:
        broker.send("meadow", [{"hello": "there"}])
        (tmp_path / "broker" / "messages" / "1_torn.meadow.msg").write_text('{"body": "ey')
        broker.send("meadow", [{"id": "x:1", "asker": "x", "row": [4]}])
        worker = worker_of(broker, answers)
        assert worker.run(idle_seconds=1).answered == 1
        worker.ledger.close()
        assert not list((tmp_path / "broker" / "messages").glob("*.meadow.msg"))
        assert [file.name for file in (tmp_path / "broker" / "torn").iterdir()] == ["1_torn.meadow.msg"]


@pytest.mark.parametrize("place", ["http://x", "filesystem:///", "redis://:secret@h/0"])
def test_a_broker_that_there_is_not_is_refused(place: str) -> None:
    with pytest.raises(BadInput, match="--url: got ") as found:
        Broker(place)
    assert "secret" not in str(found.value)


def test_answers_are_kept_beside_the_broker_or_where_it_is_said(tmp_path: Path) -> None:
    assert _beside(Broker("filesystem:////a/b")) == "sqlite:////a/b/answers.db"
    assert _beside(Broker("sqlalchemy+sqlite:////a/b.db")) == "sqlite:////a/b.db.answers.db"
    with pytest.raises(BadInput, match="--answers: got nothing"):
        _beside(Broker("redis://127.0.0.1:1/0"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("on-demand")
    simulate(compose([*FEW, f"run_dir={folder / 'run'}", f"registry_dir={folder / 'registry'}"]))
    return Registry(folder / "registry")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["worker", "server", "asker"])
def test_killed_in_the_middle_of_a_thousand_requests_there_are_a_thousand_answers(
    request: pytest.FixtureRequest, registry: Registry, url: str, answers: str, tmp_path: Path, victim: str
) -> None:
    """kill -9 three times over, each time when some hundred answers are there and others are not."""
    redis: Redis | None = request.getfixturevalue("redis") if url.startswith("redis") else None
    if victim == "server" and redis is None:
        pytest.skip("this broker is files: there is no server to kill")
    count = 1000
    draw = np.random.default_rng(5)
    file, output = tmp_path / "asked.jsonl", tmp_path / "out.jsonl"
    lines = [{"id": f"r{n}", **{f"x{c}": float(draw.normal()) for c in range(4)}} for n in range(count)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ["--url", url, "--visible-seconds", "3"]
    work = [*FL, "broker", "worker", "champion", *more, "--answers", answers, "--registry", str(registry.folder)]
    work += ["--batch-rows", "8"]
    ask = [*FL, "broker", "ask", *more, "--input", str(file), "--output", str(output), "--key", "id"]
    ask += ["--again-seconds", "12", "--json"]
    log = (tmp_path / "log").open("w")
    started = {"worker": subprocess.Popen(work, stderr=log), "asker": subprocess.Popen(ask, stderr=log)}
    kills = 0
    try:
        ends = time.monotonic() + 540
        while started["asker"].poll() is None and time.monotonic() < ends:
            there = output.read_text().count("\n") if output.exists() else 0
            if kills < 3 and there > 100 + 250 * kills:
                assert there < count
                kills += 1
                if victim == "server":
                    assert redis is not None
                    redis.kill()
                    time.sleep(0.5)
                    redis.start()
                else:
                    started[victim].kill()
                    started[victim].wait(timeout=30)
                    started[victim] = subprocess.Popen(work if victim == "worker" else ask, stderr=log)
            time.sleep(0.01)
        assert started["asker"].returncode == 0, (tmp_path / "log").read_text()
    finally:
        for process in started.values():
            process.terminate()
            process.wait(timeout=30)
        log.close()
    assert kills == 3
    keys = [line["key"] for line in read(output)]
    assert len(keys) == count and set(keys) == {f"r{n}" for n in range(count)}
    assert all("prediction" in line for line in read(output))
    engine = sqlalchemy.create_engine(answers)
    with engine.connect() as connection:
        query = "SELECT count(*), count(DISTINCT id), count(answer) FROM requests"
        assert tuple(connection.exec_driver_sql(query).one()) == (count, count, count)
    engine.dispose()


def test_no_signal_is_lost_in_what_a_broker_calls(tmp_path: Path) -> None:
    """Raised inside SQLAlchemy some were, and whoever was told to end went on for ever."""
    draw = random.Random(3)
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        with contextlib.closing(Broker(f"sqlalchemy+sqlite:///{tmp_path}/broker.db")) as broker:
            broker.send("some", [{"id": "1"}])
            assert len(broker.take("some", most=8, wait_seconds=0.0)) == 1

            def take_until_told() -> None:
                ends = time.monotonic() + 5
                with interrupts.handled():
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0005, 0.01))
                    while time.monotonic() < ends:
                        broker.take("some", most=8, wait_seconds=0.005)

            for _ in range(400):
                with pytest.raises(Interrupted):
                    take_until_told()
            broker.send("some", [{"id": "2"}])
            assert [one.body["id"] for one in broker.take("some", most=8, wait_seconds=0.0)] == ["2"]
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_the_commands_ask_and_answer(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"filesystem:///{tmp_path / 'broker'}"
    file = tmp_path / "asked.csv"
    file.write_text("x0,x1,x2,x3\n1,2,3,4\n1,2,x,4\n")
    work = ["broker", "worker", "champion", "--url", url, "--registry", str(registry.folder), "--until-idle", "4"]
    process = subprocess.Popen([*FL, *work], stdout=subprocess.PIPE, text=True)
    assert run(["broker", "ask", "--url", url, "--input", str(file), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert process.communicate(timeout=200)[0] == "1 answered, 0 known before, 1 dead letters\n"
    assert "2 answers in" in capsys.readouterr().out
    assert run(["broker", "dead", "--url", url]) == 0
    (letter,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert letter["reason"] == "column x2: 'x' is not a number"
