"""JSON lines and SQL: what is read is what a CSV of the same gives, and what is refused names file, column and row."""

import json
import sqlite3

import duckdb
import numpy as np
import pytest

from fl.data.catalog import load
from fl.errors import BadInput

ROWS = [
    {"age": 30 + n, "income": None if n == 2 else 1000.5 * n, "ok": n % 3 == 0, "sick": n % 2, "site": f"s{n % 4}"}
    for n in range(12)
]
COLUMNS = {"label": "sick", "client": "site"}


@pytest.fixture
def files(tmp_path):
    """The same rows as CSV, JSON lines, SQLite and DuckDB."""
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    cells = [["" if v is None else str(v).lower() for v in row.values()] for row in ROWS]
    (tmp_path / "t.csv").write_text("\n".join([",".join(ROWS[0]), *map(",".join, cells)]) + "\n")
    with sqlite3.connect(tmp_path / "t.sqlite") as base:
        base.execute("CREATE TABLE t (age INTEGER, income REAL, ok INTEGER, sick INTEGER, site TEXT)")
        base.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", [tuple(row.values()) for row in ROWS])
    base.close()
    with duckdb.connect(str(tmp_path / "t.duckdb")) as base:
        base.execute(f"CREATE TABLE t AS SELECT * FROM '{tmp_path}/t.csv'")
    return tmp_path


def same(one, other):
    assert np.array_equal(one.x.astype(np.float32), other.x.astype(np.float32), equal_nan=True)
    assert one.y.tolist() == other.y.tolist() and one.client.tolist() == other.client.tolist()
    assert one.client_names == other.client_names
    assert one.signature.feature_names == other.signature.feature_names == ("age", "income", "ok")


def test_json_lines_are_a_table(files):
    found = load("jsonl", path=files / "t.jsonl", **COLUMNS)
    same(found, load("csv", path=files / "t.csv", **COLUMNS))
    assert found.x.dtype == np.float32 and np.isnan(found.x[2, 1])


@pytest.mark.parametrize("how", ["files", "duckdb", "sqlite"])
def test_a_query_gives_what_the_file_has(files, how):
    options = {
        "files": {"query": f"SELECT * FROM '{files}/t.jsonl'"},
        "duckdb": {"query": "SELECT * FROM t", "path": files / "t.duckdb"},
        "sqlite": {"query": "SELECT * FROM t ORDER BY rowid", "url": f"sqlite:///{files}/t.sqlite"},
    }[how]
    same(load("sql", **options, **COLUMNS), load("csv", path=files / "t.csv", **COLUMNS))


def test_a_password_comes_from_the_environment(files, monkeypatch):
    monkeypatch.setenv("WHERE", str(files))
    assert len(load("sql", query="SELECT * FROM t", url="sqlite:///$WHERE/t.sqlite", **COLUMNS)) == 12
    with pytest.raises(BadInput) as raised:
        load("sql", query="SELECT 1", url="postgresql://me:s3cret@host/base", **COLUMNS)
    assert "s3cret" not in str(raised.value) and "$NAME" in str(raised.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1, "y": 0}\n{"a": 2, "y":\n', r"t\.jsonl, which cannot be read \(.*Malformed JSON.* line 3"),
        ('{"a": 1, "y": 0}\n{"a": "x", "y": 1}\n', r"column 'a' of type JSON, '.x.' in data row 2 of .*t\.jsonl"),
        ('{"a": 1, "y": 0}\n{"a": 2}\n', r"dataset\.label: got column 'y' is empty in data row 2 of .*t\.jsonl"),
        ("", r"dataset\.path: got .*t\.jsonl"),
    ],
)
def test_broken_json_lines(tmp_path, text, message):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(BadInput, match=message):
        load("jsonl", path=tmp_path / "t.jsonl", label="y")


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, r"dataset\.query: got None"),
        ({"query": "SELEC"}, r"dataset\.query: got the query, which cannot be read \(Parser Error"),
        ({"query": "SELECT * FROM t", "path": "{}/none.duckdb"}, r"dataset\.query: got .*none\.duckdb"),
        ({"query": "SELECT * FROM u", "url": "sqlite:///{}/t.sqlite"}, r"cannot answer \(no such table: u\)"),
        ({"query": "SELECT * FROM t", "url": "sqlite:///{}/none"}, r"dataset\.url: .*a database file that exists"),
        ({"query": "SELECT * FROM t WHERE age > 99", "url": "sqlite:///{}/t.sqlite"}, r"dataset\.query: .* no rows"),
        ({"query": "SELECT age, site AS sick2 FROM t", "url": "sqlite:///{}/t.sqlite"}, r"dataset\.label: got sick"),
        ({"query": "SELECT 1", "url": "nothing://x"}, r"dataset\.url: got nothing://x, which cannot answer"),
        ({"query": "SELECT 1", "url": "sqlite://", "path": "x"}, r"dataset\.url: .*null where dataset\.path"),
    ],
)
def test_broken_queries(files, options, message):
    with pytest.raises(BadInput, match=message):
        load("sql", **{name: text.replace("{}", str(files)) for name, text in options.items()}, **COLUMNS)


def test_a_text_among_numbers_of_a_csv_is_named(files):
    path = files / "t.csv"
    path.write_text(path.read_text().replace("\n35,", "\nold,"))
    with pytest.raises(BadInput, match=r"column 'age' of type VARCHAR, 'old' in data row 6 of .*t\.csv"):
        load("csv", path=path, **COLUMNS)
