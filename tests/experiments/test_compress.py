"""`fl compress`: a smaller version goes through the same gate as any; an 8-bit file is judged by its own answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from experiments.compose import compose
from experiments.judging_files import FileJudge
from experiments.run import simulate
from fl.bundle import open_bundle
from fl.errors import BadInput, NotAccepted
from fl.evaluation.acceptance import criteria
from fl.packaging.export import Exported
from fl.registry import Registry

SMALL = (
    *("dataset=synthetic", "dataset.clients=4", "dataset.dimension=8", "dataset.classes=3", "engine=inprocess"),
    *("num_rounds=1", "server.tensorboard=false", "model=mlp", "model.hidden=[16,8]", "dataset.public_fraction=0.2"),
)


def trained(folder: Path) -> Registry:
    simulate(compose([*SMALL, f"run_dir={folder / 'run'}", f"registry_dir={folder / 'registry'}"]))
    return Registry(folder / "registry")


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Registry:
    return trained(tmp_path_factory.mktemp("compress"))


@pytest.fixture
def fl(capsys):
    def fl(registry: Registry, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.run([*words, "--registry", str(registry.folder)])
        return (status, *capsys.readouterr())

    return fl


@pytest.mark.parametrize(
    "words, kind",
    [
        (["--prune", "0.5"], "prune"),
        (["--prune-units", "0.5"], "prune_units"),
        (["model=softmax", "--epochs", "5"], "distil"),
    ],
)
def test_a_smaller_version_with_its_lineage_and_what_it_costs(fl, once, words, kind):
    status, out, err = fl(once, "compress", "run:best", *words)
    assert status == 0, err
    made, original = once.version(out.splitlines()[-1]), once.version("run:best")
    assert (
        made.manifest["parent"] == original.hash
        and made.run_id.startswith(f"run-{original.round}-")
        and made.round == 0
    )
    assert once.lineage(made)[1].hash == original.hash and not once.verify(made)
    assert made.manifest["compression"]["kind"] == kind
    assert made.manifest["compression"]["learned"]["public_examples"] > 0
    arrays, before = once.parameters(made), once.parameters(original)
    size, was = (sum(value.size for value in one.values()) for one in (arrays, before))
    if kind == "prune":
        matrices = [value for value in arrays.values() if value.ndim > 1]
        assert sum((m == 0).sum() for m in matrices) == int(0.5 * sum(m.size for m in matrices)) and size == was
    else:
        assert size < 0.6 * was
    known = once.evidence(made)["compress"]
    assert known["original"]["version"] == original.name and known["examples"] == len(once.examples("run")[0])
    for figure in ("loss", "accuracy"):
        assert known["original"]["metrics"][figure]["value"] == pytest.approx(original.metrics[figure], abs=1e-6)
        assert known["compressed"]["metrics"][figure]["value"] == pytest.approx(made.metrics[figure], abs=1e-6)
    assert "accuracy" in out and "by chance with p" in out
    assert once.version("run").run_id == "run"  # the run's folder and name still mean the run
    assert once.version(str(once.folder.parent / "run")).run_id == "run"


def test_the_same_command_makes_the_same_parameters_in_a_version_of_its_own(fl, once):
    names = [fl(once, "compress", "run:best", "--prune-units", "0.25")[1].splitlines()[-1] for _ in range(2)]
    one, other = (once.version(name) for name in names)
    assert one.name != other.name and one.model_sha256 == other.model_sha256


def test_it_is_evaluated_exported_packaged_and_compressed_again_like_any_other(fl, once, tmp_path):
    made = fl(once, "compress", "run:best", "--prune-units", "0.5")[1].splitlines()[-1]
    found = json.loads(fl(once, "evaluate", made, "--json", "--resamples", "100")[1])
    assert found["clients"]["count"] == 4 and found["examples"]["origin"].startswith("the server's test set")
    status, out, _ = fl(once, "package", made, "--output", str(tmp_path / "bundles"))
    bundle = open_bundle(Path(out.splitlines()[-1]))
    assert status == 0 and bundle.manifest["version"]["compression"]["kind"] == "prune_units"
    assert (
        "made smaller | the weakest 0.5 of the hidden units of every layer were taken out; then it learned"
        in (bundle.folder / "card.md").read_text()
    )
    assert bundle.manifest["version"]["model"]["arguments"]["hidden"] == [8, 4]
    assert fl(once, "compress", made, "--prune", "0.5")[0] == 0
    assert "fl evaluate asks every client" in fl(once, "clients", made)[2]


def test_what_was_asked_of_the_original_is_asked_of_it(fl, tmp_path):
    store = trained(tmp_path)
    accuracy = store.version("run:best").metrics["accuracy"]
    assert fl(store, "accept", "run:best", f"accuracy={accuracy - 0.01}")[0] == 0
    status, out, _ = fl(store, "compress", "run:best", "--prune-units", "0.9", "--epochs", "0")
    made = out.splitlines()[-1]
    assert status == 4 and f"{made} is refused" in out and "not fulfilled" in out
    assert not store.evidence(made)["accept"]["accepted"]
    status, _, err = fl(store, "package", made, "--output", str(tmp_path / "bundles"))
    assert status == 4 and "is not accepted: accuracy at least" in err and not (tmp_path / "bundles").exists()
    assert fl(store, "versions", "promote", made)[0] == 4
    status, out, _ = fl(store, "compress", "run:best", "--prune", "0.05")
    assert status == 0 and "is accepted" in out
    assert fl(store, "package", out.splitlines()[-1], "--output", str(tmp_path / "bundles"))[0] == 0


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "fl compress: got none, or several at once"),
        (["--prune", "0.5", "--prune-units", "0.5"], "fl compress: got none, or several at once"),
        (["--prune", "1.5"], "--prune: got 1.5"),
        (["--prune", "0.5", "--epochs", "-1"], "--epochs: got -1"),
        (["model=softmax", "--epochs", "0"], "--epochs: got 0"),
        (["model=softmax", "seed=2"], "seed: got seed=2, allowed: model=..."),
        (["model=nothing"], "model: got nothing"),
        (["model=cnn"], "model"),
        (["--prune", "0.5", "--temperature", "0"], "--temperature: got 0"),
    ],
)
def test_bad_input_makes_no_version(fl, once, words, told):
    before = len(once.versions())
    status, out, err = fl(once, "compress", "run:best", *words)
    assert (status, out) == (2, "") and told in err
    assert len(once.versions()) == before


def test_a_file_is_judged_by_what_it_answers_itself(once, tmp_path):
    version = once.version("run:best")
    file = Exported("onnx_int8", tmp_path / "model.int8.onnx", 5000, 0.0, 0.1, 10)
    wanted = criteria(
        {"success": {"accuracy": version.metrics["accuracy"] - 0.01}, "constraints": {"size_bytes": 6000}}
    )
    right = np.asarray(once.examples("run")[1])
    always = np.bincount(right).argmax()

    def one_answer(inputs: np.ndarray) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[np.full(len(inputs), always)]

    def judge(**changes) -> FileJudge:
        return FileJudge(**{"store": once, "version": version, "wanted": wanted, "evidence": {}} | changes)

    with pytest.raises(NotAccepted, match=r"run:\d is not accepted: as onnx_int8, accuracy at least"):
        judge()([(file, one_answer)])
    told = judge(override="a demo")([(file, one_answer)])["onnx_int8"]
    assert told["accepted"] is False and told["metrics"]["accuracy"] == pytest.approx(np.mean(right == always), abs=0.1)
    assert "accepted" not in judge(wanted=None)([(file, one_answer)])["onnx_int8"]
    from experiments.evaluation import rebuilt
    from fl.models.evaluate import outputs_of

    module = rebuilt(once, version)[0]

    def itself(inputs: np.ndarray) -> np.ndarray:
        import torch

        return outputs_of(module, [torch.from_numpy(inputs)])

    assert judge()([(file, itself)])["onnx_int8"]["accepted"] is True
    with pytest.raises(
        BadInput, match=r"--override: got 'a demo', where nothing stands against run:\d or a file of it"
    ):
        judge(override="a demo", vain=True)([(file, itself)])
    floor = criteria({"constraints": {"fairness_floor": 0.999}})
    with pytest.raises(NotAccepted, match=r"as onnx_int8, fairness_floor 0.999: client \d is served worst, accuracy 0"):
        judge(wanted=floor)([(file, one_answer)])
    large = criteria({"constraints": {"size_bytes": 4000}})
    with pytest.raises(NotAccepted, match=r"as onnx_int8, size_bytes at most 4000: 5000 bytes"):
        judge(wanted=large)([(file, itself)])


@pytest.mark.slow
def test_an_eight_bit_file_is_judged_before_it_is_packaged(fl, tmp_path):
    store = trained(tmp_path)
    size = sum(value.nbytes for value in store.parameters("run:best").values())
    assert fl(store, "accept", "run:best", f"size_bytes={size}", "accuracy=0.1")[0] == 0
    words = ("package", "run:best", "--format", "onnx_int8", "--output", str(tmp_path / "bundles"))
    status, _, err = fl(store, *words)
    assert status == 4 and f"as onnx_int8, size_bytes at most {size}" in err and not (tmp_path / "bundles").exists()
    assert fl(store, "package", "run:best", "--output", str(tmp_path / "bundles"))[0] == 0
    status, out, _ = fl(store, *words, "--override", "room enough")
    manifest = open_bundle(Path(out.splitlines()[-1])).manifest
    assert manifest["formats"]["onnx_int8"]["accepted"] is False
    assert manifest["accepted"] == {"accepted": True, "override": {"reason": "room enough"}}
    assert fl(store, "accept", "run:best", "accuracy=0.1")[0] == 0
    status, out, _ = fl(store, *words)
    manifest = open_bundle(Path(out.splitlines()[-1])).manifest
    file = manifest["formats"]["onnx_int8"]
    assert status == 0 and file["accepted"] is True and manifest["accepted"]["override"] is None
    assert file["metrics"]["accuracy"] == pytest.approx(store.version("run:best").metrics["accuracy"], abs=0.05)
    assert fl(store, *words, "--override", "why not")[0] == 2
