"""Settings come back from a run config, whatever they hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.errors import BadInput
from fl.run_config import flatten, unflatten

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("null")
NAMES = st.text("abc_-:", min_size=1, max_size=4) | st.just("_target_")
VALUES = st.recursive(
    SCALARS | st.text('[{"nul}', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("a.b"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_settings_come_back_from_flat_ones(settings):
    flat = flatten(settings)
    assert all(isinstance(value, bool | int | float | str) for value in flat.values())
    assert unflatten(flat) == settings
    assert unflatten(json.loads(json.dumps(flat))) == settings


def test_what_is_flat_already_stays_readable():
    flat = flatten({"seed": 1, "client": {"learning_rate": 0.1, "schedule": {"name": "constant"}}, "empty": {}})
    assert flat == {"seed": 1, "client.learning_rate": 0.1, "client.schedule.name": "constant", "empty": "{}"}


def test_broken_json_is_named():
    with pytest.raises(BadInput, match=r"model\.hidden: got \[200, allowed: JSON \("):
        unflatten({"model.hidden": "[200"})
