"""`fl data features` as it is typed: rows in, features of a past moment out, and those of one key for a request."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import cli

ROWS = """patient,seen,weight,pulse
1,2020-01-01,70.25,61
1,2020-03-01,72.5,
2,2020-02-01,81.125,90
"""
ASKED = """patient,seen
1,2019-12-31
1,2020-02-29
1,2020-03-01
2,2021-01-01
"""
NAMED = ("--key", "patient", "--time", "seen")


@pytest.fixture
def fl(capsys, tmp_path, monkeypatch):
    """Runs `fl data features` in a folder with rows.csv and asked.csv: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "asked.csv").write_text(ASKED)

    def run(*arguments):
        capsys.readouterr()
        status = cli.run(["data", "features", *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def store(fl):
    assert fl("write", "s.duckdb", "visits", "--table", "rows.csv", *NAMED)[0] == 0
    return "s.duckdb"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_row_of_the_history_sees_its_future_and_a_request_gets_the_same(fl, store, tmp_path, suffix):
    import duckdb

    status, out, err = fl("history", store, "visits", "--asked", "asked.csv", *NAMED, "--output", f"f.{suffix}")
    assert status == 0 and "4 rows with 2 features" in out, err
    found = duckdb.sql(f"SELECT weight, pulse FROM '{tmp_path}/f.{suffix}'").fetchnumpy()
    weight, pulse = (np.ma.filled(np.ma.asarray(found[name]), np.nan).tolist() for name in ("weight", "pulse"))
    assert weight[1:] == [70.25, 72.5, 81.125] and weight[0] != weight[0]
    assert pulse[1] == 61 and pulse[2] != pulse[2] and pulse[3] == 90
    online = [
        json.loads(fl("lookup", store, "visits", key, "--time", time, "--json")[1])
        for key, time in (line.split(",") for line in ASKED.splitlines()[1:])
    ]
    assert [one["weight"] for one in online] == [None, *weight[1:]]
    assert json.loads(fl("lookup", store, "visits", "1", "--json")[1]) == {"weight": 72.5, "pulse": None}


def test_later_rows_are_added_and_a_view_keeps_its_columns(fl, store, tmp_path):
    (tmp_path / "more.csv").write_text("patient,seen,pulse,weight\n1,2020-04-01,70,75.5\n")
    assert fl("write", store, "visits", "--table", "more.csv", *NAMED)[0] == 0
    assert json.loads(fl("lookup", store, "visits", "1", "--json")[1]) == {"weight": 75.5, "pulse": 70.0}


SPENT = ("--window", "weight_sum=sum:weight:60", "--window", "ward_mean=mean:weight:all:ward")
WARDS = """patient,seen,weight,ward
1,2020-01-01,70.25,3
1,2020-03-15,72.5,3
2,2020-02-01,81.25,3
"""


def test_windows_over_time_and_groups_are_kept_with_the_view(fl, tmp_path):
    import duckdb

    (tmp_path / "wards.csv").write_text(WARDS)
    (tmp_path / "more.csv").write_text("patient,seen,weight,ward\n2,2021-06-01,90,4\n")
    assert fl("write", "s.duckdb", "wards", "--table", "wards.csv", *NAMED, *SPENT)[0] == 0
    assert fl("write", "s.duckdb", "wards", "--table", "more.csv", *NAMED)[0] == 0
    assert fl("history", "s.duckdb", "wards", "--asked", "asked.csv", *NAMED, "--output", "f.csv")[0] == 0
    found = duckdb.sql(f"SELECT weight_sum, ward_mean FROM '{tmp_path}/f.csv'").fetchall()
    assert [row[0] for row in found] == [0.0, 70.25, 0.0, 0.0], "1 March is 60 days after 1 January: no longer within"
    assert found[0][1] is None or found[0][1] != found[0][1]
    # Patient 2 was in the ward by then; what comes later, and its later ward, is unknown.
    assert [row[1] for row in found[1:]] == [75.75, 75.75, 224 / 3]
    online = [
        json.loads(fl("lookup", "s.duckdb", "wards", key, "--time", time, "--json")[1])
        for key, time in (line.split(",") for line in ASKED.splitlines()[1:])
    ]
    assert [(one["weight_sum"], one["ward_mean"]) for one in online] == [
        (a, None if b is None or b != b else b) for a, b in found
    ]


@pytest.mark.parametrize(
    "window, words",
    [
        ("spent", "--window: got spent, allowed: INTO=BY:COLUMN:SPAN[:GROUP]"),
        ("spent=sum:weight:soon", "allowed: INTO=BY"),
        ("spent=median:weight:7", "window spent: got median"),
        ("spent=sum:height:7", "no column 'height' in rows.csv"),
        ("pulse=sum:weight:7", "pulse"),
    ],
)
def test_a_window_that_cannot_be_is_refused_before_anything_is_written(fl, tmp_path, window, words):
    status, _, err = fl("write", "s.duckdb", "visits", "--table", "rows.csv", *NAMED, "--window", window)
    assert status == 2 and words in err, err
    assert not list(tmp_path.glob("s.duckdb*"))


@pytest.mark.slow
def test_a_view_makes_the_features_of_a_version(fl, tmp_path):
    recipe = "dataset.recipe=[{impute: {}}, {scale: {columns: [age]}}]"
    run = ("engine=inprocess", "num_rounds=1", "server.tensorboard=false", "run_dir=run", "registry_dir=r")
    assert cli.run(["simulate", "dataset=heart_disease", recipe, *run]) == 0
    names = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal"
    (tmp_path / "p.csv").write_text(f"patient,seen,{names}\n7,1,50,1,2,130,,0,0,150,0,1.5,1,0,3\n")
    version = ("--version", "run:1", "--registry", "r")
    status, _, err = fl("write", "s.duckdb", "hearts", "--table", "p.csv", *NAMED, *version)
    assert status == 0, err
    found = json.loads(fl("lookup", "s.duckdb", "hearts", "7", "--json")[1])
    assert found["chol"] > 100 and abs(found["age"]) < 2 and found["trestbps"] == 130


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("lookup", "s.duckdb", "vists", "1"), ("VIEW: got vists", "visits")),
        (("lookup", "s.duckdb", "visits", "1", "--time", "soon"), ("--time: got soon", "a date such as")),
        (("write", "s.duckdb", "visits", "--table", "none.csv"), ("--table: got none.csv",)),
        (("write", "s.duckdb", "visits", "--table", "asked.csv", *NAMED), ("no column 'weight' in asked.csv",)),
        (("write", "s.duckdb", "others", "--table", "gap.csv", *NAMED), ("'seen' is empty in data row 2 of gap.csv",)),
        (("write", "s.duckdb", "others", "--table", "text.csv", *NAMED), ("column 'pulse' of type VARCHAR",)),
        (("history", "s.duckdb", "visits", "--asked", "asked.csv", "--output", "f.txt"), ("--output: got f.txt",)),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(fl, store, tmp_path, arguments, words):
    (tmp_path / "gap.csv").write_text("patient,seen,pulse\n1,1,60\n2,,61\n")
    (tmp_path / "text.csv").write_text("patient,seen,pulse\n1,1,high\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".duckdb"}
    status, _, err = fl(*arguments)
    assert status == 2 and all(word in err for word in words), err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".duckdb"} == before
