"""What a device keeps: by round, so that a round that never was leaves no trace, and little of what lies behind."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.state import StateStore
from fl.errors import CorruptFile


def arrays(value: float) -> dict[str, np.ndarray]:
    return {"c": np.full((2, 3), value), "transposed": np.arange(6.0).reshape(2, 3).T, "n": np.array(int(value))}


def rounds(store: StateStore, client: int = 7) -> list[int]:
    return sorted(int(path.stem) for path in store.folder.glob(f"*/{client:06d}/*.safetensors"))


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save(1234, arrays(0.1), round=3)
    found = store.load(1234, before=4)
    assert found is not None and found[0] == 3
    for name, value in arrays(0.1).items():
        assert found[1][name].dtype == value.dtype
        np.testing.assert_array_equal(found[1][name], value)


def test_nothing_is_known_before_the_first_round_and_of_other_clients(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    assert store.load(7, before=100) is None
    store.save(7, arrays(1), round=3)
    assert store.load(7, before=3) is None
    assert store.load(8, before=100) is None
    assert not StateStore(tmp_path / "unused").folder.exists()


def test_a_round_done_again_reads_what_it_read_the_first_time(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save(7, arrays(1), round=1)
    store.save(7, arrays(2), round=2)
    store.save(7, arrays(22), round=2)
    assert [store.load(7, before=round)[1]["c"][0, 0] for round in (2, 3)] == [1, 22]  # type: ignore[index]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=15, unique=True))
def test_a_run_may_go_on_from_two_rounds_ago(tmp_path_factory: pytest.TempPathFactory, taken: list[int]) -> None:
    """While round r trains, r - 1 may not be committed yet: whatever r - 1 would read must still be there."""
    store, taken = StateStore(tmp_path_factory.mktemp("states")), sorted(taken)
    for done, round in enumerate(taken):
        store.save(7, arrays(round), round=round)
        for going_on_with in (round - 1, round, round + 1):
            expected = max((r for r in taken[: done + 1] if r < going_on_with), default=None)
            found = store.load(7, before=going_on_with)
            assert (found[0] if found else None) == expected
        assert len(rounds(store)) <= 3


def test_rounds_that_will_happen_again_are_forgotten(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    for client in (7, 1007):
        for round in (4, 5):
            store.save(client, arrays(round), round=round)
    store.drop_from(5)
    assert rounds(store) == rounds(store, 1007) == [4]
    store.drop_from(0)
    assert rounds(store) == []
    StateStore(tmp_path / "nothing").drop_from(0)


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", None])
def test_damage_is_named(tmp_path: Path, damage: bytes | None) -> None:
    store = StateStore(tmp_path)
    store.save(7, arrays(1), round=1)
    (path,) = tmp_path.glob("*/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    with pytest.raises(CorruptFile, match=r"000007.1\.safetensors: "):
        store.load(7, before=2)
