"""A file of clients that are left out: only for the data that it was written for, and editable by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fl.data.dataset import Dataset
from fl.data.partition.assignment import from_parts
from fl.data.quarantine import dealing, read_quarantine, without_clients, without_natural, write_quarantine
from fl.data.validate import Violation
from fl.errors import BadInput
from fl.signature import Signature

DATA = Dataset(
    "people",
    Signature("classification", (1,), "float32", 2),
    np.arange(8.0, dtype=np.float32)[:, None],
    np.arange(8) % 2,
    client=np.array([0, 1, 2, 2, 1, 0, 3, 3]),
    client_names=("a", "b", "c", "d"),
)
BROKEN = [
    Violation(2, "age", "range", "3 below", "0 to 9"),
    Violation(None, "sex", "schema", "gone", "there"),
    Violation(2, None, "shared_share", "1", "0.1 at the most"),
]
NATURAL = {"partition": "natural", "partition_options": {}, "num_clients": None, "seed": 1, "server_fractions": (0.1,)}


def test_a_file_names_the_clients_and_what_they_broke(tmp_path):
    file = tmp_path / "q.json"
    assert write_quarantine(file, BROKEN, dealing="d") == [2]
    told = json.loads(file.read_text())["clients"]
    assert told == {"2": ["age: range: 3 below, allowed: 0 to 9", "rows: shared_share: 1, allowed: 0.1 at the most"]}
    assert read_quarantine(file, dealing="d") == [2]
    file.write_text(json.dumps({"dealing": "d", "clients": {"0": [], "3": []}}))
    assert read_quarantine(file, dealing="d") == [0, 3]
    with pytest.raises(BadInput, match=r"dataset\.quarantine: got .* which is of other data or clients"):
        read_quarantine(file, dealing="e")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dealing": "d", "clients": {"x": 1}}', '{"dealing": "d"}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    file = tmp_path / "q.json"
    with pytest.raises(BadInput, match="which is no file"):
        read_quarantine(file, dealing="d")
    file.write_text(text)
    with pytest.raises(BadInput, match="which is not as it was written"):
        read_quarantine(file, dealing="d")


def test_natural_clients_go_with_their_rows():
    left = without_natural(DATA, [1])
    assert left.x[:, 0].tolist() == [0, 2, 3, 5, 6, 7]
    assert left.client.tolist() == [0, 1, 1, 0, 2, 2]
    assert left.client_names == ("a", "c", "d")
    with pytest.raises(BadInput, match="got every client"):
        without_natural(DATA, range(4))


def test_dealt_clients_go_with_their_rows():
    left = without_clients(from_parts([np.array([3, 1]), np.array([0]), np.array([2])]), [1])
    assert [left.rows(c).tolist() for c in range(left.num_clients)] == [[3, 1], [2]]


def test_a_natural_client_is_who_it_is_and_a_dealt_one_depends_on_the_deal():
    assert dealing(DATA, **NATURAL) == dealing(DATA, **{**NATURAL, "seed": 2, "server_fractions": (0.2,)})
    dealt = {**NATURAL, "partition": "iid", "num_clients": 4}
    assert dealing(DATA, **dealt) != dealing(DATA, **{**dealt, "seed": 2})
    assert dealing(without_natural(DATA, [1]), **NATURAL) != dealing(DATA, **NATURAL)
