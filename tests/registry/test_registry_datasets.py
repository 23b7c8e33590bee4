"""The catalogue of data sets: the same content once, lineage from one content to the next, and names that find it."""

import pytest

from fl.errors import BadInput, CorruptFile
from fl.registry import Registry


@pytest.fixture
def registry(tmp_path) -> Registry:
    registry = Registry(tmp_path / "registry")
    registry.record_dataset("my data", "aa" * 32, {"examples": 3}, used_by="run:1")
    registry.record_dataset("my data", "ab" * 32, {"examples": 4}, used_by="run:2")
    registry.record_dataset("my data", "aa" * 32, {"examples": 3}, used_by="run:3")
    return registry


def test_the_same_content_is_recorded_once(registry):
    first, second = registry.datasets()
    assert (first["version"], first["used_by"], first["parent"]) == ("aa" * 32, ["run:1", "run:3"], None)
    assert (second["version"], second["parent"], second["examples"]) == ("ab" * 32, "aa" * 32, 4)


@pytest.mark.parametrize(
    "name, version", [("my-data", "ab" * 32), ("my-data@aa", "aa" * 32), ("my-data@ab", "ab" * 32)]
)
def test_names_find_it(registry, name, version):
    assert registry.dataset(name)["version"] == version


@pytest.mark.parametrize("name", ["my-data@a", "my-data@cc", "other"])
def test_names_that_find_none_or_several(registry, name):
    with pytest.raises(BadInput, match=r"data set: got .*my-data@abababababab, my-data@aaaaaaaaaaaa"):
        registry.dataset(name)


def test_a_damaged_record_is_told(registry):
    path = registry.folder / "datasets" / "my-data" / f"{'aa' * 32}.json"
    path.write_text(path.read_text().replace('"examples": 3', '"examples": 2'))
    with pytest.raises(CorruptFile, match=r"aa\.json"):
        registry.datasets()
    assert [problem.path for problem in registry.verify()] == [str(path)]
