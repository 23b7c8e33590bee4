"""Rules inferred from sound data let it pass, and name client and column of every fault that is planted in it."""

from __future__ import annotations

import numpy as np
import pytest

from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from fl.data.profile import profile
from fl.data.rules import check_rules, infer_rules
from fl.data.store import write_store
from fl.data.validate import validate
from fl.errors import BadInput
from fl.signature import Signature
from server.query import asker

NAMES = ("age", "weight", "sex", "visits", "label")
AGE, WEIGHT, SEX, VISITS = range(4)
CLIENTS, ROWS = 6, 200


def sound(seed=1):
    """Rows (clients, rows, 5) of people whose label depends on age and weight, a little differently by client."""
    random = np.random.default_rng(seed)
    table = np.empty((CLIENTS, ROWS, 5))
    for client in range(CLIENTS):
        age = np.clip(random.normal(50 + client, 12, ROWS), 18, 95)
        weight = np.clip(random.normal(75, 12, ROWS), 40, 140)
        sex, visits = random.integers(0, 2, ROWS), random.poisson(6, ROWS)
        label = age + weight + random.normal(0, 15, ROWS) > 127
        table[client] = np.stack([age, weight, sex, visits, label], axis=1)
    table[:, ::20, WEIGHT] = np.nan
    return table


@pytest.fixture
def asked(settings, tmp_path):
    """The question-asker over private partitions of a table (clients, rows, 5)."""

    def asked(table, name="devices"):
        rows = table.reshape(-1, 5)
        signature = Signature("classification", (4,), "float32", 2, feature_names=NAMES[:4])
        x, y = rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64)
        parts = np.tile([ROWS - 40, 20, 20], (CLIENTS, 1))
        write_store(tmp_path / name, x=x, y=y, parts=parts, signature=signature, name=name, fingerprint="0")
        values = settings("model=softmax") | {"num_clients": CLIENTS}
        setting = open_setting(values, partitions=tmp_path / name, states=tmp_path / "s", signature=signature)
        return asker(UnitGrid(run_id="1", num_clients=CLIENTS, unit_size=2, executor=InProcess(setting)))

    return asked


@pytest.fixture
def rules(asked):
    ask = asked(sound(), "trusted")
    return check_rules(infer_rules(ask, profile(ask, names=NAMES)), file="rules")


@pytest.fixture
def broken(asked, rules):
    """What a table breaks of the rules, as (client, column, rule)."""

    def broken(table):
        found = validate(asked(table, "current"), rules=rules, names=NAMES, num_classes=2)
        assert all(v.found and v.allowed for v in found)
        return {(v.client, v.column, v.rule) for v in found}

    return broken


def clipped(table):
    """The same kind of data, drawn anew: within the ranges that were seen."""
    seen = sound().reshape(-1, 5)
    return np.clip(table, np.nanmin(seen, axis=0), np.nanmax(seen, axis=0))


def test_sound_data_keep_the_rules_that_were_inferred_from_them(broken, rules):
    assert rules["columns"]["sex"]["set"] == [0.0, 1.0]
    assert rules["columns"]["visits"]["type"] == "whole"
    assert "type" not in rules["columns"]["age"]
    assert broken(sound()) == set()
    assert broken(clipped(sound(seed=2))) == set()


def test_a_schema_break_at_a_client(broken):
    table = sound()
    table[2, :, [SEX, VISITS]] = table[2, :, [VISITS, SEX]] / 4
    found = broken(table)
    assert {(2, "sex", "set"), (2, "sex", "type"), (2, "visits", "type")} <= found
    assert {client for client, _, _ in found} == {2}


def test_other_columns_than_the_rules_name(asked, rules):
    names = ("age", "mass", *NAMES[2:])
    found = validate(asked(sound()), rules=rules, names=names, num_classes=2)
    assert [(v.client, v.column, v.rule) for v in found] == [(None, "weight", "schema"), (None, "mass", "schema")]
    with pytest.raises(BadInput, match="rules: got no column of these data"):
        validate(asked(sound()), rules=rules, names=("a", "b", "c", "d", "e"), num_classes=2)


def test_a_label_leak_of_all_clients_and_of_one(broken):
    table = sound()
    table[:, :, VISITS] = 1 + 9 * table[:, :, 4]
    assert {(None, "visits", "leak"), (5, "visits", "leak")} <= broken(table)
    table = sound()
    table[3, :, AGE] = 30 + 30 * table[3, :, 4] + np.random.default_rng(0).random(ROWS)
    found = broken(table)
    assert (3, "age", "leak") in found
    assert {client for client, _, _ in found} == {3}, "the others' ages tell no more than before"


def test_a_client_that_is_there_twice(broken):
    table = sound()
    table[4] = table[1, np.random.default_rng(0).permutation(ROWS)]
    assert broken(table) == {(4, None, "shared_share")}


def test_a_change_of_unit(broken):
    table = sound()
    table[1, :, WEIGHT] *= 1000
    assert broken(table) == {(1, "weight", "unit"), (1, "weight", "range"), (1, "weight", "drift")}


@pytest.mark.parametrize(
    "name, mean, deviation, change",
    [
        ("Celsius to Fahrenheit", 36.8, 0.7, lambda x: 1.8 * x + 32),
        ("Fahrenheit to Celsius", 98.2, 1.3, lambda x: (x - 32) / 1.8),
        ("Celsius to Fahrenheit", 0.0, 8.0, lambda x: 1.8 * x + 32),
        ("Celsius to kelvin", 15.0, 8.0, lambda x: x + 273.15),
        ("kelvin to Fahrenheit", 290.0, 8.0, lambda x: 1.8 * (x - 273.15) + 32),
        ("days since 1970 to days since 1900", 19_000.0, 400.0, lambda x: x + 25_569),
    ],
)
def test_a_unit_that_is_converted_is_named(asked, name, mean, deviation, change):
    """The reference is of everybody; one client sends another unit, and it alone is named."""
    table, draw = sound(), np.random.default_rng(3)
    table[:, :, WEIGHT] = draw.normal(mean, deviation, table.shape[:2])
    ask = asked(table, "celsius")
    rules = check_rules(infer_rules(ask, profile(ask, names=NAMES)), file="rules")
    table[:, :, WEIGHT] = draw.normal(mean, deviation, table.shape[:2])
    table[2, :, WEIGHT] = change(table[2, :, WEIGHT])
    found = validate(asked(table, "mixed"), rules=rules, names=NAMES, num_classes=2)
    assert [(v.client, v.column) for v in found if v.rule == "unit"] == [(2, "weight")]
    (told,) = (v.found for v in found if v.rule == "unit")
    assert name in told


@pytest.mark.parametrize("change", [lambda x: x + 3, lambda x: 1.8 * x - 20, lambda x: 0.9 * x, lambda x: -x])
def test_other_drift_is_not_called_a_change_of_unit(asked, change):
    table, draw = sound(), np.random.default_rng(3)
    table[:, :, WEIGHT] = draw.normal(15, 4, table.shape[:2])
    ask = asked(table, "celsius")
    rules = check_rules(infer_rules(ask, profile(ask, names=NAMES)), file="rules")
    table[2, :, WEIGHT] = change(table[2, :, WEIGHT])
    found = validate(asked(table, "moved"), rules=rules, names=NAMES, num_classes=2)
    assert not [v for v in found if v.rule == "unit"]


def test_a_bad_batch(broken):
    table, random = sound(), np.random.default_rng(0)
    table[0, :, :4] = random.choice([np.nan, -999.0, 0.0], size=(ROWS, 4))
    found = broken(table)
    assert {(0, name, rule) for name in NAMES[:2] for rule in ("missing_share", "range", "drift")} <= found
    assert (0, "sex", "set") in found
    assert {client for client, _, _ in found} == {0}


def test_rows_of_the_test_part_that_are_trained_on(broken):
    table = sound()
    table[3, -20:] = table[3, :20]
    assert broken(table) == {(3, None, "leaked_share"), (3, None, "repeated_share")}


def test_a_class_that_a_client_all_but_lacks(broken):
    table = sound()
    table[5, :, 4] = 0
    assert (5, "label", "smallest_share") in broken(table)


def test_values_that_must_be_unique(asked, rules):
    rules["columns"]["age"]["unique"] = True
    table = sound()
    table[:, :, AGE] = np.arange(CLIENTS * ROWS).reshape(CLIENTS, ROWS) % 70 / 2 + 20
    found = validate(asked(table), rules=rules, names=NAMES, num_classes=2)
    assert {v.client for v in found if v.rule == "unique"} == set(range(CLIENTS))
    assert {v.found for v in found if v.rule == "unique"} == {"130 values occur again"}


def test_all_faults_are_told_at_once(broken):
    table = sound()
    table[1, :, WEIGHT] *= 1000
    table[4] = table[2]
    table[0, 0, VISITS] = 0.5
    assert broken(table) >= {(1, "weight", "unit"), (4, None, "shared_share"), (0, "visits", "type")}


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "rules: got no section columns"),
        ({"columns": {}, "colums": {}}, "rules: got section colums, allowed: columns, label, rows"),
        ({"columns": {"age": {"rnge": [0, 1]}}}, "rules: columns.age: got rnge, allowed: type, range, set"),
        ({"columns": {"age": {"range": [3, 1]}}}, r"rules: columns.age.range: got \[3, 1\], allowed: two numbers"),
        ({"columns": {"age": {"set": "M"}}}, "rules: columns.age.set: got M, allowed: a list of numbers"),
        ({"columns": {"age": {"drift": 2}}}, "rules: columns.age.drift: got 2, allowed: a number from 0 to 1"),
        ({"columns": {"age": {"type": "text"}}}, "rules: columns.age.type: got text, allowed: whole, real"),
        ({"columns": {"age": {"unique": 1}}}, "rules: columns.age.unique: got 1, allowed: true, false"),
        ({"columns": {"age": [1]}}, r"rules: columns.age: got \[1\], allowed: rules by name"),
        ({"columns": {"age": {"reference": {"edges": [0, 1]}}}}, "rules: columns.age.reference: got edges"),
        ({"columns": {}, "label": {"leak": "high"}}, "rules: label.leak: got high"),
    ],
)
def test_wrong_rules_are_named(wrong, message):
    with pytest.raises(BadInput, match=message):
        check_rules(wrong, file="rules")
