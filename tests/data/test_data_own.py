"""The user's own data: what is read, and what is refused with which words."""

import numpy as np
import pytest

from fl.data.catalog import load
from fl.data.dataset import Dataset
from fl.errors import BadInput

GOOD = {
    "x": np.arange(24, dtype=np.float32).reshape(6, 4),
    "y": np.array([0, 1, 2, 0, 1, 2]),
    "client": np.array([7, 7, 3, 3, 7, 9]),
}


def write(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


def npz(tmp_path, **changes):
    arrays = {k: v for k, v in (GOOD | changes).items() if v is not None}
    return load("npz", path=write(tmp_path, **arrays))


def test_npz_arrays_come_back_as_they_are(tmp_path):
    data = npz(tmp_path)
    assert np.array_equal(data.x, GOOD["x"])
    assert data.client.tolist() == [1, 1, 0, 0, 1, 2]
    assert data.client_names == ("3", "7", "9")
    assert data.signature.num_outputs == 3
    assert data.x_test is None


@pytest.mark.parametrize(
    "x, shape, dtype, scale",
    [
        (np.zeros((6, 5, 4), np.uint8), (1, 5, 4), "float32", 1 / 255),
        (np.zeros((6, 3, 5, 4), np.uint8), (3, 5, 4), "float32", 1 / 255),
        (np.zeros((6, 5, 4), np.float32), (1, 5, 4), "float32", 1.0),
        (np.zeros((6, 4), np.float64), (4,), "float64", 1.0),
        (np.zeros((6, 4), np.int64), (4,), "float32", 1.0),
        (np.zeros((6, 4), np.uint8), (4,), "float32", 1.0),
        (np.zeros((6, 4), bool), (4,), "float32", 1.0),
    ],
)
def test_dtypes_and_shapes_follow_the_rules(tmp_path, x, shape, dtype, scale):
    signature = npz(tmp_path, x=x).signature
    assert (signature.input_shape, signature.input_dtype, signature.input_scale) == (shape, dtype, scale)


def test_task_follows_the_labels(tmp_path):
    assert npz(tmp_path, y=np.array([0.0, 1, 2, 0, 1, 2])).signature.task == "classification"
    regression = npz(tmp_path, x=GOOD["x"].astype(np.float64), y=np.array([0.5, 1, 2, 0, 1, 2], np.float32))
    assert regression.signature.task == "regression"
    assert regression.y.dtype == np.float64
    assert load("npz", path=write(tmp_path, **GOOD), task="regression").signature.task == "regression"
    tokens = {"x": np.array([[1, 2, 3]] * 4), "y": np.array([[2, 3, 9]] * 4)}
    signature = load("npz", path=write(tmp_path, **tokens), task="next_token").signature
    assert (signature.num_outputs, signature.input_shape, signature.input_dtype) == (10, (3,), "int64")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": None}, r"dataset\.path: got no array 'y' in .*data\.npz, allowed: arrays x and y \(found: client, x\)"),
        ({"y": np.arange(5)}, r"array 'y' of 5 rows .* allowed: 6 rows, as in 'x'"),
        ({"client": np.zeros(5, int)}, r"array 'client' of 5 rows"),
        ({"client": np.full(6, 0.5)}, r"dataset\.client: got array 'client' of dtype float64"),
        ({"x": np.zeros(6)}, r"array 'x' of shape \(6,\)"),
        ({"x": np.zeros((6, 0))}, r"array 'x' of shape \(6, 0\)"),
        ({"x": np.zeros((0, 3))}, r"array 'x' is empty"),
        ({"x": np.array([["a"]] * 6)}, r"array 'x' of dtype <U1"),
        ({"x": np.full((6, 2), np.inf)}, r"array 'x' with infinite or NaN values .* row 0"),
        ({"x": np.full((6, 2, 2), np.nan)}, r"array 'x' with infinite or NaN"),
        ({"y": np.array([0, 1, 2, np.nan, 1, 0])}, r"dataset\.label: got array 'y' is nan in row 3"),
        ({"y": np.array([0, 1, 2, -1, 1, 0])}, r"dataset\.label: got array 'y' is -1 in row 3"),
        ({"y": np.array([0, 1, 2, 5000, 1, 0])}, r"dataset\.label: got 4 different labels up to 5000"),
        ({"y": np.zeros((6, 2), int)}, r"array 'y' of shape \(6, 2\)"),
        ({"x_test": np.zeros((2, 4))}, r"only 'x_test' .* allowed: x_test and y_test together"),
        ({"x_test": np.zeros((2, 3)), "y_test": np.zeros(2, int)}, r"array 'x_test' of shape \(2, 3\)"),
        ({"x_test": np.zeros((2, 4)), "y_test": np.zeros(3, int)}, r"array 'y_test' of 3 rows"),
        (
            {"x_test": np.zeros((2, 4)), "y_test": np.array([0, 3])},
            r"array 'y_test' is 3 in row 1 .* 3 training classes",
        ),
        ({"y": np.array([0, 1, 2, None, 1, 0])}, r"array 'y' of .*data\.npz, which cannot be read"),
    ],
)
def test_bad_arrays_are_named(tmp_path, changes, message):
    with pytest.raises(BadInput, match=message):
        npz(tmp_path, **changes)


def test_a_fractional_label_asked_to_be_a_class_is_refused(tmp_path):
    path = write(tmp_path, **(GOOD | {"y": np.array([0.5, 1, 2, 0, 1, 2])}))
    with pytest.raises(BadInput, match=r"array 'y' is 0\.5 in row 0 .* or dataset\.task=regression"):
        load("npz", path=path, task="classification")
    with pytest.raises(BadInput, match=r"dataset\.task: got ranking, allowed: auto, classification"):
        load("npz", path=path, task="ranking")


def test_missing_and_broken_npz_files(tmp_path):
    with pytest.raises(BadInput, match=r"dataset\.path: got None, allowed: the path of a \.npz file"):
        load("npz")
    with pytest.raises(BadInput, match=r"dataset\.path: got .*nowhere\.npz, allowed: a \.npz file that exists"):
        load("npz", path=tmp_path / "nowhere.npz")
    whole = write(tmp_path, x=np.random.default_rng(0).random((500, 50)), y=np.arange(500) % 3).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 10):
        broken = tmp_path / "broken.npz"
        broken.write_bytes(whole[:cut])
        with pytest.raises(BadInput, match=r"dataset\.path: got .*broken\.npz, which cannot be read"):
            load("npz", path=broken)
    flipped = bytearray(whole)
    flipped[2000] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(BadInput, match=r"array 'x' of .*flipped\.npz, which cannot be read"):
        load("npz", path=tmp_path / "flipped.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(BadInput, match="a single array"):
        load("npz", path=tmp_path / "one.npy")


TABLE = """age,income,city,ok,sick,site
30,1.5,Rome,true,yes,B
40,,Oslo,false,no,A
50,2.5,Rome,true,yes,B
60,3,Oslo,true,no,C
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_csv_becomes_numbers_classes_and_clients(table):
    data = load("csv", path=table, label="sick", client="site", features=["age", "income", "ok"])
    assert np.array_equal(data.x, np.array([[30, 1.5, 1], [40, np.nan, 0], [50, 2.5, 1], [60, 3, 1]]), equal_nan=True)
    assert data.x.dtype == np.float32
    assert data.y.tolist() == [1, 0, 1, 0]
    assert data.client.tolist() == [1, 0, 1, 2]
    assert data.client_names == ("A", "B", "C")
    assert data.signature.class_names in {("no", "yes"), ("False", "True")}
    assert data.signature.feature_names == ("age", "income", "ok")


def test_csv_label_decides_the_task(table):
    assert load("csv", path=table, label="age", features=["ok"], task="regression").signature.task == "regression"
    full = table.with_name("full.csv")
    full.write_text("a,price\n1,2.5\n2,3.5\n3,1\n")
    data = load("csv", path=full, label="price")
    assert data.signature.task == "regression"
    assert data.y.tolist() == [2.5, 3.5, 1.0]
    assert data.y.dtype == np.float32


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_takes_the_delimiter_of_its_header(table, delimiter):
    table.write_text(TABLE.replace(",", delimiter))
    assert load("csv", path=table, label="sick", features=["age"]).x[:, 0].tolist() == [30, 40, 50, 60]


def test_parquet_keeps_its_floats(table):
    duckdb = pytest.importorskip("duckdb")
    path = str(table.with_name("t.parquet"))
    duckdb.execute(f"COPY (SELECT age, income::FLOAT AS f, income::DOUBLE AS d, sick FROM '{table}') TO '{path}'")
    assert load("parquet", path=path, label="sick", features=["age", "f"]).signature.input_dtype == "float32"
    assert load("parquet", path=path, label="sick").signature.input_dtype == "float64"
    (table.with_name("bad.parquet")).write_bytes(b"PAR1 nothing")
    with pytest.raises(BadInput, match=r"dataset\.path: got .*bad\.parquet, which cannot be read"):
        load("parquet", path=table.with_name("bad.parquet"), label="sick")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label": None}, r"dataset\.label: got None, allowed: a column of .*: age, income, city, ok, sick, site"),
        ({"label": "ill"}, r"dataset\.label: got ill, allowed: a column of .*: age, income"),
        ({"client": "where"}, r"dataset\.client: got where, allowed: .*site"),
        ({"client": "income", "features": ["age"]}, r"dataset\.client: got column 'income' is empty in data row 2"),
        ({"label": "income", "features": ["age"]}, r"dataset\.label: got column 'income' is empty in data row 2"),
        (
            {},
            r"got column 'city' of type VARCHAR, '\w+' in data row 1 of .*dataset\.features=\[age,income,ok",
        ),
        ({"features": ["age", "wage"]}, r"dataset\.features: got wage, allowed: columns of"),
        ({"features": ["age", "sick"]}, r"dataset\.features: got sick, the label column"),
        ({"features": []}, r"dataset\.features: got no column"),
        ({"features": ["age", "age"]}, r"allowed: each column once"),
        (
            {"features": ["age"], "label": "city", "task": "regression"},
            r"column 'city' of type VARCHAR, allowed: numbers",
        ),
    ],
)
def test_bad_columns_are_named(table, options, message):
    with pytest.raises(BadInput, match=message):
        load("csv", path=table, **({"label": "sick", "client": "site"} | options))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "which cannot be read|has no rows"),
        ("a,y\n", "has no rows"),
        ("a,b,y\n" + "1,2,0\n" * 50 + "1,2", r"which cannot be read \(data row 51 has 2 cells, the header 3\)"),
        ("a,y\n" + "1,0\n" * 9, "with only 0"),
        ("a,y\n1,0\n2,NaN\n3,0.5\n", r"dataset\.label: got column 'y' is nan in data row 2"),
        ("a,y\n" + "\n".join(f"1,w{i}" for i in range(300)), r"column 'y' with 300 different values in 300 rows"),
    ],
)
def test_broken_csv_files(table, text, message):
    table.write_text(text)
    with pytest.raises(BadInput, match=message):
        load("csv", path=table, label="y")


def test_a_file_that_is_no_text(table):
    table.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(BadInput, match=r"which is not text"):
        load("csv", path=table, label="y")


FUNCTION = """
import numpy as np
from fl.data.catalog import load
def arrays(n=6):
    return {"x": np.zeros((n, 2)), "y": np.arange(n) % 2}
def whole():
    return load("synthetic", clients=2)
def wrong():
    return [1, 2]
def short():
    return {"x": np.zeros((3, 2)), "y": np.zeros(2)}
def fails():
    return 1 / 0
number = 3
"""


def test_a_function_by_file_and_by_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FUNCTION)
    data = load("function", function=f"{file}:arrays", function_arguments={"n": 8})
    assert data.x.shape == (8, 2)
    assert isinstance(load("function", function=f"{file}:whole"), Dataset)
    assert load("function", function="fl.data.shipped.heart_disease").name == "heart_disease"


@pytest.mark.parametrize(
    "name, message",
    [
        ("wrong", "which returned a list"),
        ("short", r"dataset\.function: got array 'y' of 2 rows"),
        ("fails", "raised ZeroDivisionError: division by zero"),
        ("number", "of type int, allowed: a function"),
        ("absent", "which cannot be imported"),
    ],
)
def test_functions_that_fail(tmp_path, name, message):
    file = tmp_path / "mine.py"
    file.write_text(FUNCTION)
    with pytest.raises(BadInput, match=message):
        load("function", function=f"{file}:{name}")


@pytest.mark.parametrize("target", [None, "nodots", "no.such.module.f", "nowhere.py:f"])
def test_functions_that_are_not_there(target):
    with pytest.raises(BadInput, match=r"dataset\.function: got"):
        load("function", function=target)
