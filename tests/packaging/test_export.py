"""Exports: every model in every format agrees with the model, and a file that does not is no file."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from fl import metrics
from fl.errors import BadInput, MissingExtra
from fl.files import read_json, sha256_file
from fl.models.arrays import load_parameters, parameters_of
from fl.models.build import build_model
from fl.models.evaluate import evaluate, predict
from fl.packaging import export as exporting
from fl.packaging import pt2
from fl.packaging.export import FORMATS, Exported, Format, export
from fl.signature import Signature

DIGITS = Signature("classification", (1, 28, 28), "float32", 10, input_scale=1 / 255)
TEXT = Signature("next_token", (20,), "int64", 30)
TABLE = Signature(
    "classification",
    (4,),
    "float32",
    2,
    medians=(1.0, 2.0, 3.0, 4.0),
    indicators=(1, 3),
    feature_mean=(0.5,) * 4,
    feature_std=(2.0,) * 4,
)
PRICES = Signature.from_dict(
    TABLE.to_dict() | {"task": "regression", "num_outputs": 1, "target_mean": 250_000.0, "target_std": 90_000.0}
)
WIDE = Signature.from_dict(PRICES.to_dict() | {"input_dtype": "float64"})
MODELS = {
    "softmax": DIGITS,
    "mlp": DIGITS,
    "cnn": DIGITS,
    "lstm": TEXT,
    "transformer": TEXT,
    "logistic": TABLE,
    "table_mlp": PRICES,
}
ANY_MODEL = ("safetensors", "pt2", "onnx")
"""Formats that take every model; the others have tests of their own."""
MANIFEST = {"version": "run:3", "sha256": "0" * 64}


def examples_of(signature: Signature, n: int = 23) -> np.ndarray:
    generator = np.random.default_rng(0)
    if signature is DIGITS:
        return generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    if signature is TEXT:
        return generator.integers(0, 30, (n, 20), dtype=np.uint8)
    x = generator.normal(size=(n, 4)).astype(signature.input_dtype)
    return np.where(generator.random(x.shape) < 0.3, np.nan, x)


def built(name: str, signature: Signature, seed: int = 0) -> nn.Module:
    return build_model(target=f"fl.models.{name}.build", arguments={}, signature=signature, seed=seed)


def exported(name: str, signature: Signature, formats: list[str], output: Path, **changes: object) -> list[Exported]:
    arguments = {
        "module": built(name, signature),
        "signature": signature,
        "parameters": parameters_of(built(name, signature, seed=1)),
        "examples": examples_of(signature),
        "formats": formats,
        "output": output,
        "name": "model",
        "manifest": MANIFEST,
    }
    return export(**(arguments | changes))


def slow_where_it_is(name: str, kind: str) -> object:
    quick = kind == "safetensors" or name in ("mlp", "table_mlp") or (name, kind) == ("logistic", "pt2")
    return pytest.param(name, kind, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize("name,kind", [slow_where_it_is(name, kind) for name in MODELS for kind in ANY_MODEL])
def test_every_model_in_every_format(name, kind, tmp_path, capfd):
    signature, x = MODELS[name], examples_of(MODELS[name])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        (done,) = exported(name, signature, [kind], tmp_path)
    assert not warned
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"model.{kind}", f"model.{kind}.json"]
    assert done.path == tmp_path / f"model.{kind}"
    assert done.bytes == done.path.stat().st_size
    assert done.examples == len(x)
    assert 0.0 <= done.largest_difference <= done.tolerance
    # What was exported are the parameters that were handed over, not those the module came with.
    model = built(name, signature, seed=1)
    inputs = (
        (x.astype(np.float32) / np.float32(255))[:, None] if signature is DIGITS else x.astype(signature.input_dtype)
    )
    for batch in (inputs[:1], inputs[:2], inputs):
        answer = FORMATS[kind].read(done.path, built(name, signature))(batch)
        assert np.allclose(answer, predict(model, x[: len(batch)], signature), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One table model in every format, asked for twice in one of them."""
    return exported("logistic", TABLE, [*ANY_MODEL, "onnx"], tmp_path_factory.mktemp("finished"))


def test_the_proof_beside_the_file(finished):
    assert [done.format for done in finished] == list(ANY_MODEL)
    for done in finished:
        assert read_json(done.path.with_name(f"{done.path.name}.json")) == {
            "format": done.format,
            "path": f"model.{done.format}",
            "bytes": done.bytes,
            "largest_difference": done.largest_difference,
            "tolerance": done.tolerance,
            "examples": 23,
            "sha256": sha256_file(done.path),
            "signature": TABLE.to_dict(),
            "manifest": MANIFEST,
        }


def test_every_format_carries_the_signature(finished):
    import onnx

    paths = {done.format: done.path for done in finished}
    with safe_open(paths["safetensors"], "np") as file:
        texts = [file.metadata()["meadow"]]
    extra = {"meadow.json": ""}
    torch.export.load(paths["pt2"], extra_files=extra)
    texts.append(extra["meadow.json"])
    graph = onnx.load(paths["onnx"])
    texts += [p.value for p in graph.metadata_props if p.key == "meadow"]
    assert len(texts) == 3
    for text in texts:
        assert Signature.from_dict(json.loads(text)["signature"]) == TABLE
        assert json.loads(text)["manifest"] == MANIFEST
    assert graph.opset_import[0].version == 20
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_no_example_and_no_folder_of_this_machine_is_exported(finished, repository, tmp_path):
    paths = {done.format: done.path for done in finished}
    with zipfile.ZipFile(paths["pt2"]) as archive:
        stored = {name: archive.read(name) for name in archive.namelist()}
    stored["onnx"] = paths["onnx"].read_bytes()
    here = [str(Path(torch.__file__).parent), str(repository), str(paths["pt2"].parent)]
    assert not [name for name, content in stored.items() for folder in here if folder.encode() in content]
    sample = next(content for name, content in stored.items() if "sample_inputs" in name)
    (tmp_path / "sample.pt").write_bytes(sample)
    (inputs,), _ = torch.load(tmp_path / "sample.pt", weights_only=True)
    assert not inputs.any()


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(tmp_path):
    for folder in ("one", "other"):
        exported("logistic", TABLE, ["safetensors", "onnx"], tmp_path / folder)
    for kind in ("safetensors", "onnx"):
        assert (tmp_path / "one" / f"model.{kind}").read_bytes() == (tmp_path / "other" / f"model.{kind}").read_bytes()


@pytest.mark.slow
def test_float64_models_are_held_to_float64_tolerances(tmp_path):
    for done in exported("table_mlp", WIDE, list(ANY_MODEL), tmp_path):
        assert done.tolerance <= 1e-5 * 2e-9 * 1e6
        assert done.largest_difference <= done.tolerance


def test_the_module_and_the_examples_are_left_alone(tmp_path):
    module, x = built("logistic", TABLE), examples_of(TABLE)
    before, copy = parameters_of(module), x.copy()
    exported("logistic", TABLE, ["safetensors", "pt2"], tmp_path, module=module, examples=x)
    assert np.array_equal(x, copy, equal_nan=True)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert all(np.array_equal(before[n], v) for n, v in parameters_of(module).items())


@pytest.mark.parametrize(
    "change,message",
    [
        ({"formats": ["onnx", "tflite"]}, "--format: got tflite, allowed: safetensors, pt2, onnx"),
        ({"formats": []}, "--format: got no format, allowed: at least one of safetensors, pt2, onnx"),
        ({"examples": np.zeros((0, 4), np.float32)}, "no examples to compare with"),
        ({"parameters": {"1.weight": np.zeros(1)}}, r"model: got array '1.bias' is missing"),
        ({"examples": np.full((2, 4), np.inf, np.float32)}, "whose outputs are not finite"),
    ],
)
def test_bad_input_writes_nothing(change, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        exported("logistic", TABLE, change.pop("formats", ["safetensors"]), tmp_path / "out", **change)
    assert not list(tmp_path.rglob("model*"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--output: got .*/file/out, allowed: a folder that can be written"):
        exported("logistic", TABLE, ["safetensors"], tmp_path / "file" / "out")


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    with pytest.raises(MissingExtra, match=r"--format onnx: needs the package onnxruntime, .*'meadow-fl\[export\]'"):
        exported("logistic", TABLE, ["safetensors", "onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def wrong_write(module, example, path, *, metadata):
    with torch.no_grad():
        next(module.parameters()).add_(1e-3)
    pt2.write(module, example, path, metadata=metadata)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"write": wrong_write}, r"wrong, whose largest difference to the model is .*, allowed: at most .*e-06"),
        ({"read": lambda path, _: lambda x: np.full((len(x), 2), np.nan)}, "difference to the model is nan"),
        ({"read": lambda path, _: lambda x: np.zeros((len(x), 1))}, "difference to the model is inf"),
    ],
)
def test_a_file_that_disagrees_is_removed_and_what_was_there_stays(change, message, tmp_path, monkeypatch):
    wrong = dataclasses.replace(FORMATS["pt2"], suffix="wrong.pt2", **change)
    monkeypatch.setitem(exporting.FORMATS, "wrong", wrong)
    (tmp_path / "model.wrong.pt2").write_text("an older one")
    with pytest.raises(BadInput, match=message):
        exported("logistic", TABLE, ["safetensors", "wrong"], tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["model.safetensors", "model.safetensors.json", "model.wrong.pt2"]
    assert (tmp_path / "model.wrong.pt2").read_text() == "an older one"


def altering_write(module, example, path, *, metadata):
    pt2.write(module, example, path, metadata=metadata)
    with torch.no_grad():
        next(module.parameters()).add_(1.0)


def test_a_writer_that_alters_its_module_does_not_spoil_the_next_format(tmp_path, monkeypatch):
    altering = dataclasses.replace(FORMATS["pt2"], suffix="altering.pt2", write=altering_write)
    monkeypatch.setitem(exporting.FORMATS, "altering", altering)
    assert len(exported("logistic", TABLE, ["altering", "pt2", "safetensors"], tmp_path)) == 3


class Undecided(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum().item() > 0 else -super().forward(x)


def test_a_model_that_a_format_cannot_express(tmp_path):
    signature = Signature("classification", (4,), "float32", 2)
    module = Undecided(4, 2)
    x = np.ones((3, 4), np.float32)
    for kind in ("pt2", "onnx"):
        with pytest.raises(BadInput, match=f"--format: got {kind}, which cannot express this model .*safetensors"):
            export(
                module,
                signature=signature,
                parameters=parameters_of(module),
                examples=x,
                formats=[kind],
                output=tmp_path,
                name="model",
                manifest=MANIFEST,
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_that_exports_says_nothing(tmp_path):
    """In a process of its own, because torch speaks only once, and to the standard error it found when imported."""
    code = """
import sys
from pathlib import Path
import numpy as np
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.packaging.export import export
from fl.signature import Signature

signature = Signature("next_token", (20,), "int64", 30)
module = build_model(target="fl.models.lstm.build", arguments={}, signature=signature, seed=1)
export(module, signature=signature, parameters=parameters_of(module), examples=np.ones((3, 20), np.uint8),
       formats=["safetensors", "pt2", "onnx"], output=Path(sys.argv[1]), name="model", manifest={})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_formats_are_a_pair_of_functions_anybody_can_add():
    asked = [f.name for f in dataclasses.fields(Format) if f.default is f.default_factory is dataclasses.MISSING]
    assert asked == ["suffix", "write", "read", "tolerance"]
    assert [name for name, kind in FORMATS.items() if kind.tolerance >= 1e-4] == ["onnx_int8"]


def test_onnxruntime_scores_mnist_as_the_model_does(repository, tmp_path):
    """A model that has learned something, on the shipped test set: the same class for every image."""
    file = repository / "fl" / "data" / "files" / "mnist.npz"
    if not file.exists():
        pytest.skip("mnist.npz is not there")
    with np.load(file, allow_pickle=False) as arrays:
        x, y, x_test, y_test = (arrays[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    flat = x[:2000].reshape(2000, -1) / 255.0
    weights = np.linalg.solve(flat.T @ flat + 10 * np.eye(784), flat.T @ np.eye(10)[y[:2000]])  # ridge regression
    module = built("softmax", DIGITS)
    trained = parameters_of(module) | {"1.weight": weights.T.astype(np.float32), "1.bias": np.zeros(10, np.float32)}
    load_parameters(module, trained)
    accuracy = metrics.values(evaluate(module, x_test, y_test, DIGITS))["accuracy"]
    assert accuracy > 0.8
    exported("softmax", DIGITS, ["onnx"], tmp_path, parameters=trained, examples=x_test[:500])
    answer = FORMATS["onnx"].read(tmp_path / "model.onnx", module)
    scored = answer((x_test / np.float32(255)).astype(np.float32).reshape(-1, 1, 28, 28)).argmax(axis=1)
    assert (scored == y_test).mean() == accuracy
