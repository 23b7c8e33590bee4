"""A model by its dotted name: found, filled in, seeded, checked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fl import parameters
from fl.errors import BadInput
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.imports import find, source_sha256
from fl.signature import Signature

SQUARES = Signature("classification", (1, 2, 2), "float32", 3)
NUMBERS = Signature("regression", (4,), "float32", 1)
OWN = "own_models"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def build(target, signature=SQUARES, seed=1, **arguments):
    return build_model(target=target, arguments=arguments, signature=signature, seed=seed)


def test_the_seed_decides_and_nothing_else_is_disturbed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = parameters.sha256(parameters_of(build("fl.models.mlp.build", seed=1)))
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    assert parameters.sha256(parameters_of(build("fl.models.mlp.build", seed=1))) == one
    assert parameters.sha256(parameters_of(build("fl.models.mlp.build", seed=2))) != one


def test_a_class_of_the_users_own_is_filled_in_and_comes_back_ready_to_train():
    module = build(f"{OWN}.Plain", width=7)
    assert module.input_shape == (1, 2, 2)
    assert module.layers[1].weight.shape == (7, 4)
    assert module.layers[3].weight.shape == (3, 7)
    assert all(part.training for part in module.modules())
    lazy = [parameters_of(build(f"{OWN}.Plain"))["layers.1.weight"] for _ in range(2)]
    assert np.array_equal(*lazy)


def test_the_check_leaves_the_statistics_of_a_batch_norm_alone():
    state = parameters_of(build(f"{OWN}.Normalised"))
    assert state["2.num_batches_tracked"] == 0
    assert (state["2.running_var"] == 1).all()


def test_arguments_of_the_user_win_over_what_the_signature_fills_in():
    with pytest.raises(BadInput, match=r"outputs of shape \(N, 5\), allowed: \(N, 3\) for this data set's class"):
        build(f"{OWN}.Plain", num_classes=5)


def test_a_class_inside_a_class_is_found():
    assert find(f"{OWN}.Plain.Inside").__name__ == "Inside"


@pytest.mark.parametrize(
    "target,signature,arguments,message",
    [
        ("mlp", SQUARES, {}, "model._target_: got mlp, allowed: the dotted name of a function or class"),
        ("no_such.build", SQUARES, {}, "model._target_: got no_such.build, .* PYTHONPATH"),
        ("", SQUARES, {}, "model._target_: got , allowed: the dotted name"),
        ("fl.models.mlp.bild", SQUARES, {}, r"got fl.models.mlp.bild, .* \(fl.models.mlp has no bild\)"),
        ("fl.models.resnet.build", SQUARES, {}, r"got fl.models.resnet.build, .* \(fl.models has no resnet\)"),
        (f"{OWN}.not_callable", SQUARES, {}, "it is of type int"),
        (f"{OWN}.a_number", SQUARES, {}, "model._target_: got own_models.a_number, which gave int"),
        (f"{OWN}.needs", SQUARES, {}, "model.depth: got nothing, allowed: a value, because own_models.needs needs one"),
        (f"{OWN}.breaks", SQUARES, {}, "model: got own_models.breaks, which raised RuntimeError: no such thing"),
        (f"{OWN}.Pair", SQUARES, {"in_features": 2, "out_features": 3}, r"which gave tuple, allowed: one floating"),
        (f"{OWN}.Half", SQUARES, {}, "state 'sixteen' is torch.bfloat16, allowed: tensors of float32"),
        (
            f"{OWN}.without_parameters",
            Signature("classification", (4,), "float32", 4),
            {"anything": 1},
            "which has no parameter to train",
        ),
        ("fl.models.mlp.build", SQUARES, {"hiden": [3]}, r"model.hiden: got \[3\], .* takes: dropout, hidden"),
        ("fl.models.softmax.build", SQUARES, {"hidden": [3]}, r"model.hidden: got \[3\], .* takes: no options"),
        ("fl.models.mlp.build", SQUARES, {"hidden": [-1]}, "model.hidden: got -1, allowed: whole numbers above 0"),
        (
            "torch.nn.Linear",
            SQUARES,
            {"in_features": 9, "out_features": 3},
            r"model: got torch.nn.Linear, which raised RuntimeError: .* takes float32 inputs of shape \(N, 1, 2, 2\)",
        ),
        (
            "torch.nn.Linear",
            SQUARES,
            {"in_features": 2, "out_features": 3},
            r"model: got torch.nn.Linear with outputs of shape \(N, 1, 2, 3\), allowed: \(N, 3\)",
        ),
        (
            "torch.nn.Linear",
            NUMBERS,
            {"in_features": 4, "out_features": 2},
            r"outputs of shape \(N, 2\), allowed: \(N,\) or \(N, 1\) for this data set's regression",
        ),
        ("torch.nn.Linear", NUMBERS, {"in_features": 4, "out_features": "x"}, "which raised TypeError"),
    ],
)
def test_what_does_not_fit_is_named(target, signature, arguments, message):
    with pytest.raises(BadInput, match=message):
        build(target, signature, **arguments)


def test_a_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_model.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "crashing_model.py").write_text("1 / 0\n")
    with pytest.raises(BadInput, match=r"broken_model.build, .*No module named 'a_package_that_is_not_there'"):
        find("broken_model.build")
    with pytest.raises(BadInput, match=r"crashing_model.build, .*ZeroDivisionError: division by zero"):
        find("crashing_model.build")


def test_the_source_hash_follows_the_files_that_a_model_is_made_of(tmp_path):
    package = tmp_path / "zoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layer.py").write_text("def layer():\n    return 2\n")
    (package / "unused.py").write_text("")
    (package / "net.py").write_text("from zoo.layer import layer\n\ndef build():\n    return layer()\n")

    def hashed() -> str:
        code = "from fl.models.imports import source_sha256; print(source_sha256('zoo.net.build'))"
        return subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    first = hashed()
    (package / "unused.py").write_text("# not reached\n")
    assert hashed() == first
    (package / "layer.py").write_text((package / "layer.py").read_text() + "# changed\n")
    assert hashed() != first


def test_the_source_hash_tells_models_apart():
    names = ["mlp", "cnn", "table_mlp", "softmax"]
    assert len({source_sha256(f"fl.models.{name}.build") for name in names}) == len(names)
    assert len(source_sha256("torch.nn.Linear")) == 64
