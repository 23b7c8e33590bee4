import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.errors import BadInput
from fl.registry import Registry, keep_rule


@pytest.mark.parametrize(
    "keep", ["", "some", "last", "last:", "last:0", "last:-1", "every:1.5", "every:x", "last:²", "all:3"]
)
def test_a_rule_that_is_none(registry: Registry, keep: str):
    with pytest.raises(BadInput, match=r"server.keep_versions: got .*allowed: all, last:K or every:K"):
        keep_rule(keep)
    with pytest.raises(BadInput, match=r"server\.keep_versions"):
        registry.prune("r", keep)


@pytest.mark.parametrize(
    "keep, kept",
    [("all", {0, 1, 2, 3, 4, 7}), ("last:2", {4, 7}), ("last:99", {0, 1, 2, 3, 4, 7}), ("every:2", {0, 2, 4})],
)
def test_rules(keep: str, kept: set[int]):
    assert keep_rule(keep)([0, 1, 2, 3, 4, 7]) == kept


def test_a_pruned_version_keeps_its_manifest_and_says_so_when_its_parameters_are_asked_for(registry: Registry, grow):
    made = grow("r", 0.1, 0.2, 0.9, 0.3, 0.4)
    assert [v.name for v in registry.prune("r", "last:1")] == ["r:1", "r:3"]
    assert registry.prune("r", "last:1") == []
    assert registry.versions("r") == made
    assert registry.lineage("r") == made[::-1]
    assert registry.verify() == []
    with pytest.raises(BadInput, match=r"version: got r:3, whose parameters were pruned, allowed: .*rounds 0, 2, 4"):
        registry.parameters("r:3")


def test_all_and_a_run_without_versions_lose_nothing(registry: Registry, grow):
    grow("r", 0.1, 0.2)
    assert registry.prune("r", "all") == registry.prune("nothing", "last:1") == []


def test_parameters_that_another_version_keeps_stay_until_it_goes(registry: Registry, parameters, grow):
    for round, value in enumerate([0, 5, 6, 5]):
        registry.commit(parameters(value), {"run_id": "a", "round": round})
    assert [v.round for v in registry.prune("a", "last:1")] == [1, 2]
    assert registry.parameters("a:1")["b"][0] == 5
    registry.promote("a:1")  # it can still be used, and then it must stay
    registry.commit(parameters(7), {"run_id": "a", "round": 4})
    assert [v.round for v in registry.prune("a", "last:1")] == [3]
    assert registry.parameters("champion")["b"][0] == 5
    assert registry.verify() == []


def test_committing_again_what_was_pruned_keeps_it(registry: Registry, grow, parameters):
    grow("r", 0.1, 0.2, 0.3)
    registry.prune("r", "last:1")
    registry.drop_after("r", 0)
    grow_again = registry.commit(parameters(1), {"run_id": "r", "round": 1})
    assert registry.parameters(grow_again)["b"][0] == 1


LAST = 7
ROUND = st.integers(0, LAST)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.integers(0, 3), min_size=LAST + 1, max_size=LAST + 1),
    accuracies=st.lists(st.none() | st.floats(0, 1), min_size=LAST + 1, max_size=LAST + 1),
    promotions=st.lists(st.tuples(ROUND, st.sampled_from(["champion", "challenger"])), max_size=4),
    rollback=st.booleans(),
    seeds_another=ROUND,
    keep=st.sampled_from(["last:1", "last:3", "every:1", "every:4", "every:100"]),
    again=st.sampled_from(["all", "last:1", "every:100"]),
)
def test_what_must_stay_stays_whatever_the_rule(values, accuracies, promotions, rollback, seeds_another, keep, again):
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(folder)
        for round, (value, accuracy) in enumerate(zip(values, accuracies, strict=True)):
            metrics = {} if accuracy is None else {"accuracy": accuracy}
            registry.commit({"w": np.full(4, value)}, {"run_id": "r", "round": round, "metrics": metrics})
        registry.commit({"w": np.full(4, 99)}, {"run_id": "s", "round": 0, "parent": f"r:{seeds_another}"})
        for round, alias in promotions:
            registry.promote(f"r:{round}", alias)
        named = {alias: [m["to"] for m in registry.alias_moves(alias)] for alias in ("champion", "challenger")}
        if rollback and len(named["champion"]) > 1:
            left = named["champion"].pop()
            assert registry.rollback().name == named["champion"][-1] != left
        before = registry.versions()
        pruned = registry.prune("r", keep)
        pruned += registry.prune("r", again)

        assert registry.versions() == before
        assert registry.verify() == []
        protected = {"r:0", f"r:{LAST}", f"r:{seeds_another}", registry.version("r:best").name, "s:0"}
        protected |= {*named["champion"], *named["challenger"]}
        kept_by_rule = {f"r:{r}" for r in keep_rule(keep)(range(LAST + 1)) & keep_rule(again)(range(LAST + 1))}
        assert not {v.name for v in pruned} & (protected | kept_by_rule)
        assert {v.name for v in before} - {v.name for v in pruned} == {"s:0", *protected, *kept_by_rule}, (
            "nothing but what is protected or wanted stays"
        )
        stays = {v.model_sha256 for v in before if v not in pruned}
        assert {p.stem for p in (registry.folder / "blobs").iterdir()} == stays
        for version in before:
            if version not in pruned:
                assert registry.parameters(version)["w"][0] == (99 if version.run_id == "s" else values[version.round])
