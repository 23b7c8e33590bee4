"""Randomness has an address: the same one gives the same stream anywhere, two give independent ones."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl.seeds import address, generator, process_wide

ADDRESSES = st.tuples(
    st.integers(), st.text("ab/ 1-", min_size=1, max_size=6), st.integers(-2, 99), st.integers(-1, 99)
)


def at(parts, function=address):
    seed, purpose, round, client = parts
    return function(seed, purpose=purpose, round=round, client=client)


@given(ADDRESSES, ADDRESSES)
def test_two_addresses_are_one_only_if_all_their_parts_are(a, b):
    assert (at(a) == at(b)) == (a == b)


def test_parts_do_not_run_into_each_other():
    assert address(1, purpose="p", round=1, client=23) != address(1, purpose="p", round=12, client=3)
    assert address(1, purpose="p/1", round=2, client=3) != address(1, purpose="p", round=1, client=2)
    assert address(11, purpose="p") != address(1, purpose="1/p")


def test_addresses_and_streams_are_the_same_for_ever():
    """Written down: another number here is another result of every run there has been."""
    assert address(1, purpose="shuffle", round=3, client=17) == 93286221427768273661251339470008981229
    assert generator(1, purpose="shuffle", round=3, client=17).integers(1000, size=4).tolist() == [169, 978, 562, 531]


def test_another_process_draws_the_same_in_another_order():
    program = (
        "from fl.seeds import generator as g;"
        "b = g(5, purpose='b').random(); a = g(5, purpose='a').random(); print(repr((float(a), float(b))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = (float(generator(5, purpose="a").random()), float(generator(5, purpose="b").random()))
    assert done.stdout.strip() == repr(here)


def test_neighbours_are_not_alike():
    draws = np.stack([generator(0, purpose="noise", client=c).standard_normal(2000) for c in range(20)])
    correlations = np.corrcoef(draws)[~np.eye(20, dtype=bool)]
    assert abs(correlations).max() < 0.1


def drawn():
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002  what is tested


def states():
    legacy = np.random.get_state()  # noqa: NPY002  what is tested
    return random.getstate(), legacy[1].tolist(), torch.get_rng_state().tolist()


def test_process_wide_generators_are_seeded_by_address():
    with process_wide(1, purpose="model", round=2, client=3):
        first = drawn()
    with process_wide(1, purpose="model", round=2, client=3):
        assert drawn() == first
    others = [(2, "model", 2, 3), (1, "other", 2, 3), (1, "model", 1, 3), (1, "model", 2, 4)]
    for other in others:
        with at(other, process_wide):
            assert all(a != b for a, b in zip(drawn(), first, strict=True))


def test_process_wide_generators_are_left_as_they_were_found():
    before = states()
    with process_wide(1, purpose="outer"):
        drawn()
        inside = states()
        with process_wide(2, purpose="inner"):
            drawn()
        assert states() == inside
    assert states() == before
    with pytest.raises(KeyError), process_wide(1, purpose="fails"):
        {}[drawn()]
    assert states() == before


@pytest.mark.parametrize("purpose", ["model", "train/module", "strategy", "other"])
def test_torch_draws_what_its_own_manual_seed_would_give(purpose):
    before = torch.get_rng_state()
    torch.manual_seed(address(1, purpose=purpose) % 2**63)
    expected = torch.rand(5)
    torch.set_rng_state(before)
    with process_wide(1, purpose=purpose):
        assert torch.equal(torch.rand(5), expected)
