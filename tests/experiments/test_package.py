"""`fl package` and `fl bundle`: what a user types, what comes of it, and what is refused with which exit status."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from experiments import cli
from experiments.compose import compose
from experiments.run import simulate
from fl.bundle import open_bundle
from fl.models.evaluate import predict
from fl.registry import Registry

SMALL = (
    *("dataset=synthetic", "dataset.clients=4", "dataset.dimension=8", "dataset.classes=3", "engine=inprocess"),
    *("num_rounds=1", "server.tensorboard=false"),
)
Command = Callable[..., tuple[int, str, str]]


def trained(folder: Path, *overrides: str) -> Registry:
    simulate(compose([*SMALL, *overrides, f"run_dir={folder / 'run'}", f"registry_dir={folder / 'registry'}"]))
    return Registry(folder / "registry")


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Registry:
    return trained(tmp_path_factory.mktemp("one"))


@pytest.fixture
def fl(capsys, tmp_path) -> Command:
    """`fl ...` with the bundles of this test in a folder of its own: exit status, standard output, standard error."""

    def fl(*words: str, registry: Registry | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        where = ["--registry", str(registry.folder), "--output", str(tmp_path / "bundles")] if registry else []
        status = cli.run([*words, *where])
        out, err = capsys.readouterr()
        return status, out, err

    return fl


@pytest.fixture
def key(tmp_path) -> Path:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    (tmp_path / "public.pem").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tmp_path / "key.pem"


def test_a_version_becomes_a_bundle_that_answers_like_it(fl, registry, tmp_path, key):
    status, out, err = fl("package", "champion", "--key", str(key), registry=registry)
    assert status == 0 and not err
    folder = Path(out.splitlines()[-1])
    assert folder.parent == tmp_path / "bundles"
    version = registry.version("champion")
    bundle = open_bundle(folder, public_key=tmp_path / "public.pem")
    assert bundle.manifest["version"]["model_sha256"] == version.model_sha256
    assert set(bundle.manifest["formats"]) == {"safetensors", "pt2"} and bundle.manifest["accepted"] is None
    x, y = registry.examples(version.run_id)
    assert np.mean(predict(bundle.module(), x, bundle.signature).argmax(1) == y) > 0.3
    assert fl("bundle", "show", str(folder))[1].splitlines()[-1] == str(folder)
    assert fl("bundle", "verify", str(folder), "--public-key", str(tmp_path / "public.pem"))[0] == 0
    shown = json.loads(fl("bundle", "show", str(folder), "--json")[1])
    assert shown["id"] == bundle.id == folder.name and shown["formats"] == bundle.manifest["formats"]
    again = json.loads(fl("package", version.name, "--json", "--key", str(key), registry=registry)[1])
    assert again["id"] == bundle.id and again["folder"] == str(folder)


def test_two_runs_give_the_same_bundle_and_it_names_neither(fl, registry, tmp_path):
    again = trained(tmp_path / "other")
    ids = [json.loads(fl("package", "champion", "--json", registry=one)[1])["id"] for one in (registry, again)]
    assert ids[0] == ids[1] and registry.version("champion").hash != again.version("champion").hash
    other = trained(tmp_path / "third", "seed=2")
    assert json.loads(fl("package", "champion", "--json", registry=other)[1])["id"] != ids[0]
    for path in (tmp_path / "bundles" / ids[0]).rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert str(tmp_path).encode() not in text and registry.version("champion").run_id.encode() not in text


def test_damage_is_refused_with_the_name_of_the_file(fl, registry, key):
    folder = Path(fl("package", "champion", "--key", str(key), registry=registry)[1].splitlines()[-1])
    (folder / "card.md").write_text("# A much better model\n")
    for words in (("verify",), ("show",), ("verify", "--json")):
        status, out, err = fl("bundle", words[0], str(folder), *words[1:])
        assert (status, out) == (1, "") and "card.md: its bytes are not those that were packaged" in err


GOAL = {"success": [{"metric": "accuracy", "threshold": 0.9, "means": "accuracy at least 0.9"}], "objective": "o"}
REFUSED = {"accepted": False, "reasons": ["accuracy at least 0.9: 0.5"], "override": None}


def test_only_what_was_accepted_is_packaged_where_something_was_asked_for(fl, tmp_path):
    store = trained(tmp_path / "one")
    version = store.version("champion")
    for name, evidence, words in (
        ("understand", GOAL, "was never held against its success criteria"),
        ("accept", REFUSED, "is not accepted: accuracy at least 0.9: 0.5"),
    ):
        store.attach(version, name, evidence)
        status, out, err = fl("package", "champion", registry=store)
        assert (status, out) == (4, "") and words in err
        assert not (tmp_path / "bundles").exists()
    status, out, _ = fl("package", "champion", "--override", "a demo | of it", registry=store)
    assert status == 0
    bundle = open_bundle(Path(out.splitlines()[-1]))
    assert bundle.manifest["accepted"] == {"accepted": False, "override": {"reason": "a demo | of it"}}
    assert r"goes out nevertheless | a demo \| of it |" in (bundle.folder / "card.md").read_text()
    store.attach(version, "accept", {**REFUSED, "override": {"reason": "r", "by": "b", "time": "t"}})
    assert fl("package", "champion", registry=store)[0] == 0
    store.attach(version, "accept", {**REFUSED, "accepted": True, "reasons": []})
    status, out, _ = fl("package", "champion", "--json", registry=store)
    assert status == 0 and json.loads(out)["accepted"] == {"accepted": True, "override": None}
    status, _, err = fl("package", "champion", "--override", "why not", registry=store)
    assert status == 2 and "--override: got 'why not', where nothing stands against" in err


@pytest.mark.parametrize(
    "words, told",
    [
        (("nothing",), "version: got nothing"),
        (("champion", "--format", "tflite"), "--format: got tflite"),
        (("champion", "--key", "no.pem"), "--key: got no.pem (No such file or directory), allowed: a PEM file"),
        (("champion", "--override", " "), "--override: got ' '"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(fl, registry, tmp_path, words, told):
    status, out, err = fl("package", *words, registry=registry)
    assert (status, out) == (2, "") and told in err
    assert not (tmp_path / "bundles").exists()


def test_what_is_no_bundle(fl, tmp_path):
    status, _, err = fl("bundle", "verify", str(tmp_path))
    assert status == 2 and "BUNDLE: got" in err and "one with a manifest.json" in err
