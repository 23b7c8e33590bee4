"""What would run code, or open other files, is told by its bytes, and never read to find out."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from fl.packaging.quiet import quiet
from fl.untrusted import objection


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/meadow-was-here",)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A pt2 and a TorchScript archive of a small model, as torch writes them."""
    folder = tmp_path_factory.mktemp("archives")
    model, example = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), torch.zeros(2, 3)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with quiet():
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=shapes), folder / "model.pt2")
        torch.jit.save(torch.jit.trace(model, example), folder / "model.pt")
    return folder


def altered(path, out, change):
    """A copy of an archive in which ``change`` (entry name, content) -> content took place; None drops the entry."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out


def test_what_torch_writes_passes(archives):
    assert objection(archives / "model.pt2") is None
    assert objection(archives / "model.pt") is None


def test_arrays_and_text_pass(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.full(7, 1e-30, np.float32)}, tmp_path / "m.safetensors")
    (tmp_path / "card.md").write_text("# a card")
    (tmp_path / "raw.bin").write_bytes(b"\x80" + bytes(range(200)))
    assert [objection(path) for path in sorted(tmp_path.iterdir())] == [None, None, None]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.pkl", "weights.pth", "model.joblib"])
def test_a_pickle_by_any_name(tmp_path, name, protocol):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    assert "may run code" in str(objection(tmp_path / name))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind, place", [("pt2", "sample_inputs"), ("pt", "constants.pkl"), ("pt", "data.pkl")])
def test_a_pickle_inside_an_archive(archives, tmp_path, kind, place, protocol):
    evil = pickle.dumps(Evil(), protocol=protocol)
    swapped = altered(archives / f"model.{kind}", tmp_path / f"m.{kind}", lambda n, c: evil if place in n else c)
    assert place in str(objection(swapped)) and "pickle" in str(objection(swapped))


def test_a_pickle_inside_an_archive_inside_an_archive(archives, tmp_path):
    inner = io.BytesIO()
    torch.save({"inputs": Evil()}, inner)
    swapped = altered(
        archives / "model.pt2", tmp_path / "m.pt2", lambda n, c: inner.getvalue() if "sample_inputs" in n else c
    )
    assert "system" in str(objection(swapped))


@pytest.mark.parametrize(
    "old, new, words",
    [
        (b"Symbol('", b"__import__('os').getpid() + Symbol('", "has the size"),
        (b"torch.ops.aten.relu.default", b"os.system", "calls 'os.system'"),
    ],
)
def test_a_graph_that_torch_would_evaluate(archives, tmp_path, old, new, words):
    swapped = altered(archives / "model.pt2", tmp_path / "m.pt2", lambda n, c: c.replace(old, new))
    assert words in str(objection(swapped))


def test_a_compiled_library_and_a_pickled_tensor_in_a_pt2(archives, tmp_path):
    path = tmp_path / "m.pt2"
    altered(archives / "model.pt2", path, lambda n, c: c.replace(b'"use_pickle": false', b'"use_pickle": true'))
    assert "asks for a pickle" in str(objection(path))
    path.write_bytes((archives / "model.pt2").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data/aotinductor/model/model.so", b"\x7fELF")
    assert "may run code" in str(objection(path))


class Awake(nn.Module):
    @torch.jit.export
    def __getstate__(self):
        return (1, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]):
        print("awake")
        self.training = state[1]

    def forward(self, x):
        return x


def test_a_program_that_runs_while_it_is_loaded(tmp_path, capfd):
    with quiet():
        torch.jit.save(torch.jit.script(Awake()), tmp_path / "m.pt")
    assert "__setstate__" in str(objection(tmp_path / "m.pt"))


def test_external_data(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 64]) for n in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weights]))
    onnx.save(model, tmp_path / "inside.onnx")
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert objection(tmp_path / "inside.onnx") is None
    assert "external data" in str(objection(tmp_path / "outside.onnx"))
    tensor = onnx.load(tmp_path / "outside.onnx", load_external_data=False).graph.initializer[0]
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    result = helper.make_tensor_value_info("c", TensorProto.FLOAT, [64, 64])
    branch = helper.make_graph([constant], "branch", [], [result])
    inner = helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=branch)
    deep = helper.make_model(helper.make_graph([inner], "g", [], []))
    (tmp_path / "deep.onnx").write_bytes(deep.SerializeToString())
    assert "external data" in str(objection(tmp_path / "deep.onnx"))
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "inside.onnx").read_bytes()[:-9])
    assert "no readable ONNX" in str(objection(tmp_path / "cut.onnx"))
