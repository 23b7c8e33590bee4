"""TorchScript, ONNX of 8 bits and ExecuTorch: scored by runtimes that are not ours, small where they should be."""

import zipfile

import numpy as np
import pytest
import torch

from fl.errors import BadInput, CorruptFile
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.packaging import onnx, pt2, torchscript
from fl.packaging.export import FORMATS, export
from fl.packaging.quiet import mute, quiet
from fl.signature import Signature

TABLE = Signature(
    *("classification", (4,), "float32", 3),
    medians=(1.0, 2.0, 3.0, 4.0),
    indicators=(1, 3),
    feature_mean=(0.5,) * 4,
    feature_std=(2.0,) * 4,
)
DIGITS = Signature("classification", (1, 28, 28), "float32", 10, input_scale=1 / 255)
TEXT = Signature("next_token", (20,), "int64", 30)
MODELS = {"softmax": DIGITS, "mlp": DIGITS, "cnn": DIGITS, "lstm": TEXT, "transformer": TEXT, "table_mlp": TABLE}
KINDS = ("torchscript", "onnx_int8", "executorch")
REFUSED = ("transformer", "executorch")


def examples_of(signature: Signature) -> np.ndarray:
    random = np.random.default_rng(0)
    if signature is TABLE:
        x = random.normal(size=(40, 4)).astype(np.float32)
        return np.where(random.random(x.shape) < 0.3, np.float32("nan"), x)
    return random.integers(0, 256 if signature is DIGITS else 30, (40, *signature.input_shape), dtype=np.uint8)


def exported(name: str, formats: list[str], output, **changes):
    signature = MODELS[name]
    module = build_model(target=f"fl.models.{name}.build", arguments={}, signature=signature, seed=1)
    arguments = {"signature": signature, "parameters": parameters_of(module), "examples": examples_of(signature)}
    done = export(module, formats=formats, output=output, name="model", manifest={}, **(arguments | changes))
    return module, {one.format: one for one in done}


def quick(name: str, kind: str) -> object:
    marks = [] if name == "table_mlp" and kind != "executorch" else [pytest.mark.slow]
    return pytest.param(name, kind, marks=marks)


@pytest.mark.parametrize("name, kind", [quick(n, k) for n in MODELS for k in KINDS if (n, k) != REFUSED])
def test_every_model_is_scored_by_the_runtime(name, kind, tmp_path, capfd):
    pytest.importorskip("executorch" if kind == "executorch" else "torch")
    module, done = exported(name, [kind], tmp_path)
    assert capfd.readouterr() == ("", "")
    assert done[kind].largest_difference <= done[kind].tolerance
    if kind != "onnx_int8":
        return
    x, signature = examples_of(MODELS[name]), MODELS[name]
    inputs = (x.astype(np.float32) / 255)[:, None][:, 0] if signature is DIGITS else x.astype(signature.input_dtype)
    same = onnx.read(done[kind].path)(inputs.reshape(len(x), *signature.input_shape)).argmax(-1)
    assert np.mean(same == predict(module, x, signature).argmax(-1)) > 0.9


@pytest.mark.slow
def test_eight_bits_are_a_quarter_of_the_size(tmp_path):
    for name in ("mlp", "cnn"):
        _, done = exported(name, ["onnx", "onnx_int8"], tmp_path / name)
        assert 3.5 < done["onnx"].bytes / done["onnx_int8"].bytes < 4.1


@pytest.mark.slow
def test_what_executorch_cannot_run_is_refused_with_the_reason(tmp_path):
    pytest.importorskip("executorch")
    with pytest.raises(BadInput, match=r"--format: got executorch, whose reader does not take the file .*RuntimeError"):
        exported("transformer", ["executorch"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    for one in ("one", "other"):
        exported("table_mlp", ["pt2", "torchscript", "onnx_int8"], folder / one)
    return folder


def test_the_same_model_gives_the_same_bytes_and_no_folder_of_this_machine(written, repository):
    for path in (written / "one").glob("model.*"):
        assert path.read_bytes() == (written / "other" / path.name).read_bytes(), path.name
    with zipfile.ZipFile(written / "one" / "model.pt") as archive:
        stored = [archive.read(name) for name in archive.namelist()]
    assert not any(str(repository).encode() in one or b"site-packages" in one for one in stored)
    extra = {"meadow.json": ""}
    with quiet():
        torch.jit.load(written / "one" / "model.pt", _extra_files=extra)
    assert b'"num_outputs": 3' in extra["meadow.json"]


def test_a_deprecated_format_says_so():
    assert [name for name, kind in FORMATS.items() if kind.warning] == ["torchscript"]
    assert "deprecated in torch 2.13" in FORMATS["torchscript"].warning


def test_readers_refuse_what_would_open_other_files_or_run_code(written, tmp_path):
    import onnx as library

    model = library.load(written / "one" / "model.int8.onnx")
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "model.onnx"
    library.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(CorruptFile, match=r"model.onnx: refused: it keeps numbers in other files \(external data\)"):
        onnx.read(path)
    for name, read in (("model.pt2", pt2.read), ("model.pt", torchscript.read)):
        (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
        with pytest.raises(CorruptFile, match=f"{name}: refused: .* pickle"):
            read(tmp_path / name)


def test_mute_swallows_what_a_library_writes_to_the_descriptors(capfd):
    import os

    with mute():
        os.write(1, b"out")
        os.write(2, b"err")
    os.write(1, b"after")
    assert capfd.readouterr() == ("after", "")
