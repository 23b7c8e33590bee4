import hashlib
import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from fl.errors import BadInput
from fl.parameters import Parameters, sha256
from fl.registry import Registry, Version

Model = Callable[[float], Parameters]


def test_a_version_comes_back_bit_for_bit_in_the_models_own_order(registry: Registry, parameters: Model):
    given = parameters(1.5)
    given["w"][0, 0] = np.nextafter(np.float32(1), np.float32(2))
    version = registry.commit(given, {"run_id": "r", "round": 0})
    back = registry.parameters("r:0")
    assert list(back) == list(given)
    assert all(back[n].dtype == given[n].dtype and np.array_equal(back[n], given[n]) for n in given)
    assert version.model_sha256 == sha256(given)
    assert (registry.folder / "blobs" / f"{sha256(given)}.safetensors").is_file()


def test_the_manifest_has_all_that_was_asked_for_and_its_bytes_are_the_versions_hash(
    registry: Registry, parameters: Model
):
    fields = {
        "run_id": "r",
        "round": 0,
        "cohort": (3, 1),
        "config": {"client": {"learning_rate": np.float32(0.5)}},
        "seed": 7,
        "dataset": {"name": "mnist", "fingerprint": "f"},
        "model": {"target": "m", "arguments": {}, "source_sha256": "s"},
        "metrics": {"accuracy": 0.5},
    }
    version = registry.commit(parameters(1), fields)
    assert version.path == registry.folder / "versions" / "r" / "000000.json"
    assert version.hash == hashlib.sha256(version.path.read_bytes()).hexdigest()
    manifest = json.loads(version.path.read_bytes())
    assert manifest == version.manifest == registry.version("r:0").manifest
    expected = {
        **fields,
        "cohort": [3, 1],
        "config": {"client": {"learning_rate": 0.5}},
        "schema": 1,
        "name": "r:0",
        "model_sha256": version.model_sha256,
        "parent": None,
        "parent_name": None,
        "num_parameters": 9,
        "bytes": 6 * 4 + 2 * 8 + 8,
        "signature": None,
        "seeding": {},
        "selection": {"metric": "accuracy", "direction": "max"},
    }
    assert {k: manifest[k] for k in expected} == expected
    assert manifest.keys() - expected.keys() == {"created", "code"}
    assert manifest["created"].endswith("+00:00")


def test_the_parent_is_the_round_before_unless_told(registry: Registry, grow: Callable[..., list[Version]]):
    a = grow("a", 0.1, 0.2)
    assert a[1].manifest["parent"] == a[0].hash
    for parent in (a[1], "a:1", a[1].hash):
        b = registry.commit({"w": np.zeros(1)}, {"run_id": "b", "round": 0, "parent": parent})
        assert (b.manifest["parent"], b.manifest["parent_name"]) == (a[1].hash, "a:1")
    assert [v.name for v in registry.lineage("b:0")] == ["b:0", "a:1", "a:0"]
    alone = registry.commit({"w": np.zeros(1)}, {"run_id": "a", "round": 2, "parent": None})
    assert registry.lineage(alone) == [alone]


def test_a_parent_in_another_registry_is_refused(registry: Registry, grow: Callable[..., list[Version]], tmp_path):
    stranger = Registry(tmp_path / "other").commit({"w": np.zeros(1)}, {"run_id": "o", "round": 0})
    with pytest.raises(BadInput, match="parent: got o:0, allowed: a version of the registry"):
        registry.commit({"w": np.zeros(1)}, {"run_id": "a", "round": 0, "parent": stranger})


def test_equal_parameters_share_one_file(registry: Registry, parameters: Model):
    for run_id in ("a", "b"):
        registry.commit(parameters(1), {"run_id": run_id, "round": 0})
    registry.commit(dict(reversed(parameters(1).items())), {"run_id": "c", "round": 0})
    assert len(list((registry.folder / "blobs").iterdir())) == 1


def test_a_damaged_file_of_parameters_is_mended_by_committing_them_again(registry: Registry, parameters: Model):
    version = registry.commit(parameters(1), {"run_id": "a", "round": 0})
    blob = registry.folder / "blobs" / f"{version.model_sha256}.safetensors"
    blob.write_bytes(blob.read_bytes()[:-1])
    registry.commit(parameters(1), {"run_id": "b", "round": 0})
    assert registry.verify() == []


def test_committing_the_same_again_changes_nothing(registry: Registry, parameters: Model):
    fields = {"run_id": "r", "round": 0, "metrics": {"loss": 1.0}}
    first = registry.commit(parameters(1), fields)
    before = first.path.read_bytes()
    assert registry.commit(parameters(1), fields) == first
    assert registry.commit(parameters(1), fields, replace=True) == first
    assert first.path.read_bytes() == before


def test_another_version_under_a_committed_name_is_refused_or_replaces_it(registry: Registry, parameters: Model):
    first = registry.commit(parameters(1), {"run_id": "r", "round": 0, "seed": 1})
    with pytest.raises(BadInput, match="r:0, which is committed and differs in model_sha256, seed"):
        registry.commit(parameters(2), {"run_id": "r", "round": 0, "seed": 2})
    assert registry.version("r:0") == first
    second = registry.commit(parameters(2), {"run_id": "r", "round": 0, "seed": 2}, replace=True)
    assert registry.version("r:0") == second != first
    assert registry.parameters("r:0")["b"][0] == 2
    assert registry.verify() == []


def test_what_others_depend_on_is_not_replaced_nor_dropped(
    registry: Registry, grow: Callable[..., list[Version]], parameters: Model
):
    grow("a", 0.1, 0.2, 0.3)
    with pytest.raises(BadInput, match="a:1, to be removed although a:2 depends on it"):
        registry.commit(parameters(9), {"run_id": "a", "round": 1}, replace=True)
    registry.promote("a:2", "challenger")
    with pytest.raises(BadInput, match="a:2, to be removed although challenger depends on it"):
        registry.drop_after("a", 0)
    registry.promote("a:0", "challenger")
    with pytest.raises(BadInput, match="challenger"):  # a rollback would need it
        registry.drop_after("a", 1)
    assert [v.round for v in registry.versions("a")] == [0, 1, 2]


def test_drop_after_forgets_later_rounds_unless_another_run_came_from_them(
    registry: Registry, grow: Callable[..., list[Version]]
):
    grow("a", 0.1, 0.2, 0.3, 0.4)
    assert [v.name for v in registry.drop_after("a", 2)] == ["a:3"]
    assert registry.drop_after("a", 2) == []
    grow("b", 0.5, parent="a:2")
    with pytest.raises(BadInput, match="although b:0 depends on it"):
        registry.drop_after("a", 0)
    assert [v.round for v in registry.versions("a")] == [0, 1, 2]
    assert registry.drop_after("nothing", 0) == []
    assert registry.verify() == []


def test_a_run_that_diverged_is_versioned_with_null_metrics(registry: Registry, parameters: Model):
    version = registry.commit(
        parameters(1), {"run_id": "r", "round": 0, "metrics": {"loss": math.nan, "accuracy": np.float32(math.inf)}}
    )
    assert version.metrics == {"loss": None, "accuracy": None}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"run_id": "../x"}, "run_id: got '../x'"),
        ({"run_id": "a:b"}, "run_id: got 'a:b'"),
        ({"run_id": "champion"}, "run_id: got 'champion'"),
        ({}, "run_id: got ''"),
        ({"run_id": "r", "round": -1}, "round: got -1, allowed: an integer from 0 to 999999"),
        ({"run_id": "r", "round": None}, "round: got None"),
        ({"run_id": "r", "config": {"a": [math.nan]}}, r"manifest.config.a\[0\]: got nan, allowed: a finite number"),
        ({"run_id": "r", "config": {"a": object}}, "manifest.config.a: got <class 'object'>"),
        ({"run_id": "r", "selection": {"metric": "loss", "direction": "down"}}, "selection.direction: got down"),
        ({"run_id": "r", "parent": "nobody:3"}, "version: got nobody:3"),
    ],
)
def test_fields_that_cannot_be_a_manifest(registry: Registry, fields: dict[str, object], message: str):
    with pytest.raises(BadInput, match=message):
        registry.commit({"w": np.zeros(1)}, {"round": 0, **fields})
    assert not list(registry.folder.glob("**/*.json"))


def test_a_registry_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"registry_dir: got .*file/registry"):
        Registry(tmp_path / "file" / "registry").commit({"w": np.zeros(1)}, {"run_id": "r", "round": 0})


def test_rounds_that_are_committed_together_are_what_they_are_one_by_one(tmp_path, parameters: Model):
    rounds = [(parameters(r), {"run_id": "r", "round": r, "metrics": {"accuracy": r / 10}}) for r in range(4)]
    alone, together = Registry(tmp_path / "alone"), Registry(tmp_path / "together")
    expected = [alone.commit(given, fields) for given, fields in rounds]
    first = together.commit(*rounds[0])
    made = [first, *together.commit_all(rounds[1:])]
    assert [v.model_sha256 for v in made] == [v.model_sha256 for v in expected]
    assert [v.hash for v in together.lineage("r:3")] == [v.hash for v in reversed(made)]
    assert together.versions("r") == made
    assert not together.verify()
    assert together.commit_all(rounds) == made  # the same again changes nothing


def test_of_rounds_that_are_committed_together_none_is_where_one_cannot_be(registry: Registry, parameters: Model):
    bad = {"run_id": "r", "round": 1, "record": {"loss": math.nan}}
    with pytest.raises(BadInput, match=r"manifest\.record\.loss"):
        registry.commit_all([(parameters(0), {"run_id": "r", "round": 0}), (parameters(1), bad)])
    assert not registry.versions("r")
    assert not list(registry.folder.rglob("*.safetensors"))
