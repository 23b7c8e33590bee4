"""`fl predict` and `/lookup`: answers computed ahead, into each kind of database, killed and started again."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pytest
import sqlalchemy

from experiments.cli import run
from experiments.compose import compose
from experiments.run import simulate
from experiments.serve import Source
from fl.registry import Registry
from fl.serving import rows
from fl.serving.databases import duckdb_file, open_database

FL = (sys.executable, "-c", "from experiments.cli import main; main()")
FEW = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("ahead")
    simulate(
        compose(["dataset=heart_disease", *FEW, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"])
    )
    return Registry(folder / "registry")


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without answers."""
    if request.param != "postgres":
        return f"{request.param}:///{tmp_path / 'answers.db'}"
    url: str = request.getfixturevalue("postgres")
    engine = open_database(url, key="url")
    with engine.begin() as connection:
        for table in ("predictions", "predictions_aside"):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    engine.dispose()
    return url


def select(url: str, query: str) -> list[tuple[Any, ...]]:
    """What a database says, asked by its own means."""
    file = duckdb_file(url)
    if file is not None:
        with duckdb.connect(str(file), read_only=True) as connection:
            return connection.execute(query).fetchall()
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]
    finally:
        engine.dispose()


def people(count: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    draw = np.random.default_rng(4)
    return [
        {"patient": f"p{n}", **dict(zip(names, draw.integers(1, 99, len(names)).tolist(), strict=True))}
        for n in range(count)
    ]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    elif path.suffix == ".parquet":
        write(path.with_suffix(".csv"), found)
        duckdb.execute(f"COPY (FROM read_csv('{path.with_suffix('.csv')}')) TO '{path}'")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    return path


def names_of(registry: Registry) -> tuple[str, ...]:
    return tuple(registry.version("champion").manifest["signature"]["feature_names"])


def words(registry: Registry, source: str | Path, url: str, *more: str) -> list[str]:
    found = ["predict", "champion", "--input", str(source), "--output", url, "--registry", str(registry.folder)]
    return [*found, "--key", "patient", *more]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "table"])
def test_every_row_has_the_versions_own_answer(registry: Registry, tmp_path: Path, output: str, kind: str) -> None:
    found = people(50, names_of(registry))
    found[3]["chol"] = None  # a missing value is the model's to fill
    if kind == "table":
        place = f"sqlite:///{tmp_path / 'hospital.db'}"
        engine = sqlalchemy.create_engine(place)
        with engine.begin() as connection:
            columns = ", ".join(f"{name} DOUBLE" for name in found[0] if name != "patient")
            connection.exec_driver_sql(f"CREATE TABLE people (patient TEXT PRIMARY KEY, {columns})")
            marks = ", ".join(f":{name}" for name in found[0])
            connection.execute(sqlalchemy.text(f"INSERT INTO people VALUES ({marks})"), found)
        engine.dispose()
        asked = words(registry, place, output, "--table", "people", "--batch-rows", "20")
    else:
        asked = words(registry, write(tmp_path / f"people.{kind}", found), output, "--batch-rows", "20")
    assert run(asked) == 0
    model = Source(registry.folder, "torch").load("champion")
    cells = [{name: row[name] for name in model.signature.feature_names} for row in found]
    expected = rows.answers_of(model.answer(model.inputs(rows.values_of(cells, model), stored=True)), model.signature)
    kept = {key: (version, label, json.loads(text)) for key, version, label, text in select(
        output, "SELECT row_key, version, label, answer FROM predictions"
    )}  # fmt: skip
    assert kept.keys() == {row["patient"] for row in found}
    for row, answer in zip(found, expected, strict=True):
        version, label, told = kept[row["patient"]]
        assert version == registry.version("champion").name and label == answer["label"]
        assert told["probabilities"] == pytest.approx(answer["probabilities"], rel=1e-5)


def test_again_changes_nothing_and_another_version_stands_beside(
    registry: Registry, tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "people.csv", people(30, names_of(registry)))
    assert run(words(registry, file, output)) == run(words(registry, file, output)) == 0
    assert "30 rows, 0 answered, 30 known before" in capsys.readouterr().out
    assert select(output, "SELECT count(*) FROM predictions") == [(30,)]
    again = words(registry, file, output)
    again[1] = "heart:0"
    assert run(again) == 0
    assert select(output, "SELECT count(*), count(DISTINCT version_hash) FROM predictions") == [(60, 2)]


BAD = [
    ("row 2, column chol: 'much' is not a number", lambda row: row | {"chol": "much"}),
    ("row 2 holds inf in column age", lambda row: row | {"age": "inf"}),
    ("row 2, column patient: 'p0' is the key of row 1 too", lambda row: row | {"patient": "p0"}),
    ("row 2, column patient: None is no key", lambda row: row | {"patient": None}),
]


@pytest.mark.parametrize("says, spoil", BAD, ids=[says for says, _ in BAD])
def test_a_bad_row_is_named_and_refused_or_put_aside(
    registry: Registry,
    tmp_path: Path,
    says: str,
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    found = people(5, names_of(registry))
    found[1] = spoil(found[1])
    file = write(tmp_path / "people.csv", found)
    assert run(words(registry, file, url)) == 2
    assert says in capsys.readouterr().err
    assert select(url, "SELECT count(*) FROM predictions") == [(0,)]
    assert run(words(registry, file, url, "--put-aside")) == 0
    assert "4 answered, 0 known before, 1 put aside" in capsys.readouterr().out
    ((number, reason),) = select(url, "SELECT row_number, reason FROM predictions_aside")
    assert number == 2 and says in reason


@pytest.mark.parametrize("url", ["sqlite", "duckdb"])
def test_a_row_that_was_mended_is_not_aside_any_more(registry: Registry, tmp_path: Path, url: str) -> None:
    place = f"{url}:///{tmp_path / 'answers.db'}"
    found = people(5, names_of(registry))
    write(tmp_path / "people.csv", [*found[:4], found[4] | {"age": "?"}])
    assert run(words(registry, tmp_path / "people.csv", place, "--put-aside")) == 0
    assert select(place, "SELECT row_key FROM predictions_aside") == [("p4",)]
    write(tmp_path / "people.csv", found)
    assert run(words(registry, tmp_path / "people.csv", place)) == 0
    assert select(place, "SELECT count(*) FROM predictions_aside") == [(0,)]
    assert select(place, "SELECT count(*) FROM predictions") == [(5,)]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"--output": "mysql://h/d"}, "--output: got mysql://h/d, allowed: sqlite:///FILE"),
        ({"--output": "postgresql://u:secret@h/d"}, "allowed: $NAME of the environment"),
        ({"--output": "postgresql://u@127.0.0.1:1/d"}, "which cannot be opened"),
        ({"--input": "nowhere.csv"}, "--input: got nowhere.csv"),
        ({"--key": "id"}, "--key: got id, allowed: a column of the input"),
    ],
)
def test_what_cannot_be_used_is_refused(
    registry: Registry, tmp_path: Path, change: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "people.csv", people(3, names_of(registry)))
    asked = words(registry, file, f"sqlite:///{tmp_path / 'answers.db'}")
    for option, value in change.items():
        asked[asked.index(option) + 1] = value
    assert run(asked) == 2
    told = capsys.readouterr().err
    assert says in told and "secret" not in told


def test_a_column_that_is_not_there_is_not_a_missing_value(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [{name: cell for name, cell in row.items() if name != "chol"} for row in people(3, names_of(registry))]
    file = write(tmp_path / "people.csv", found)
    assert run(words(registry, file, f"sqlite:///{tmp_path / 'answers.db'}")) == 2
    assert "--input: got no column chol" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_again_and_again_no_row_is_there_twice_and_none_is_missing(
    registry: Registry, tmp_path: Path, output: str
) -> None:
    """kill -9 as soon as a start has kept something, five times over; a last start ends by itself."""
    count = 30_000
    file = write(tmp_path / "people.csv", people(count, names_of(registry)))
    command = [*FL, *words(registry, file, output, "--batch-rows", "40", "--json")]
    kills, kept = 0, 0
    while kills < 5:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # DuckDB cannot be looked into while it is written: there the file grows.
            while process.poll() is None and answered(output) <= kept:
                time.sleep(0.02)
            time.sleep(0.02 * kills)
        finally:
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"it ended before it was killed: {out!r} {err!r}"
        kills += 1
        kept = answered(output)
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["known"] < count and told["known"] + told["answered"] == count
    counted = select(
        output, "SELECT count(*), count(DISTINCT row_key), min(row_number), max(row_number) FROM predictions"
    )
    assert counted == [(count, count, 1, count)]


def answered(url: str) -> int:
    file = duckdb_file(url)
    if file is not None:
        return sum(path.stat().st_size for path in file.parent.glob("answers.db*"))
    try:
        return int(select(url, "SELECT count(*) FROM predictions")[0][0])
    except sqlalchemy.exc.SQLAlchemyError:
        return 0


def test_a_server_looks_answers_up(registry: Registry, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    found = people(5, names_of(registry))
    found[2]["age"] = "old"
    found[3]["patient"] = "ward 7/b"
    file = write(tmp_path / "people.csv", found)
    assert run(words(registry, file, url, "--put-aside")) == 0
    tokens = tmp_path / "tokens"
    tokens.write_text("word\n")
    command = [*FL, "serve", "champion", "first=heart:0", "--lookup", url, "--port", "0"]
    server = subprocess.Popen(
        [*command, "--registry", str(registry.folder), "--token-file", str(tokens)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        base, bearer = server.stdout.readline().strip(), {"Authorization": "Bearer word"}
        champion = registry.version("champion")
        answer = httpx.get(f"{base}/lookup/p0", headers=bearer)
        assert answer.status_code == 200
        assert answer.json()["version"] == champion.name and answer.json()["hash"] == champion.hash
        assert answer.json()["prediction"]["label"] in ("disease", "no disease")
        assert httpx.get(f"{base}/lookup/ward 7/b", headers=bearer).json()["key"] == "ward 7/b"
        cases = {
            "/lookup/p2": f"{champion.name} has no answer to 'p2': row 3, column age: 'old' is not a number",
            "/lookup/nobody": f"no answer of {champion.name} is stored for 'nobody', nor of any other version",
            "/lookup/p0?model=first": f"no answer of heart:0 is stored for 'p0', only of {champion.name}",
            "/lookup/p0?model=other": "there is no model 'other', only model, first",
        }
        for path, says in cases.items():
            answer = httpx.get(base + path, headers=bearer)
            assert (answer.status_code, answer.json()["error"]) == (404, says)
        assert httpx.get(f"{base}/lookup/p0").status_code == 401
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.slow
def test_a_bundle_answers_as_its_version(registry: Registry, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    file = write(tmp_path / "people.csv", people(5, names_of(registry)))
    bundles = tmp_path / "bundles"
    made = ["package", "champion", "--output", str(bundles), "--registry", str(registry.folder)]
    assert run([*made, "--override", "a test"]) in (0, 2)
    if not bundles.exists() or not any(bundles.iterdir()):
        assert run(made) == 0
    (bundle,) = bundles.iterdir()
    for name in ("champion", str(bundle)):
        asked = words(registry, file, url)
        asked[1] = name
        assert run(asked) == 0
    answers = select(url, "SELECT row_key, answer FROM predictions ORDER BY row_key, version_hash")
    assert len(answers) == 10
    for (key, first), (other, second) in zip(answers[::2], answers[1::2], strict=True):
        assert key == other
        assert json.loads(first)["probabilities"] == pytest.approx(json.loads(second)["probabilities"], rel=1e-6)
