import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.errors import CorruptFile
from fl.registry import Problem, Registry


@pytest.fixture
def family(registry: Registry, grow) -> Registry:
    """Run a, and run b that came from a:1; a:2 is champion."""
    grow("a", 0.1, 0.2, 0.3)
    grow("b", 0.4, 0.5, parent="a:1")
    registry.promote("a:2")
    return registry


def flip(path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def told(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(p.subject, p.path.rsplit("/", 1)[-1]) for p in problems]


def test_an_intact_registry_has_no_problems(family: Registry):
    assert family.verify() == []
    assert all(family.verify(v) == [] for v in family.versions())


@pytest.mark.parametrize("position", [0, 7, 20, 100, -1, -30])
def test_a_flipped_bit_in_the_parameters_is_found_wherever_it_is(family: Registry, position: int):
    version = family.version("a:2")
    blob = family.folder / "blobs" / f"{version.model_sha256}.safetensors"
    flip(blob, position)
    assert told(family.verify()) == told(family.verify("a:2")) == [("a:2", blob.name)]
    assert family.verify("b:1") == []  # not of its making
    with pytest.raises(CorruptFile, match=blob.name):
        family.parameters("a:2")


def test_every_flipped_bit_of_what_describes_the_parameters_is_found(family: Registry):
    version = family.version("a:2")
    blob, order = family.folder / "blobs" / f"{version.model_sha256}.safetensors", list(family.parameters("a:2"))
    assert order == ["w", "b", "a.count"], "the model's own, which the hash of the parameters says nothing of"
    content = blob.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for bit in range(8 * header):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        blob.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=blob.name):
            family.parameters("a:2")


def test_an_altered_manifest_is_not_read(family: Registry):
    path = family.version("a:1").path
    path.write_bytes(path.read_bytes().replace(b'"accuracy": 0.2', b'"accuracy": 0.9'))
    for read in (family.version, family.versions, family.best, family.parameters):
        with pytest.raises(CorruptFile, match=r"000001\.json: altered: was committed as "):
            read("a:1" if read in (family.version, family.parameters) else "a")
    assert family.version("a:2").round == 2 and family.latest("a") == family.version("a:2")


def test_every_flipped_bit_of_a_manifest_is_found(registry: Registry, grow):
    version = grow("r", 0.25)[0]
    content = version.path.read_bytes()

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(content) * 8 - 1))
    def one(bit: int) -> None:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        version.path.write_bytes(damaged)
        assert told(registry.verify())[:1] == [("r:0", "000000.json")]

    one()
    version.path.write_bytes(content)
    assert registry.verify() == []


def test_an_altered_manifest_is_found_though_nothing_came_from_it(family: Registry):
    version = family.version("b:1")
    version.path.write_bytes(version.path.read_bytes().replace(b"0.5", b"0.9"))
    problems = family.verify()
    assert told(problems) == told(family.verify("b:1")) == [("b:1", "000001.json")]
    assert "altered" in problems[0].what


def test_an_altered_ancestor_is_found_from_its_descendants(family: Registry):
    version = family.version("a:0")
    version.path.write_bytes(version.path.read_bytes().replace(b"0.1", b"0.9"))
    assert told(family.verify()) == [("a:0", "000000.json"), ("a:1", "000000.json")]
    assert told(family.verify("b:1")) == [("b:1", "000000.json")]
    with pytest.raises(CorruptFile, match=r"000000.json: is not what a:1 came from"):
        family.lineage("b:1")


def test_missing_files(family: Registry):
    blob = family.folder / "blobs" / f"{family.version('a:2').model_sha256}.safetensors"
    blob.unlink()
    assert family.verify("a:2") == [Problem("a:2", str(blob), "the file is missing")]
    with pytest.raises(CorruptFile, match="the file is missing"):
        family.parameters("a:2")
    shutil.rmtree(family.folder / "versions" / "a")
    problems = {(p.subject, p.what.split(" (")[0]) for p in family.verify()}
    assert ("b:0", "comes from a:1, which is missing") in problems
    assert ("champion", "champion names a:2") in problems
    assert [p.what for p in family.verify("b:1")] == ["comes from a:1, which is missing"]


def test_parameters_under_another_versions_name(family: Registry):
    a, b = (family.folder / "blobs" / f"{family.version(n).model_sha256}.safetensors" for n in ("a:1", "a:2"))
    shutil.copy(a, b)
    assert "another hash than its name" in family.verify("a:2")[0].what


def test_a_manifest_in_the_wrong_place_or_of_the_wrong_shape(family: Registry):
    path = family.version("a:2").path
    shutil.copy(path, path.with_name("000009.json"))
    assert ("a:9", "000009.json") in told(family.verify())
    path.with_name("000009.json").unlink()
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(CorruptFile, match=r"000002.json: not a manifest, which has at least run_id"):
        family.version("a:2")


@pytest.mark.parametrize("line", ["{}\n", "nonsense\n", '{"event": "burn", "round": 1}\n', "[]\n"])
def test_a_damaged_log_is_named_and_stops_pruning(family: Registry, line: str):
    log = family.folder / "versions" / "a" / "log.jsonl"
    log.write_text(log.read_text() + line)
    assert told(family.verify()) == [("a", "log.jsonl")]
    with pytest.raises(CorruptFile, match=r"log.jsonl: line 4 is not a line of a version log"):
        family.prune("b", "last:1")
    log.unlink()
    assert told(family.verify()) == [(f"a:{r}", "log.jsonl") for r in range(3)]
    with pytest.raises(CorruptFile, match=r"log.jsonl: does not know the round 0"):
        family.prune("b", "last:1")  # whose parameters a uses cannot be known, so none are removed
    assert len(list((family.folder / "blobs").iterdir())) == 3


def test_scalars_empty_arrays_and_odd_layouts_survive(registry: Registry):
    given = {
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.float64)[::2],
        "big": np.arange(4, dtype=">f4"),
        "flags": np.array([True, False]),
        "half": np.ones(3, np.float16),
    }
    registry.commit(given, {"run_id": "r", "round": 0})
    back = registry.parameters("r:0")
    for name, value in given.items():
        assert back[name].shape == value.shape, name
        assert np.array_equal(back[name], value), name
    assert registry.verify() == []
