import pytest

from fl.errors import BadInput, CorruptFile
from fl.registry import Registry


def test_promotions_and_rollbacks_walk_a_stack(registry: Registry, grow):
    grow("r", 0.1, 0.2, 0.3)
    assert registry.promote("r:0", reason="start", by="ann") is None
    assert registry.promote("r:1") == "r:0"
    assert registry.promote("r:2") == "r:1"
    assert registry.rollback(reason="it was worse", by="bob").name == "r:1"
    assert registry.promote("r:2") == "r:1"
    assert [registry.rollback().name for _ in range(2)] == ["r:1", "r:0"]
    with pytest.raises(BadInput, match="alias: got champion, which has been nothing but r:0, allowed"):
        registry.rollback()
    moves = registry.alias_moves("champion")
    assert [(m["action"], m["from"], m["to"]) for m in moves] == [
        ("promote", None, "r:0"),
        ("promote", "r:0", "r:1"),
        ("promote", "r:1", "r:2"),
        ("rollback", "r:2", "r:1"),
        ("promote", "r:1", "r:2"),
        ("rollback", "r:2", "r:1"),
        ("rollback", "r:1", "r:0"),
    ]
    assert (moves[0]["by"], moves[0]["reason"], moves[0]["hash"]) == ("ann", "start", registry.version("r:0").hash)
    assert (moves[3]["by"], moves[3]["reason"]) == ("bob", "it was worse")


def test_promoting_what_stands_there_already_is_no_move(registry: Registry, grow):
    grow("r", 0.1, 0.2)
    registry.promote("r:0")
    assert registry.promote("r:0") == "r:0"
    assert len(registry.alias_moves("champion")) == 1


def test_champion_and_challenger_are_apart(registry: Registry, grow):
    grow("r", 0.1, 0.2)
    registry.promote("r:0")
    registry.promote("r:1", "challenger")
    assert {alias: v.name for alias, v in registry.aliases().items()} == {"champion": "r:0", "challenger": "r:1"}
    with pytest.raises(BadInput, match="alias: got best, allowed: champion, challenger"):
        registry.promote("r:0", "best")
    with pytest.raises(BadInput, match="alias: got hero"):
        registry.rollback("hero")


def test_a_vacant_alias_does_not_roll_back(registry: Registry, grow):
    grow("r", 0.1)
    assert registry.aliases() == {}
    with pytest.raises(BadInput, match="challenger, which names no version"):
        registry.rollback("challenger")


def test_the_first_finished_run_is_crowned_and_no_other(registry: Registry, grow):
    assert registry.crown_if_vacant("nothing") is None
    grow("a", 0.1, 0.9, 0.3)
    grow("b", 1.0)
    crowned = registry.crown_if_vacant("a")
    assert crowned is not None
    assert crowned.name == "a:1" == registry.version("champion").name
    assert registry.crown_if_vacant("b") is None
    assert registry.version("champion").name == "a:1"


def test_what_was_pruned_cannot_be_promoted(registry: Registry, grow):
    grow("r", 0.1, 0.2, 0.3)
    registry.prune("r", "last:1")
    with pytest.raises(BadInput, match=r"r:1, whose parameters were pruned, allowed: .* of r the rounds 0, 2"):
        registry.promote("r:1")


def test_a_damaged_champion_can_be_replaced_and_rolled_back_from(registry: Registry, grow):
    champion = grow("r", 0.1, 0.2, 0.3)[1]
    registry.promote("r:0")
    registry.promote(champion)
    original = champion.path.read_bytes()
    champion.path.write_bytes(original.replace(b"0.2", b"0.9"))
    with pytest.raises(CorruptFile, match=r"000001.json: champion names r:1 \(.*another manifest now"):
        registry.version("champion")
    assert registry.rollback().name == "r:0"
    champion.path.write_bytes(original)
    registry.promote(champion)
    champion.path.unlink()
    with pytest.raises(CorruptFile, match=r"aliases.json: champion names r:1 \(.*is missing"):
        registry.version("champion")
    assert registry.promote("r:2") == "r:1"
    assert registry.version("champion").name == "r:2"


@pytest.mark.parametrize(
    "content", ["{", '{"champion": 3}', '{"champion": {"history": [{"action": "rollback"}]}}', "[]", "3"]
)
def test_a_damaged_file_of_aliases_is_named(registry: Registry, grow, content: str):
    grow("r", 0.1)
    (registry.folder / "aliases.json").write_text(content)
    with pytest.raises(CorruptFile, match=r"aliases.json"):
        registry.aliases()
    with pytest.raises(CorruptFile, match=r"aliases.json"):
        registry.promote("r:0")
