"""A bundle is what was packaged to the last bit, or it is refused by the name of the file, before it is used."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from safetensors.numpy import load_file

from fl.bundle import NEEDED, Bundle, open_bundle, write_bundle
from fl.errors import BadInput, CorruptFile
from fl.evaluation.card import card, markdown
from fl.files import FILES, json_bytes, read_json, sha256_file
from fl.models.arrays import parameters_of
from fl.models.build import build_model
from fl.models.evaluate import predict
from fl.packaging.package import package
from fl.parameters import sha256
from fl.signature import Signature

TABLE = Signature(
    "classification",
    (4,),
    "float32",
    2,
    class_names=("well", "ill"),
    feature_names=("a", "b", "c", "d"),
    medians=(1.0, 2.0, 3.0, 4.0),
    indicators=(1, 3),
    feature_mean=(0.5,) * 4,
    feature_std=(2.0,) * 4,
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROWS = np.where(np.random.default_rng(1).random((9, 4)) < 0.3, np.nan, 1.5).astype(np.float32)


def built(target: str = "fl.models.logistic.build"):
    return build_model(target=target, arguments={}, signature=TABLE, seed=3)


def packaged(output: Path, **changes) -> Bundle:
    model = built()
    version = {
        "model_sha256": sha256(parameters_of(model)),
        "round": 4,
        "seed": 3,
        "metrics": {"accuracy": 0.75, "loss": None},
        "dataset": {"name": "people", "fingerprint": "0" * 64},
        "model": {"target": "fl.models.logistic.build", "arguments": {}},
    }
    arguments = {
        "signature": TABLE,
        "parameters": parameters_of(model),
        "examples": ROWS,
        "formats": ["pt2"],
        "output": output,
        "version": version,
        "card": markdown(card(version, TABLE, {})),
    }
    return package(model, **(arguments | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Bundle:
    return packaged(tmp_path_factory.mktemp("bundles"), key=KEY)


@pytest.fixture
def copied(made, tmp_path) -> Path:
    """The same bundle for this test alone, in a folder whose name says nothing."""
    return Path(shutil.copytree(made.folder, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def public_key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "public.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_what_is_in_a_bundle(made, public_key):
    files = {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
    assert files == {*NEEDED, "manifest.json", "SIGNATURE", "formats/model.pt2"}
    assert made.folder.name == made.id == sha256_file(made.folder / "manifest.json")
    found = open_bundle(made.folder, public_key=public_key)
    assert found.trusted and not open_bundle(made.folder).trusted
    assert found.signature == TABLE and found.labels == ("well", "ill")
    assert found.preprocessing["columns"] == ["a", "b", "c", "d"]
    assert found.preprocessing["in_the_model"]["medians"] == [1.0, 2.0, 3.0, 4.0]
    assert found.manifest["formats"]["pt2"]["largest_difference"] <= found.manifest["formats"]["pt2"]["tolerance"]
    assert "| accuracy | 0.75 |" in (found.folder / "card.md").read_text()
    assert found.path("pt2") == found.folder / "formats" / "model.pt2"
    with pytest.raises(BadInput, match="--format: got onnx, allowed: what the bundle holds: pt2, safetensors"):
        found.path("onnx")


def test_the_model_of_a_bundle_answers_as_the_one_that_was_packaged(made):
    assert np.array_equal(predict(open_bundle(made.folder).module(), ROWS, TABLE), predict(built(), ROWS, TABLE))


def test_readers_that_are_not_ours(made, public_key):
    stored = load_file(made.folder / "model.safetensors")
    assert all(np.array_equal(stored[name], value) for name, value in parameters_of(built()).items())
    answers = torch.export.load(made.path("pt2")).module()(torch.from_numpy(ROWS)).numpy()
    assert np.allclose(answers, predict(built(), ROWS, TABLE), atol=1e-6)
    if shutil.which("openssl"):
        command = f"openssl pkeyutl -verify -rawin -pubin -inkey {public_key} -sigfile SIGNATURE -in manifest.json"
        told = subprocess.run(command.split(), cwd=made.folder, capture_output=True, text=True, check=False, timeout=60)
        assert "Verified Successfully" in told.stdout


def test_the_same_version_gives_the_same_bytes_and_nobody_else_s(made, tmp_path):
    again = packaged(tmp_path, key=KEY)
    assert again.id == made.id
    for path in made.folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again.folder / path.relative_to(made.folder)).read_bytes()
    assert packaged(tmp_path).id != made.id  # the manifest says who signed
    assert packaged(tmp_path, key=KEY).folder == again.folder and len(list(tmp_path.iterdir())) == 2


def test_what_stands_in_the_place_and_is_damaged_is_made_again(tmp_path):
    first = packaged(tmp_path)
    (first.folder / "card.md").write_text("another")
    assert open_bundle(packaged(tmp_path).folder).id == first.id


# Refused


@pytest.mark.parametrize("step", [pytest.param(7, marks=pytest.mark.slow), 61])
def test_every_flipped_bit_is_refused(copied, step):
    """One of every so many, which is prime to 8: every bit of a byte has its turn. Fewer in the large files."""
    count = 0
    for path in sorted(p for p in copied.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for place in range(0, 8 * len(content), step * (101 if len(content) > 3000 else 1)):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            with pytest.raises((CorruptFile, BadInput)) as told:
                open_bundle(copied)
            assert path.name in str(told.value) or path.name == "manifest.json"
            count += 1
        path.write_bytes(content)
    assert count > 20_000 / step
    open_bundle(copied)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_file_that_is_removed_or_renamed_is_refused_by_name(copied):
    for name in names(copied):
        path = copied / name
        path.rename(copied / "elsewhere")
        with pytest.raises((CorruptFile, BadInput), match=f"elsewhere|{path.name}"):
            open_bundle(copied)
        (copied / "elsewhere").rename(copied.parent / "out")
        with pytest.raises((CorruptFile, BadInput), match=path.name):
            open_bundle(copied)
        (copied.parent / "out").rename(path)
    open_bundle(copied)


@pytest.mark.parametrize("name", ["extra.txt", "formats/more.onnx", ".hidden", "deep/er/file", "model.pkl"])
def test_every_file_that_is_added_is_refused_by_name(copied, name):
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_bytes(b"")
    with pytest.raises(CorruptFile, match=f"{name.rpartition('/')[2]}: no file of the bundle"):
        open_bundle(copied)


def test_a_link_is_no_file_of_a_bundle(copied):
    path = copied / "card.md"
    path.rename(copied.parent / "card.md")
    path.symlink_to(copied.parent / "card.md")
    with pytest.raises(CorruptFile, match=r"card.md: a link"):
        open_bundle(copied)


def test_a_bundle_under_the_name_of_another(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / ("0" * 64))
    with pytest.raises(CorruptFile, match="another than the name of the bundle"):
        open_bundle(tmp_path / ("0" * 64))


def test_who_signed(copied, made, public_key, tmp_path):
    other = tmp_path / "other.pem"
    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    other.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(CorruptFile, match="another key than the one that is asked for"):
        open_bundle(copied, public_key=other)
    with pytest.raises(CorruptFile, match="nobody signed the bundle"):
        open_bundle(packaged(tmp_path / "unsigned").folder, public_key=public_key)
    # Whoever alters it and signs with a key of their own passes without a key, and not with one.
    rewritten = rewrite(copied, {"signed_by": key.public_bytes_raw().hex()})
    (rewritten / "SIGNATURE").write_bytes(
        Ed25519PrivateKey.from_private_bytes(bytes(32)).sign((rewritten / "manifest.json").read_bytes())
    )
    open_bundle(rewritten)
    with pytest.raises(CorruptFile, match="another key"):
        open_bundle(rewritten, public_key=public_key)


def rewrite(folder: Path, changes: dict, files: dict[str, bytes] | None = None) -> Path:
    """What a forger does who knows the layout: every hash is right."""
    manifest = read_json(folder / "manifest.json")
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
        manifest[FILES][name] = {"sha256": sha256_file(folder / name), "size": len(content)}
    (folder / "manifest.json").write_bytes(json_bytes({**manifest, **changes}))
    return folder


def unsigned(folder: Path) -> Path:
    (folder / "SIGNATURE").unlink()
    return folder


def test_what_would_run_code_is_refused_although_every_hash_is_right(copied):
    rewrite(unsigned(copied), {"signed_by": None}, {"formats/model.pt": b"\x80\x02cos\nsystem\n."})
    with pytest.raises(CorruptFile, match=r"formats/model.pt: refused: .* may run code when it is read"):
        open_bundle(copied)


def test_nothing_that_would_run_code_is_packaged(made, tmp_path):
    files = {name: (made.folder / name).read_bytes() for name in NEEDED}
    about = {"version": {}, "formats": {}}
    with pytest.raises(BadInput, match=r"bundle: got .*model.pkl: refused: a .pkl file may run code"):
        write_bundle(tmp_path / "out", files={**files, "formats/model.pkl": b""}, about=about)
    assert list((tmp_path / "out").iterdir()) == []
    del files["labels.json"]
    with pytest.raises(BadInput, match=r"bundle: got no labels.json, allowed: at least model.safetensors"):
        write_bundle(tmp_path / "out", files=files, about=about)


def test_a_model_of_somebody_s_own_code_is_built_for_whom_the_signer_is_known_only(copied, public_key):
    version = read_json(copied / "manifest.json")["version"]
    for target in ("os.system", "fl.models.imports.importlib.import_module", "my_model.Net"):
        rewrite(copied, {"version": {**version, "model": {"target": target, "arguments": {"command": "true"}}}})
        (copied / "SIGNATURE").write_bytes(KEY.sign((copied / "manifest.json").read_bytes()))
        with pytest.raises(BadInput, match=f"whose model is {target}, allowed: a model of fl.models, or --public-key"):
            open_bundle(copied).module()
    with pytest.raises(BadInput, match=r"model._target_: got my_model.Net"):  # trusted, and looked for
        open_bundle(copied, public_key=public_key).module()


def test_parameters_of_another_model(copied):
    manifest = read_json(copied / "manifest.json")
    rewrite(unsigned(copied), {"signed_by": None, "version": {**manifest["version"], "model_sha256": "0" * 64}})
    with pytest.raises(CorruptFile, match=r"model.safetensors: its arrays are not those of the version"):
        open_bundle(copied).module()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"schema": 2}, "a later release made it, allowed: a schema up to 1"),
        ({"schema": 0}, "its schema is 0"),
        ({"schema": "1"}, "its schema is '1'"),
        ({"kind": "another"}, "allowed: the manifest of a meadow model bundle"),
        ({"files": []}, "not a manifest"),
        ({"files": {"card.md": {}}}, "not a manifest"),
        ({"formats": None}, "not a manifest"),
        ({"signed_by": 3}, "not a manifest"),
        ({"files": {"../card.md": {"sha256": "0", "size": 1}}}, "no file of the bundle"),
    ],
)
def test_manifests_that_are_none(copied, changes, words):
    with pytest.raises((CorruptFile, BadInput), match=words):
        open_bundle(rewrite(copied, changes))


def test_no_bundle_at_all(tmp_path):
    with pytest.raises(BadInput, match=r"BUNDLE: got .*, allowed: the folder of a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(CorruptFile, match=r"manifest.json"):
        open_bundle(tmp_path)


def test_a_format_that_disagrees_makes_no_bundle(tmp_path):
    with pytest.raises(BadInput, match="--format: got tflite"):
        packaged(tmp_path / "out", formats=["tflite"])
    assert not (tmp_path / "out").exists()


# Of an earlier release


def test_a_bundle_of_an_earlier_release_still_loads_and_answers_as_it_did():
    """Made by the release that brought bundles, of heart disease; to be kept whatever the layout becomes."""
    kept = Path(__file__).with_name("bundle_schema_1")
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    bundle = open_bundle(folder, public_key=kept / "public.pem")
    assert bundle.manifest["schema"] == 1 and bundle.trusted and bundle.labels == ("no disease", "disease")
    known = json.loads((kept / "answers.json").read_text())
    rows = np.array([[np.nan if v is None else v for v in row] for row in known["rows"]], np.float32)
    assert np.allclose(predict(bundle.module(), rows, bundle.signature), known["answers"], atol=1e-5)
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 100 * 1024


def test_the_onnx_of_an_earlier_bundle_answers_too():
    pytest.importorskip("onnxruntime")
    from fl.packaging.onnx import read

    kept = Path(__file__).with_name("bundle_schema_1")
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    known = json.loads((kept / "answers.json").read_text())
    rows = np.array([[np.nan if v is None else v for v in row] for row in known["rows"]], np.float32)
    assert np.allclose(read(open_bundle(folder).path("onnx"))(rows), known["answers"], atol=1e-5)
