"""Formats without a framework: read by what is not ours, they answer as torch does, raw rows and names included."""

import csv
import dataclasses
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import venv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fl.errors import BadInput, MissingExtra
from fl.models import xgboost
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.packaging import pfa, pmml
from fl.packaging.export import FORMATS, export
from fl.packaging.formulas import trace
from fl.packaging.reading import program_of
from fl.signature import Signature
from fl.transforms import steps
from fl.transforms.recipe import Recipe

DIGITS = Signature("classification", (1, 28, 28), "float32", 10, input_scale=1 / 255)
SMALL = Signature("classification", (1, 8, 8), "float32", 3)
TEXT = Signature("next_token", (6,), "int64", 5, class_names=("a", " ", ",", '"', "é"))
NAMES = ("age", "pulse, at rest", "weekly ??/ hours", "smokes", "seen")
TABLE = Signature(
    "classification",
    (5,),
    "float32",
    2,
    class_names=("well", 'ill, "acute"'),
    feature_names=NAMES,
    medians=(50.0, 70.0, 8.0, 0.0, 1e9),
    indicators=(1, 3),
    feature_mean=(48.0, 71.0, 7.0, 0.4, 1e9),
    feature_std=(12.0, 9.0, 3.0, 0.5, 1e8),
)
RECIPE = Recipe(
    NAMES,
    (
        steps.Aggregate(NAMES[:3], "mean", "mean"),
        steps.Aggregate(NAMES[:3], "max", "most"),
        steps.Dates("seen", "seconds", steps.FIELDS),
        steps.OneHot("smokes", (0.0, 1.0)),
        steps.Clip(("age",), (18.0,), (90.0,), flag=True),
        steps.Clip(("age",), (18.0,), (90.0,)),
        steps.Curve(("most",), "log1p"),
        steps.Curve(("mean",), "sqrt"),
        steps.Discretise("pulse, at rest", (60.0, 70.0, 80.0)),
        steps.Ordinal("seen weekday", (0.0, 3.0, 6.0)),
        steps.Impute((*NAMES[:3], "seen hour", "mean", "most"), (50.0, 1.0, 8.0, 12.0, 7.0, 4.0), ("age",)),
        steps.Impute(("seen year", "seen month", "seen day"), (2001.0, 6.0, 15.0)),
        steps.Scale(("age", "weekly ??/ hours", "seen year"), (50.0, 8.0, 2001.0), (12.0, 3.0, 3.0)),
    ),
)
COOKED = Signature("classification", (5,), "float32", 2, class_names=("no", "yes"), feature_names=NAMES,
                   recipe=RECIPE.to_json())  # fmt: skip
PRICES = Signature.from_dict(
    TABLE.to_dict()
    | {"task": "regression", "num_outputs": 1, "class_names": [], "target_mean": 2.5e5, "target_std": 9e4}
)
WIDE = Signature.from_dict(PRICES.to_dict() | {"input_dtype": "float64"})
MODELS = {
    "softmax": ("softmax", SMALL, {}),
    "2nn": ("mlp", SMALL, {"hidden": [12, 7]}),
    "cnn": ("cnn", SMALL, {"channels": [3, 4], "hidden": 6}),
    "lstm": ("lstm", TEXT, {"hidden": 9, "embedding": 4}),
    "logistic": ("logistic", TABLE, {}),
    "recipe": ("table_mlp", COOKED, {"hidden": [6]}),
    "regression": ("table_mlp", PRICES, {"hidden": [6]}),
    "float64": ("logistic", WIDE, {}),
    "trees": ("xgboost", TABLE, {}),
    "more trees": ("xgboost", SMALL, {"max_depth": 2}),
    "regression trees": ("xgboost", PRICES, {}),
}


KINDS = ("c", "whl", "pyz", "pmml", "pfa")
CANNOT = {("cnn", "pmml"), ("lstm", "pmml"), ("cnn", "pfa"), ("lstm", "pfa")}
FAST = {
    "c": {"cnn", "lstm", "recipe", "float64"},
    "whl": {"cnn", "lstm"},
    "pyz": {"cnn", "lstm", "recipe", "more trees"},
    "pmml": set(),
    "pfa": {"logistic"},
}
EACH = [
    pytest.param(name, kind, marks=[] if name in FAST[kind] else [pytest.mark.slow])
    for kind in KINDS
    for name in MODELS
    if (name, kind) not in CANNOT
]
NEEDS = {"c": "gcc", "pmml": "java"}


def examples_of(signature: Signature, n: int = 40) -> np.ndarray:
    generator = np.random.default_rng(0)
    if signature is TEXT:
        return generator.integers(0, 5, (n, 6), dtype=np.uint8)
    if signature is SMALL:
        return generator.normal(size=(n, 8, 8)).astype(np.float32)
    x = generator.normal(size=(n, 5)) * [20, 10, 4, 1, 2e8] + [50, 70, 8, 0, 1e9]
    x[:, 3] = generator.choice([0.0, 1.0, 2.0], n)
    x[generator.random(x.shape) < 0.2] = np.nan
    x[0] = np.nan
    return x.astype(signature.input_dtype)


def built(name: str) -> nn.Module:
    model, signature, arguments = MODELS[name]
    if model == "xgboost":
        pytest.importorskip("xgboost")
    module = build_model(target=f"fl.models.{model}.build", arguments=arguments, signature=signature, seed=3)
    if model == "xgboost":
        x = examples_of(signature, 200)
        y = np.nan_to_num(x.reshape(200, -1)[:, 1]) + np.nan_to_num(x.reshape(200, -1)[:, 0] > 0)
        y = signature.target_mean + signature.target_std * (y - y.mean()) / y.std()
        y = y if signature.task == "regression" else np.digitize(y, np.quantile(y, [0.3, 0.6]))
        y = y if signature.num_outputs != 2 else (y > 0).astype(int)
        module.load_arrays(xgboost.grow(module, parameters_of(module), x, y, rounds=3, seed=1))
    return module


def exported(model: str, kind: str, output, **changes):
    signature = MODELS[model][1]
    return exported_module(built(model), signature, examples_of(signature), kind, output, **changes)


def exported_module(module, signature, examples, kind, output, *, name="model"):
    (done,) = export(
        module,
        signature=signature,
        parameters=parameters_of(module),
        examples=examples,
        formats=[kind],
        output=output,
        name=name,
        manifest={"version": "run:3", "note": "*/ ??/ // é"},
    )
    return done


@pytest.fixture
def gcc():
    needed("c")


def needed(kind: str) -> None:
    if kind in NEEDS and shutil.which(NEEDS[kind]) is None:
        pytest.skip(f"no {NEEDS[kind]} here")


def in_c(path, folder, text: str, *flags: str) -> list[list[str]]:
    """The file as a program: what it prints about the CSV ``text``, cell by cell."""
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", *flags, str(path), "-o", str(folder / "m"), "-lm"]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([folder / "m"], input=text, check=True, capture_output=True, text=True, timeout=60)
    return list(csv.reader(io.StringIO(done.stdout)))


@pytest.mark.parametrize("name, kind", EACH)
def test_every_model_that_a_format_can_express_answers_as_torch_does(name, kind, tmp_path):
    needed(kind)
    done = exported(name, kind, tmp_path)
    assert done.largest_difference <= done.tolerance
    assert done.examples == 40
    module, signature = built(name), MODELS[name][1]
    x = examples_of(signature)
    found = FORMATS[kind].read(done.path, module)(x.reshape(-1, *signature.input_shape))
    expected = FORMATS[kind].answers(predict(module, x, signature), signature)
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.01, "a model that says the same of everybody proves nothing"


@pytest.mark.parametrize("name, kind", sorted(CANNOT))
def test_what_tables_have_no_word_for_is_refused_before_anything_is_written(name, kind, tmp_path):
    needed(kind)
    layer = "Convolution" if name == "cnn" else "Embedding"
    with pytest.raises(BadInput, match=f"got {kind}, which cannot express this model .*{layer}: .* has none"):
        exported(name, kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def written(x: np.ndarray, header: tuple[str, ...], missing: str = "") -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([[missing if np.isnan(v) else repr(float(v)) for v in row] for row in x])
    return out.getvalue()


def test_c_takes_raw_rows_by_name_and_says_labels(tmp_path, gcc):
    x = examples_of(COOKED)
    done = exported("recipe", "c", tmp_path)
    order = [4, 2, 0, 1, 3]
    rows = written(np.column_stack([np.zeros(40), x[:, order]]), ("not asked for", *(NAMES[i] for i in order)), "NA")
    header, *answers = in_c(done.path, tmp_path, rows)
    assert header == ["label", "no", "yes"]
    expected = predict(built("recipe"), x, COOKED)
    assert np.allclose(np.array([a[1:] for a in answers], float), expected, rtol=1e-5, atol=1e-5)
    assert [a[0] for a in answers] == [("no", "yes")[i] for i in expected.argmax(axis=1)]


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a,b,c,d,e\n1,2,3,4,5\n", "row 0: the header has not all columns of the model"),
        ("1,2,3,4\n", "row 0: other than so many columns: 5"),
        ("1,2,3,4,5\n1,2,3\n", "row 2: fewer cells than columns"),
        ("1,2,3,4,5\n1,2,3,4,5,6\n", "row 2: more cells than columns"),
        ("1,2,3,4,5\n1,2,x,4,5\n", "row 2: not a number: x"),
    ],
)
def test_c_says_what_is_wrong_with_rows(rows, message, finished_c):
    done = subprocess.run([finished_c], input=rows, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.fixture(scope="module")
def finished_c(tmp_path_factory):
    needed("c")
    folder = tmp_path_factory.mktemp("c")
    path = exported("logistic", "c", folder).path
    subprocess.run(["gcc", "-fsanitize=undefined,address", str(path), "-o", str(folder / "m"), "-lm"], check=True)
    return folder / "m"


def test_c_in_a_program_of_ones_own(tmp_path, gcc):
    path = exported("logistic", "c", tmp_path).path
    own = """
#include "model.c"
#include <stdio.h>
int main(void)
{
    real x[MEADOW_INPUTS] = {NAN, 70, NAN, 1, 1e9f}, y[MEADOW_OUTPUTS], work[MEADOW_WORK];
    if (meadow_predict(x, y, work))
        return 1;
    printf("%s,%.9g,%.9g\\n", meadow_labels[meadow_label(y)], (double)y[0], (double)y[1]);
    return 0;
}
"""
    (tmp_path / "own.c").write_text(own)
    ((label, *answer),) = in_c(tmp_path / "own.c", tmp_path, "", "-DMEADOW_NO_MAIN", f"-I{path.parent}")
    x = np.array([[np.nan, 70, np.nan, 1, 1e9]], np.float32)
    expected = predict(built("logistic"), x, TABLE)[0]
    assert np.allclose(np.array(answer, float), expected, rtol=1e-5, atol=1e-5)
    assert label == TABLE.class_names[expected.argmax()]


def run(*command, given: str = "", status: int = 0) -> str:
    """What a program prints; where it fails with ``status``, what it says then."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_pyz_takes_raw_rows_by_name_and_says_labels(tmp_path):
    x, path = examples_of(COOKED), exported("recipe", "pyz", tmp_path).path
    order = [4, 2, 0, 1, 3]
    table = written(np.column_stack([np.zeros(40), x[:, order]]), ("not asked for", *(NAMES[i] for i in order)), "NA")
    (tmp_path / "rows.csv").write_text(table)
    header, *answers = csv.reader(io.StringIO(run(sys.executable, "-I", "-S", path, tmp_path / "rows.csv")))
    assert header == ["label", "no", "yes"]
    expected = predict(built("recipe"), x, COOKED)
    assert np.allclose(np.array([a[1:] for a in answers], float), expected, rtol=1e-5, atol=1e-5)
    assert [a[0] for a in answers] == [("no", "yes")[i] for i in expected.argmax(axis=1)]
    assert run(path, given=table) == run(sys.executable, path, given=table)  # it runs itself


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a,b,c,d,e\n1,2,3,4,5\n", "the header has the column 'age' 0 times, expected once"),
        ("1,2,3,4\n", "4 columns, expected 5"),
        ("1,2,3,4,5\n1,2,3\n", "row 2: 3 cells, expected 5"),
        ("1,2,3,4,5\n1,2,x,4,5\n", "row 2: not a number: could not convert string to float: 'x'"),
    ],
)
def test_pyz_says_what_is_wrong_with_rows(rows, message, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "wrong-rows"
    if not folder.exists():
        exported("logistic", "pyz", folder)
    assert run(sys.executable, folder / "model.pyz", given=rows, status=2) == message + "\n"


def test_a_model_too_large_for_python_alone_is_no_pyz(tmp_path):
    signature = dataclasses.replace(TEXT, input_shape=(80,))
    with pytest.raises(BadInput, match=r"pyz, which cannot express .* multiplications an answer.* allowed: .*whl"):
        exported_module(
            build_model(target="fl.models.lstm.build", arguments={}, signature=signature, seed=1),
            signature, np.zeros((1, 80), np.uint8), "pyz", tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


ASKED = """
import importlib.util, json, sys
from meadow_model import MODEL, classify, predict
assert not [name for name in ("fl", "torch") if importlib.util.find_spec(name)]
rows = json.load(sys.stdin)
print(json.dumps([predict(rows).tolist(), classify(rows), MODEL.metadata["manifest"]["version"]]))
"""


def test_the_wheel_is_a_dependency_of_a_program_elsewhere(tmp_path):
    """In a fresh environment: pip installs it, NumPy is all it finds there, and rows go by their names."""
    x, path = examples_of(COOKED), exported("recipe", "whl", tmp_path, name="Run-7.x").path
    assert path.name == "meadow_model-0+run.7.x-py3-none-any.whl"
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (place,) = environment.glob("lib/python*/site-packages")
    for found in Path(np.__file__).parent.parent.glob("numpy*"):
        (place / found.name).symlink_to(found)
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet", path)
    rows = [{name: value for name, value in zip(NAMES, row, strict=True) if not np.isnan(value)} for row in x.tolist()]
    rows[1] |= dict.fromkeys(set(NAMES) - set(rows[1]))  # None is a missing value, too
    answers, labels, version = json.loads(run(python, "-I", "-c", ASKED, given=json.dumps(rows)))
    expected = predict(built("recipe"), x, COOKED)
    assert np.allclose(answers, expected, rtol=1e-5, atol=1e-5)
    assert labels == [("no", "yes")[i] for i in expected.argmax(axis=1)]
    assert version == "run:3"
    assert "label,no,yes" in run(python, "-I", "-m", "meadow_model", given="1,2,3,4,5\n")
    wrong = run(python, "-I", "-c", "import meadow_model as m; m.predict([{'height': 2}])", status=1)
    assert "row 1: there is no column 'height', only age" in wrong


def test_c_refuses_a_token_that_it_does_not_know(tmp_path, gcc):
    path = exported("lstm", "c", tmp_path).path
    header, answer = in_c(path, tmp_path, "0,1,2,3,4,0\n")
    assert header[:3] == ["label", "0 a", "0  "]
    expected = predict(built("lstm"), np.array([[0, 1, 2, 3, 4, 0]]), TEXT)[0]
    assert answer[0] == TEXT.class_names[expected[-1].argmax()]
    done = subprocess.run([tmp_path / "m"], input="0,1,2,3,5,0\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "row 1: a token that is not of the vocabulary\n")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_version_gives_the_same_bytes_and_names_no_place(kind, tmp_path, repository):
    one, other = (written_only("recipe", kind, tmp_path / folder) for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    for place in (str(tmp_path), str(repository)):
        assert place.encode() not in one.read_bytes()


def written_only(name: str, kind: str, folder: Path) -> Path:
    """The file as the format writes it, without the proof by its reader."""
    folder.mkdir(parents=True)
    path = folder / FORMATS[kind].naming("model", FORMATS[kind].suffix)
    signature = MODELS[name][1]
    metadata = {"signature": signature.to_dict(), "manifest": {"version": "run:3"}}
    FORMATS[kind].write(built(name).eval(), torch.zeros(2, *signature.input_shape), path, metadata=metadata)
    return path


def test_pmml_takes_raw_rows_by_name_and_says_labels(tmp_path):
    """By PMML4S: columns in another order, missing ones as null."""
    needed("pmml")
    x, path = examples_of(COOKED), written_only("recipe", "pmml", tmp_path / "out")
    order = [4, 2, 0, 1, 3]
    rows = [[None if np.isnan(v) else v for v in row] for row in x[:, order].tolist()]
    given = json.dumps({"columns": [NAMES[i] for i in order], "data": rows})
    told = json.loads(run(sys.executable, "-c", pmml.READER, path, given=given).splitlines()[-1])
    found = [dict(zip(told["columns"], row, strict=True)) for row in told["data"]]
    expected = predict(built("recipe"), x, COOKED)
    assert [answer["predicted label"] for answer in found] == [("no", "yes")[i] for i in expected.argmax(axis=1)]
    chance = [answer["probability(yes)"] for answer in found]
    assert np.allclose(chance, pmml.probabilities(expected, COOKED)[:, 1], atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "2nn", "more trees"])
def test_scikit_learn_reads_pmml_as_well(name, tmp_path):
    """sklearn-pmml-model, which takes neither missing values nor derived fields."""
    auto_detect = pytest.importorskip("sklearn_pmml_model.auto_detect")
    x = examples_of(SMALL).reshape(40, -1).astype(np.float64)
    estimator = auto_detect.auto_detect_estimator(str(written_only(name, "pmml", tmp_path / "out")))
    expected = predict(built(name), examples_of(SMALL), SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn's about names
        found = estimator.predict_proba(pd.DataFrame(x, columns=[f"x{i}" for i in range(64)]))
    assert np.allclose(found, pmml.probabilities(expected, SMALL), atol=1e-5)


def test_pfa_takes_raw_rows_by_name_and_says_labels(tmp_path):
    x, path = examples_of(COOKED), written_only("recipe", "pfa", tmp_path / "out")
    fields = ("age", "pulse__at_rest", "weekly_____hours", "smokes", "seen")
    assert [field["doc"] for field in json.loads(path.read_text())["input"]["fields"]] == list(NAMES)
    rows = [{f: None if np.isnan(v) else v for f, v in zip(fields, row, strict=True)} for row in x.tolist()]
    told = run(sys.executable, "-c", pfa.READER, path, given="".join(json.dumps(row) + "\n" for row in rows))
    found = [json.loads(line) for line in told.splitlines()]
    expected = predict(built("recipe"), x, COOKED)
    assert np.allclose([answer["outputs"] for answer in found], expected, rtol=1e-5, atol=1e-5)
    assert [answer["label"] for answer in found] == [("no", "yes")[i] for i in expected.argmax(axis=1)]


def test_what_a_format_cannot_express_is_refused_before_anything_is_written(tmp_path):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    signature = Signature("classification", (4,), "float32", 2)
    for module, layer in (
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "layer '1', LayerNorm((4,)"),
        (nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Sequential(Doubled(4, 2))), "layer '1.0', Doubled("),
    ):
        with pytest.raises(BadInput, match="--format: got c, which cannot express this model .*" + re.escape(layer)):
            exported_module(module, signature, np.zeros((2, 4), np.float32), "c", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, message",
    [("c", "no C compiler.*, allowed: gcc or cc in PATH"), ("pmml", "no Java.*, allowed: java in PATH")],
)
def test_a_reader_that_is_not_there_is_said_before_anything_is_written(kind, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BadInput, match=message):
        exported("softmax", kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind, package", [("pmml", "pypmml"), ("pfa", "titus")])
def test_a_reader_of_an_extra_is_named_with_it(kind, package, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else there(name))
    with pytest.raises(MissingExtra, match=rf"--format {kind}: needs the package {package}, .*'meadow-fl\[{kind}\]'"):
        exported("softmax", kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_terms_are_written_once_and_only_where_they_are_needed():
    def compute(columns, a):
        first = columns[0] * a.number(2.0)
        assert columns[1] + first is not None  # nobody needs it
        return [first, a.where(a.isnan(columns[0]), a.number(-0.0), columns[0] * a.number(2.0))]

    formulas = trace(compute, inputs=2)
    assert [t.operation for t in formulas.terms] == ["input", "number", "*", "isnan", "number", "where"]
    with pytest.raises(TypeError, match="neither true nor false"):
        trace(lambda columns, a: [max(columns)], inputs=2)


def test_the_cost_of_an_answer_is_known_beforehand():
    module = build_model(target="fl.models.cnn.build", arguments={}, signature=DIGITS, seed=1)
    program = program_of(module, DIGITS)
    assert program.shapes[0] == (1, 28, 28) and program.shapes[-1] == (10,)
    convolutions = 28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64
    layers = 3136 * 512 + 512 * 10
    assert convolutions + layers < program.multiplications < 1.1 * (convolutions + layers)
